"""Dead letters: actions that were tried often enough, messages that could not be read, and a person's word.

Hides that such an action stays where pending ones are. It may have been done, so it is looked up before it
is sent anew, and before it is dropped. Also hides that a message which can be read by now is received as if
it came now, its facts known again by their keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from storekeep import bus, ledger
from storekeep.decisions import stamp
from storekeep.errors import Refused
from storekeep.events import Event
from storekeep.ledger import Entry
from storekeep.pipeline.acting import Acting
from storekeep.store import Arrival, DeadLetter, Transaction
from storekeep.watch import stage


class Returning(Acting):
    """Dead letters are listed, tried anew, or dropped."""

    def dead_letters(self) -> list[dict[str, Any]]:
        """The actions that were given up and still wait for a person's word, with the last reason."""
        with self.store.transaction(self.tenant) as tx:
            rows = tx.dead_tasks()
            steps = ledger.steps(tx, [row["decision_id"] for row in rows])
        return [{**row, "reason": steps[row["decision_id"]][-1]["reason"]} for row in rows]

    def retry(self, decision_ids_: Sequence[str], by: str, reason: str) -> None:
        """A person has dead letters tried anew, as often as at first; `act` does it.

        Raises `Refused` for one that is none, or that expired: the agent proposes anew.
        """
        with stage("retry", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(decision_ids_)
            for row in self._dead(tx, decision_ids_):
                if row["expires_at"] is not None and row["expires_at"] <= self.now():
                    raise Refused(
                        f"decision {row['decision_id']} could be carried out until "
                        f"{stamp(row['expires_at'])}; drop it, the agent proposes anew"
                    )
            self._answer_dead(tx, decision_ids_, "retried", by, reason, statuses)
            tx.revive_tasks(decision_ids_)
            watched.rows = len(decision_ids_)

    def drop(self, decision_ids_: Sequence[str], by: str, reason: str) -> None:
        """A person has dead letters dropped: limits are given back, and nothing is on its way.

        Raises `Refused` for one that is none, or that was done after all: it is retried, which finds it.
        """
        with stage("drop", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(decision_ids_)
            rows = self._dead(tx, decision_ids_)
            for action in sorted({row["action"] for row in rows}):
                mine = [row["decision_id"] for row in rows if row["action"] == action]
                for key, receipt in sorted(self._adapter(action).find(mine).items()):
                    if not receipt.details.get("cancelled"):
                        raise Refused(
                            f"decision {key} was carried out after all, as {receipt.reference} of "
                            f"{receipt.adapter}; retry it, which records that"
                        )
            self._answer_dead(tx, decision_ids_, "dropped", by, reason, statuses)
            tx.drop_tasks(decision_ids_)
            tx.drop_uses(decision_ids_)
            orders = self._orders(tx, decision_ids_)
            self._tell(tx, [(orders[key], "dropped", None) for key in decision_ids_])
            watched.rows = len(decision_ids_)

    # Messages -----------------------------------------------------------------------------------------

    def put_aside(self) -> list[dict[str, Any]]:
        """The messages that could not be read, and why in general: nothing of what is in them."""
        with self.store.transaction(self.tenant) as tx:
            return [{**row, "reason": _in_general(row["reason"])} for row in tx.put_aside()]

    def message(self, message_id: str) -> DeadLetter:
        """A message that could not be read, all of it; `Refused` when there is none of this id."""
        with self.store.transaction(self.tenant) as tx:
            (found,) = _letters(tx, [message_id])
        return self._bodies.open(found)

    def receive_again(
        self, message_ids: Sequence[str], by: str, reason: str
    ) -> list[dict[str, str]]:
        """A person has messages received anew; what came of each (`message_id`, `result`, `reason`).

        Those that can be read by now are `received`, or `known` when all their facts were told since, or the
        same batch was kept. The others stay put aside, `unreadable`, with the reason of now.
        """
        with (
            stage("receive_again", self.tenant) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            readable: list[tuple[DeadLetter, Event | Arrival]] = []
            found: list[dict[str, str]] = []
            for letter in _letters(tx, message_ids):
                try:
                    told = bus.read_again(tx, self._bodies.open(letter))
                    came = self._arrival(told) if isinstance(told, bus.Batch) else told
                    readable.append((letter, came))
                except bus.Unreadable as error:
                    said = {"result": "unreadable", "reason": str(error)}
                    found.append({"message_id": letter.message_id, **said})
            # The ledger before the bus, as whoever decides has it.
            for letter, _ in readable:
                self._answer_message(tx, letter, "retried", by, reason)
            for letter, each in readable:
                fresh = self._received(tx, letter, each)
                said = {"result": "received" if fresh else "known", "reason": reason}
                found.append({"message_id": letter.message_id, **said})
            watched.rows = len(readable)
            return found

    def drop_messages(self, message_ids: Sequence[str], by: str, reason: str) -> None:
        """A person has messages dropped: what is in them is gone. Raises `Refused` for one that is none."""
        with (
            stage("drop_messages", self.tenant) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            for letter in _letters(tx, message_ids):
                self._answer_message(tx, letter, "dropped", by, reason)
            watched.rows = len(message_ids)

    def _received(self, tx: Transaction, letter: DeadLetter, told: Event | Arrival) -> bool:
        """Put what is new in an event on the bus, or keep a batch; whether anything was new."""
        if isinstance(told, Arrival):
            return tx.add_arrival(told)
        news = self._news(tx, letter.partition, [told])
        places = bus.append(tx, letter.partition, news)
        self._trace_carried(tx, letter.partition, letter.transport, news, places)
        return any(each is not None for each in places)

    def _answer_message(
        self, tx: Transaction, letter: DeadLetter, end: str, by: str, reason: str
    ) -> None:
        """Take a message off, and record who did so and why; of the message only where it stood."""
        if not tx.drop_dead_letter(letter.transport, letter.partition, letter.position):
            raise _gone(letter.message_id)
        said = {
            "message_id": letter.message_id,
            "transport": letter.transport,
            "partition": letter.partition,
            "position": letter.position,
            "end": end,
            "by": by,
            "at": stamp(self.now()),
            "reason": reason,
        }
        self._note(tx, Entry("message", said))

    # Actions ------------------------------------------------------------------------------------------

    def _dead(self, tx: Transaction, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The dead letters of these decisions; `Refused` when one has none."""
        rows = tx.dead_tasks(ids)
        for key in sorted(set(ids) - {row["decision_id"] for row in rows}):
            raise Refused(f"decision {key} is no dead letter; see `storekeep dead-letters list`")
        return rows

    def _answer_dead(
        self,
        tx: Transaction,
        ids: Sequence[str],
        step: str,
        by: str,
        reason: str,
        statuses: dict[str, str],
    ) -> None:
        said = {"by": by, "at": stamp(self.now()), "reason": reason}
        self._append_entries(tx, [Entry("dead_letter", said, key, step) for key in ids], statuses)


def _letters(tx: Transaction, message_ids: Sequence[str]) -> list[DeadLetter]:
    """The messages of some ids, by where they stood; `Refused` when one is not there."""
    found = tx.dead_letters(message_ids, limit=len(message_ids))
    for key in sorted(set(message_ids) - {each.message_id for each in found}):
        raise _gone(key)
    return sorted(found, key=lambda each: (each.partition, each.transport, each.position))


def _gone(message_id: str) -> Refused:
    return Refused(f"no message {message_id} is put aside; see `storekeep put-aside list`")


def _in_general(reason: str) -> str:
    """Why a message could not be read, without what was quoted of it."""
    return re.split(r"[:'\"]", reason, maxsplit=1)[0].rstrip()
