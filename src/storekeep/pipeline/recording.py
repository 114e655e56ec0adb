"""What every later step shares: evidence as of now, entries about decisions, and the facts that follow.

Hides that a decision's state, its ledger entries and its events move together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import features, ledger, policy
from storekeep.actions import (
    Order,
    effects,
    pending,
)
from storekeep.decisions import (
    Evidence,
    Proposed,
    Receipt,
    decision_ids,
    step,
)
from storekeep.errors import InvariantBroken
from storekeep.ledger import Entry
from storekeep.pipeline.carrying import Carrying
from storekeep.store import Transaction


class Recording(Carrying):
    """Evidence in, entries and events out."""

    def _snapshot(
        self, tx: Transaction, location_id: str, partition: int, only: list[str] | None = None
    ) -> Evidence:
        return features.snapshot(
            self.lake,
            location_id,
            known_by=self.now(),
            stock=tx.stock(location_id),
            position=tx.position("stock", partition),
            only=only,
        )

    def _orders(self, tx: Transaction, ids: Sequence[str]) -> dict[str, Order]:
        """What recorded decisions order as they stand, by id."""
        stand = {key: ledger.standing(steps) for key, steps in ledger.steps(tx, ids).items()}
        return {key: order_of(key, parameters) for key, parameters in stand.items()}

    def _add_tasks(
        self,
        tx: Transaction,
        orders: Mapping[str, Order],
        actions: Mapping[str, str],
        seed: str,
        expires_at: datetime | None = None,
    ) -> None:
        """Let each order be carried out by its decision's action, until it expires."""
        for action in sorted(set(actions.values())):
            members = [order for key, order in orders.items() if actions[key] == action]
            tx.add_tasks(pending(members, action, seed, expires_at))

    def _append_entries(
        self, tx: Transaction, entries: Sequence[Entry], statuses: Mapping[str, str]
    ) -> None:
        """Record entries about decisions, and move the decisions to where the entries bring them."""
        following = {}
        for each in entries:
            if each.decision_id is None or each.step is None:
                raise InvariantBroken("an entry about a decision names it and its step")
            following[each.decision_id] = str(step(statuses[each.decision_id], each.step))
        # The same may be said again of the same decisions at the same moment.
        seed = "/".join([*sorted(following), str(tx.ledger_head()[0]), entries[0].text])
        batch_id = decision_ids(self.now(), f"{self.tenant}/{entries[0].step}", [seed])[0]
        ledger.append(
            tx, ledger.rows(entries), batch_id=batch_id, at=self.now(), signing=self.signing
        )
        tx.move_decisions(following)

    def _tell(
        self, tx: Transaction, ends: Sequence[tuple[Order, str, Receipt | str | None]]
    ) -> None:
        """Confirmed effects come back as events."""
        self._publish(tx, "act", effects(ends, self.now()))


def order_of(decision_id: str, parameters: Mapping[str, Any]) -> Order:
    """What a decision with these parameters is to an outside system; alone where no group is named."""
    return Order(decision_id, parameters.get("order_group") or decision_id, parameters)


def _day(evidence: Evidence) -> date:
    """The trading day a decision is made for."""
    if evidence.values.num_rows == 0:
        return evidence.known_by.date()
    day: date = evidence.values["day"][0].as_py()
    return day


def used_limits(
    tx: Transaction,
    rulebook: policy.Rulebook,
    proposed: Proposed,
    evidence: Evidence,
    without: Sequence[str] = (),
) -> pa.Table:
    """What recent decisions used of the limits that a batch's proposals share, in their day or week."""
    wanted = policy.usage_keys(rulebook, proposed, evidence)
    today = _day(evidence)
    since = {"day": today, "week": today - timedelta(days=today.weekday())}
    parts = [policy.USED.empty_table()]
    for limit, per in sorted(
        set(zip(wanted["limit"].to_pylist(), wanted["per"].to_pylist(), strict=True))
    ):
        keys = wanted.filter(pc.equal(wanted["limit"], limit))["key"].combine_chunks()
        found = tx.uses(limit, since[per], today, without)
        parts.append(found.filter(pc.is_in(found["key"], value_set=keys)).cast(policy.USED))
    return pa.concat_tables(parts)
