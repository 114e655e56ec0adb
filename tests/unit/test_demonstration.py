"""A demonstration in this process; how it is typed and what can go wrong on the way is tested elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from storekeep.backtest import Options, demo
from storekeep.config import Settings
from tests import shop
from tests.small_sales import written

DAYS = 7
PROOFS = (
    *(("replay", "identical"), ("replay", "run_identical"), ("revert", "restored")),
    *(("verify", "ok"), ("tamper", "found")),
)


def test_a_week_of_a_small_shop_is_played_and_proved(
    home_settings: Settings, tmp_path: Path
) -> None:
    files = written(tmp_path)
    options = Options(days=DAYS, sales=(files.sales,), mapping=str(files.mapping))
    report = demo(shop.new_tenant(home_settings), options)
    assert len(report["series"]) == report["days"] == DAYS
    assert report["events"]["read"] == report["events"]["accepted"] + report["events"]["later"]
    assert report["decisions"]["allow"] > 0
    assert report["approval"]["result"] == {"approved": report["approval"]["lines"]}
    assert report["receipts"] > 0
    assert [report[part][name] for part, name in PROOFS] == [True] * len(PROOFS)
    assert json.loads(Path(report["files"]["json"]).read_text()) == report
