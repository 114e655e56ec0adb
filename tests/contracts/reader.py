"""Reads files into a home and kills itself on the way: `python -m tests.contracts.reader HOME`.

A command has `tenant`, `mapping`, `files`, and `dies_at`, the number of the moment (`tests.crash.worker`) at
which the child that carries it out sends itself SIGKILL, or null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.crash.worker import MOMENTS, Tell, serve


def _read(home: Path, command: dict[str, Any], tell: Tell) -> None:
    from storekeep import bus, ingest
    from storekeep.config import Settings
    from storekeep.pipeline import opened

    # So that a few rows are several batches.
    bus.MAX_FACTS = 2
    MOMENTS.tell = tell
    with opened(Settings(home=home, tenant=command["tenant"])) as pipeline:
        MOMENTS.dies = lambda _: len(MOMENTS.come_by) == command["dies_at"]
        MOMENTS.begin("read")
        files = [Path(each) for each in command["files"]]
        pipeline.read_feed(ingest.mapping(command["mapping"]), files, location_id="DC1")
        moments = MOMENTS.come_by
        MOMENTS.begin(None)
    tell({"done": "read", "moments": len(moments)})


if __name__ == "__main__":
    serve(_read)
