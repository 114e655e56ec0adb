"""The order of the stages: from what the shop reports to what is done, and back.

The only module that knows which stage follows which. Each method is one step that commits as a whole; a
crash between two steps, or inside one, is mended by running the steps again (law 4). Time comes from the
caller: the same steps run live, in a demonstration and in a replay.

    opening     one tenant's store, lake and adapters, and the rulebooks in force
    steering    the modes of agents, and the switch that stops them
    intake      what is reported becomes facts, stock positions, history and features
    recording   evidence as of now; entries about decisions and the events that follow
    rejudging   recorded proposals judged again, by what is known and in force by now
    answering   a person's word, and what happens without one
    deciding    agents are woken, judged and recorded
    acting      what was decided is done, each thing once
    undoing     what was taken back, proposed again
    reverting   plans, reverts, replays and proofs
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime

from storekeep import ledger, servers
from storekeep.actions import PLACE_PURCHASE_ORDER, BackOffice
from storekeep.config import Settings
from storekeep.errors import Refused
from storekeep.lake import Lake
from storekeep.pipeline.answering import digest_of
from storekeep.pipeline.deciding import Run
from storekeep.pipeline.opening import utc_now
from storekeep.pipeline.reverting import Reverting
from storekeep.store import Store

__all__ = ["Pipeline", "Run", "digest_of", "opened", "utc_now"]


class Pipeline(Reverting):
    """One tenant's stages over one store, one lake and its adapters."""

    def round(self, today: date, locations: Sequence[str] = ()) -> dict[tuple[str, str], Run]:
        """One round for live homes: count in what is new, wake the agents that are due, and act."""
        self.move_stock()
        self.keep_history()
        for location_id in locations or self.locations():
            self.update_features(location_id, today)
        runs = self.dispatch(locations)
        self.act()
        return runs


@contextmanager
def opened(
    settings: Settings, *, now: Callable[[], datetime] = utc_now, purpose: str | None = "live"
) -> Iterator[Pipeline]:
    """The pipeline of a home's tenant, its servers running and its schema up to date.

    A tenant that is not there yet is made, for `live` use or for a `demo`; with no purpose it must be
    there. Raises `Refused`, `Transient` or `Permanent` when the home cannot be used, saying what to do.
    """
    name = settings.tenant
    with servers.lease(settings) as database, Store(database.conninfo) as store:
        store.migrate()
        with store.transaction(name) as tx:
            if purpose is not None:
                tx.make_tenant(purpose)
            elif tx.purpose() is None:
                raise Refused(f"this home has no tenant {name}; name another with --tenant")
        back_office = BackOffice(database.conninfo, name)
        with closing(back_office), Lake(settings.home / "lake", name) as lake:
            yield Pipeline(
                store=store,
                lake=lake,
                tenant=name,
                signing=ledger.signer(settings.home),
                adapters={PLACE_PURCHASE_ORDER.name: back_office},
                now=now,
                worker=f"{platform.node()}:{os.getpid()}",
                principals=settings.principals,
            )
