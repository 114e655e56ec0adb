"""A person's word on what policy would not decide alone, and what happens when nobody says one.

Hides who may give it, how many must, and that it binds to exactly what was asked for: a word is given on the
proposal as it stands, and counts by the evidence and the rulebook of the moment in which it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pyarrow.compute as pc

from storekeep import canonical, ledger, policy
from storekeep.actions import Order, corrections
from storekeep.decisions import (
    Decided,
    Proposed,
    Status,
    stamp,
)
from storekeep.errors import InvariantBroken, Refused
from storekeep.ledger import Entry
from storekeep.pipeline.outlook import asked, by_now, open_bounds, recorded_evidence
from storekeep.pipeline.recording import order_of
from storekeep.pipeline.rejudging import Ground, Rejudging, Word
from storekeep.store import Transaction
from storekeep.watch import stage

# After these steps a request still waits.
WAITING = ("agreed", "changed")
_AGENT = "agent:"


@dataclass(frozen=True)
class _Changed:
    """What a person asks for in place of what was proposed."""

    decision_id: str
    by: str
    before: Order
    after: Order
    proposed: Proposed
    history: Sequence[Mapping[str, Any]]

    @property
    def money_minor(self) -> int:
        """The money at stake in it."""
        return int(self.after.parameters[self.proposed.action.money])


class Answering(Rejudging):
    """Approvals, refusals, changes, and requests that nobody answered."""

    def approve(
        self, decision_ids_: Sequence[str], by: str, digest: str | None = None
    ) -> dict[str, str]:
        """A person agrees to escalated decisions; what became of each, by id.

        The evidence is taken afresh and the same proposal judged again, under the rulebook in force: what
        policy forbids by now, or would now lower, stays undone. Where several persons are asked, nothing
        happens before the last of them; until then a decision is `agreed`. `digest` is what the person saw
        (`digest_of`). Raises `Refused` for a decision that does not wait for approval, that was changed
        since, or that this person may not approve.
        """
        with stage("approve", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, decision_ids_, digest)
            late = {key for key, row in requests.items() if row["deadline"] < self.now()}
            said = {key: self._said(by) for key in late}
            ends = dict.fromkeys(late, "expired")
            for key, word in self._judge_again(tx, sorted(requests.keys() - late)).items():
                request = requests[key]
                role, persons = _asked([request, word.plain], word, request["role"])
                self._may_answer(by, role, word.ladder, request, approves=True)
                agreed = self._agreed(by, role, word, request)
                ends[key] = _end(agreed, persons, request) if word.stands else "denied"
                said[key] = self._said(by) | word.entry()
                said[key] |= {"role": role, "persons": persons, "agreed": agreed}
                said[key] |= {"digest": request["digest"]}
            again = [
                key
                for key, end in ends.items()
                if end == "agreed" and by in requests[key]["agreed"]
            ]
            self._answer(
                tx, {key: end for key, end in ends.items() if key not in again}, said, requests
            )
            tx.agree([key for key, end in ends.items() if end == "agreed"], by)
        return dict(sorted(ends.items()))

    def reject(
        self, decision_ids_: Sequence[str], by: str, reason: str, digest: str | None = None
    ) -> dict[str, str]:
        """A person says no to escalated decisions: the safe default stands."""
        with stage("reject", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, decision_ids_, digest)
            for row in requests.values():
                ladder = self.rulebook(tx, row["agent"]).checked.roles
                self._may_answer(by, row["role"], ladder, row, approves=False)
            said = {
                key: {
                    **self._said(by),
                    "reason": reason,
                    "digest": row["digest"],
                    "safe_default": row["safe_default"],
                }
                for key, row in requests.items()
            }
            ends = dict.fromkeys(sorted(requests), "rejected")
            self._answer(tx, ends, said, requests)
        return ends

    def change(
        self,
        decision_id: str,
        by: str,
        values: Mapping[str, int],
        reason: str,
        digest: str | None = None,
    ) -> str:
        """A person who may approve asks for something else; `approved`, `changed` or `expired`.

        Only within the bounds that a rule that asks allows, taken from what was first proposed. The changed
        proposal is judged in full. If no rule asks for a person any more it goes ahead; else it waits for
        one who did not ask for the change. Raises `Refused`, and changes nothing, when it is out of bounds
        or policy would forbid or lower it.
        """
        with stage("change", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, [decision_id], digest)
            request = requests[decision_id]
            if request["deadline"] < self.now():
                self._answer(tx, {decision_id: "expired"}, {decision_id: self._said(by)}, requests)
                return "expired"
            (ground,) = self._grounds(tx, [decision_id])
            self._may_answer(
                by, request["role"], ground.rulebook.checked.roles, request, approves=True
            )
            _within(self._bounds(tx, ground), values, decision_id)
            changed = self._put(tx, ground, values, by)
            word = self._words(tx, ground, changed.proposed)[decision_id]
            if not word.stands or word.plain["verdict"] not in (Decided.ALLOW, Decided.ESCALATE):
                raise Refused(f"policy would not let that happen: {_objections(word)}")
            # That figures have moved since is no reason to ask nobody: the change itself must be.
            then = replace(ground, evidence=recorded_evidence(changed.history, ground.evidence))
            words = [word, self._words(tx, then, changed.proposed)[decision_id]]
            free = all(each.plain["verdict"] == Decided.ALLOW for each in words)
            end = "approved" if free else "changed"
            self._record_change(tx, changed, words, request, end, reason)
        return end

    def lapse(self) -> int:
        """Requests that nobody answered in time lapse: the safe default stands; how many there were."""
        with stage("lapse", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            late = {row["decision_id"]: row for row in tx.approvals(until=self.now())}
            statuses = tx.lock_decisions(list(late))
            ends = {key: "expired" for key in late if statuses[key] == Status.ESCALATED}
            said = {
                key: {
                    **self._said("nobody"),
                    "reason": f"nobody answered until {stamp(late[key]['deadline'])}",
                    "safe_default": late[key]["safe_default"],
                }
                for key in ends
            }
            self._answer(tx, ends, said, late)
            watched.rows = len(ends)
        return len(ends)

    def outlook(self, decision_ids_: Sequence[str]) -> list[dict[str, Any]]:
        """What a person needs to know to answer requests, and what would be if each were judged now."""
        with stage("outlook", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, decision_ids_)
            histories = ledger.steps(tx, list(requests))
            runs = {
                batch: ledger.header(tx, batch)
                for batch in {history[0]["batch"] for history in histories.values()}
            }
            found = {}
            for ground in self._grounds(tx, list(requests)):
                words = self._words(tx, ground, ground.proposed)
                bounds = [each for each in self._bounds(tx, ground) if _can_be_told(each)]
                for key in ground.ids:
                    request, history, word = requests[key], histories[key], words[key]
                    run = runs[history[0]["batch"]]
                    needed = _asked([request, word.plain], word, request["role"])
                    own = [open_bounds(each) for each in bounds if each["decision_id"] == key]
                    told = asked(request, history, run, self.now())
                    now = by_now(history, word, ground.evidence, *needed)
                    found[key] = {**told, "change": own, "now": now}
            return [found[key] for key in requests]

    # Who may --------------------------------------------------------------------------------------------

    def _may_answer(
        self,
        by: str,
        role: str,
        ladder: Sequence[str],
        request: Mapping[str, Any],
        *,
        approves: bool,
    ) -> None:
        """Refuse a person without the role, and, where one approves, whoever proposed it."""
        key = request["decision_id"]
        if by.startswith(_AGENT):
            raise Refused(f"{by} is an agent: agents propose, a person answers")
        if approves and by == request["proposed_by"]:
            raise Refused(f"{by} asked for decision {key}: somebody else has to approve it")
        if not self._holds(by, role, ladder):
            above = " or above" if role in ladder[:-1] else ""
            raise Refused(
                f"decision {key} is for the role {role}{above}, which {by} does not have; "
                "see [principals] in the settings"
            )

    def _holds(self, by: str, role: str, ladder: Sequence[str]) -> bool:
        """Whether a person has a role or a higher one; where no principals are set, everybody has all."""
        if not self.principals:
            return True
        enough = {role, *(ladder[ladder.index(role) :] if role in ladder else ())}
        return not enough.isdisjoint(self.principals.get(by, ()))

    def _agreed(self, by: str, role: str, word: Word, request: Mapping[str, Any]) -> list[str]:
        """Who has agreed with this person, of those whose role is enough by now."""
        both = {*request["agreed"], by}
        return sorted(one for one in both if self._holds(one, role, word.ladder))

    # Change ---------------------------------------------------------------------------------------------

    def _bounds(self, tx: Transaction, ground: Ground) -> list[dict[str, Any]]:
        """What rules that ask by now let an approver change, by what was first proposed."""
        first = ledger.proposed(tx, ground.ids, ground.proposed.action, as_recorded=True)
        words = self._words(tx, ground, first)
        asking = {
            (word.plain["subject"], rule["rule"]): key
            for key, word in words.items()
            for rule in word.plain["rules"]
            if rule["effect"] == "escalate"
        }
        rows = policy.bounds(ground.rulebook, first, ground.evidence).to_pylist()
        return [
            {"decision_id": asking[place], **{name: row[name] for name in policy.BOUNDS.names[1:]}}
            for row in rows
            if (place := (row["subject"], row["rule"])) in asking
        ]

    def _put(self, tx: Transaction, ground: Ground, values: Mapping[str, int], by: str) -> _Changed:
        """What was asked for with other values, and what derives from them."""
        (key,) = ground.ids
        history = ledger.steps(tx, [key])[key]
        proposed = policy.changed(ground.rulebook, ground.proposed, ground.evidence, values)
        before = ledger.standing(history)
        after = proposed.proposals.select(list(before)).to_pylist()[0]
        if before == after:
            raise Refused(f"decision {key} asks for exactly that already; approve it")
        return _Changed(key, by, order_of(key, before), order_of(key, after), proposed, history)

    def _record_change(
        self,
        tx: Transaction,
        changed: _Changed,
        words: Sequence[Word],
        request: Mapping[str, Any],
        end: str,
        reason: str,
    ) -> None:
        """Record a change, and let the stock on its way, the limits and the request follow from it."""
        key, by = changed.decision_id, changed.by
        word = words[0]
        role, persons = _asked([each.plain for each in words], word, request["role"])
        agreed = [by] if self._holds(by, role, word.ladder) else []
        digest = ledger.asked_digest(changed.after.parameters)
        said = {
            **self._said(by),
            **word.entry(),
            "role": role,
            "persons": persons,
            "agreed": agreed,
            "digest": digest,
            "before": dict(changed.before.parameters),
            "after": dict(changed.after.parameters),
            "money_minor": changed.money_minor,
            "reason": reason,
        }
        self._answer(tx, {key: end}, {key: said}, {key: request})
        tx.move_money({key: changed.money_minor})
        tx.drop_uses([key])
        tx.add_uses(_uses(changed, word))
        number = 1 + sum("after" in each for each in changed.history)
        self._publish(tx, "change", corrections(changed.before, changed.after, self.now(), number))
        now = {
            "role": role,
            "persons": persons,
            "digest": digest,
            "changed_by": by,
            "agreed": agreed,
        }
        tx.change_approval(key, {**now, "rulebook_version": word.rulebook.version})

    # Every answer ---------------------------------------------------------------------------------------

    def _answer(
        self,
        tx: Transaction,
        ends: Mapping[str, str],
        said: Mapping[str, Mapping[str, Any]],
        requests: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Record the answers to requests, and what follows from each."""
        if not ends:
            return
        keys = sorted(ends)
        entries = [Entry("approval", said[key], key, ends[key]) for key in keys]
        self._append_entries(tx, entries, dict.fromkeys(keys, str(Status.ESCALATED)))
        closed = [key for key in keys if ends[key] not in WAITING]
        tx.drop_approvals(closed)
        orders = self._orders(tx, closed)
        approved = {key: orders[key] for key in closed if ends[key] == "approved"}
        actions = {key: requests[key]["action"] for key in approved}
        until = self.now() + ledger.EXECUTE_WITHIN
        self._add_tasks(tx, approved, actions, entries[0].text, until)
        tx.drop_uses([key for key in closed if ends[key] != "approved"])
        self._tell(tx, [(orders[key], ends[key], None) for key in closed])

    def _said(self, by: str) -> dict[str, Any]:
        return {"by": by, "at": stamp(self.now()), "rules": []}

    def _requests(
        self, tx: Transaction, ids: Sequence[str], digest: str | None = None
    ) -> dict[str, dict[str, Any]]:
        """The requests for approval of decisions, each for exactly what the ledger says is to be done."""
        statuses = tx.lock_decisions(list(ids))
        rows = {row["decision_id"]: row for row in tx.approvals(list(ids))}
        for key in ids:
            if key not in statuses:
                raise Refused(f"there is no decision {key}; see `storekeep approvals list`")
            if key not in rows:
                raise Refused(f"decision {key} does not wait for approval: it is {statuses[key]}")
        for key, history in ledger.steps(tx, list(rows)).items():
            if ledger.asked_digest(ledger.standing(history)) != rows[key]["digest"]:
                raise InvariantBroken(f"the request for decision {key} is not for what is recorded")
        if digest is not None and digest != digest_of(row["digest"] for row in rows.values()):
            raise Refused(
                "what waits for approval is not what you saw, whose digest you gave; "
                "look again with `storekeep approvals show`"
            )
        return rows


