"""The order of the stages: from what the shop reports to what is done, and back.

The only module that knows which stage follows which. Each method is one step that commits as a whole; a
crash between two steps, or inside one, is mended by running the steps again (law 4). Time comes from the
caller: the same steps run live, in a demonstration and in a replay.

    opening     one tenant's store, lake and adapters, and the rulebooks in force
    steering    the modes of agents, and the switch that stops them
    measuring   how a rulebook's version does, and what happens when it does badly
    tracing     what each run read and wrote is noted beside it
    intake      what is reported becomes facts, stock positions, history and features
    sealing     what is personal is sealed and kept apart
    quarantine  rows that could not be taken in, until they can be
    agreeing    what feeds promised is held against what came, and how each stands is told
    feeding     files become facts and quarantine, and how each feed stands
    persons     who is who, what is kept of a person, and erasing it
    restating   what a document moves that is told again when it changes
    hearing     what came over HTTP becomes facts, and who fell silent
    carrying    events go to others and come from them, by a transport
    recording   evidence as of now; entries about decisions and the events that follow
    rejudging   recorded proposals judged again, by what is known and in force by now
    answering   a person's word, and what happens without one
    deciding    agents are woken, judged and recorded
    breaking    who does not work is left alone for a while
    trying      how often, and after which waits
    acting      what was decided is done, each thing once
    returning   dead letters are tried anew or dropped
    undoing     what was taken back, proposed again
    reverting   plans, reverts, replays and proofs
    writing     purchase orders as documents for suppliers
    working     all of it once, and again and again in a process of its own
    lineage     from a decision or a table back to runs, files and lines
    openlineage the same as OpenLineage events, for others
    featuring   features that people declare over their own tables, as of any time and by now
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime

from storekeep import ledger, servers
from storekeep.actions import PLACE_PURCHASE_ORDER, Adapter, BackOffice, HttpOrders
from storekeep.config import OrderSystem, Settings
from storekeep.errors import Misused, Refused
from storekeep.lake import Lake
from storekeep.pipeline.answering import digest_of
from storekeep.pipeline.deciding import Run
from storekeep.pipeline.featuring import Featuring
from storekeep.pipeline.opening import utc_now
from storekeep.pipeline.working import Worker
from storekeep.store import Store, Transaction

__all__ = ["Pipeline", "Run", "Worker", "digest_of", "opened", "utc_now"]


class Pipeline(Featuring):
    """One tenant's stages over one store, one lake and its adapters."""


@contextmanager
def opened(
    settings: Settings,
    *,
    now: Callable[[], datetime] | None = None,
    purpose: str | None = "live",
) -> Iterator[Pipeline]:
    """The pipeline of a home's tenant, its servers running and its schema up to date.

    A tenant that is not there yet is made, for `live` use or for a `demo`; with no purpose it must be
    there. Without a clock a live tenant lives now, and in a demonstration it stays the moment at which the
    play ended: what waits there for a person still does, whenever somebody looks. Raises `Refused`,
    `Transient` or `Permanent` when the home cannot be used, saying what to do.
    """
    name = settings.tenant
    with servers.lease(settings) as database, Store(database.conninfo) as store:
        store.migrate()
        with store.transaction(name) as tx:
            if purpose is not None:
                tx.make_tenant(purpose)
            elif tx.purpose() is None:
                raise Refused(f"this home has no tenant {name}; name another with --tenant")
            plays = tx.purpose() == "demo"
            clock = now or (_stopped(tx) if plays else utc_now)
        with (
            _adapters({} if plays else settings.adapters, database.conninfo, name) as adapters,
            Lake(settings.home / "lake", name) as lake,
        ):
            yield Pipeline(
                store=store,
                lake=lake,
                tenant=name,
                signing=ledger.signer(settings.home),
                adapters=adapters,
                home=settings.home,
                now=clock,
                worker=f"{platform.node()}:{os.getpid()}",
                principals=settings.principals,
                web_shops=settings.web_shops,
                bus_mappings=settings.bus_mappings,
                push_bytes=settings.push_bytes,
            )


def _stopped(tx: Transaction) -> Callable[[], datetime]:
    """A clock that stands at the last moment of which the ledger tells; the time where it tells of none."""
    last, _ = tx.ledger_head()
    sealed = tx.ledger_batches(last, last)
    return (lambda: sealed[0]["recorded_at"]) if sealed else utc_now


@contextmanager
def _adapters(
    systems: Mapping[str, OrderSystem], conninfo: str, tenant: str
) -> Iterator[dict[str, Adapter]]:
    """What carries out each action: the system that the settings name, or the embedded back office.

    What is only played is never sent to a system of the retailer's own.
    """
    name = PLACE_PURCHASE_ORDER.name
    for other in sorted(systems.keys() - {name}):
        raise Misused(
            f"setting 'adapters' names {other}, which is no action; the one there is: {name}"
        )
    chosen = HttpOrders(systems[name]) if name in systems else BackOffice(conninfo, tenant)
    with closing(chosen):
        yield {name: chosen}