def digest_of(digests: Iterable[str]) -> str:
    """The digest of what is asked for: of one request its own, of several that of all of them."""
    listed = sorted(digests)
    return listed[0] if len(listed) == 1 else canonical.digest(listed)


def _asked(asks: Sequence[Mapping[str, Any]], word: Word, otherwise: str) -> tuple[str, int]:
    """The role that must approve and by how many persons: the most of what is asked for."""
    ladder = list(word.ladder)
    roles = [each["role"] for each in asks if each["role"] in ladder]
    persons = max(each["persons"] or 1 for each in asks)
    return max(roles, key=ladder.index, default=otherwise), persons


def _end(agreed: Sequence[str], persons: int, request: Mapping[str, Any]) -> str:
    """Whether these persons are enough: so many, and not only the one who asked for a change."""
    others = [one for one in agreed if one != request["changed_by"]]
    return "approved" if others and len(agreed) >= persons else "agreed"


def _within(bounds: Sequence[Mapping[str, Any]], values: Mapping[str, int], key: str) -> None:
    """Refuse values that the rules that ask do not allow, naming what they do."""
    for name, value in values.items():
        own = [each for each in bounds if each["parameter"] == name]
        if not own:
            raise Refused(f"no rule that asks about decision {key} lets {name} be changed")
        for each in own:
            if not _can_be_told(each):
                raise Refused(f"how far rule {each['rule']} lets {name} be changed cannot be told")
            if not each["at_least"] <= value <= each["at_most"]:
                raise Refused(
                    f"{name} {value} is not {_spread(each)}, as rule {each['rule']} allows"
                )


def _can_be_told(bound: Mapping[str, Any]) -> bool:
    return bound["at_least"] is not None and bound["at_most"] is not None


def _spread(bound: Mapping[str, Any]) -> str:
    """The bounds of a change in words."""
    least, most = (bound[name] for name in ("at_least", "at_most"))
    if math.isinf(most):
        return f"{least:,.12g} or more"
    return f"{most:,.12g} or less" if math.isinf(least) else f"{least:,.12g} to {most:,.12g}"


def _objections(word: Word) -> str:
    said = [each for each in word.agreed["rules"] if each["effect"] in ("forbid", "clip")]
    return "; ".join(f"{each['rule']}: {each['reason']}" for each in said)


def _uses(changed: _Changed, word: Word) -> Any:
    """What the changed decision takes from limits, on the day on which it was decided."""
    subject = word.agreed["subject"]
    day = changed.history[0]["evidence"].get("day")
    uses = word.uses.filter(pc.equal(word.uses["subject"], subject))
    return ledger.use_rows(
        uses, {subject: changed.decision_id}, date.fromisoformat(day) if day else None
    )
