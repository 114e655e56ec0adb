"""How fast feeds are taken in: one large file, a thousand small ones, webhooks, and Pandera beside it.

Hides the set-up: a home of its own in a temporary folder, and how lines become many. They are those of the
files that are given, again and again, each time with other invoices on later days; where none are given they
are made up from a seed, and every figure says so.
"""

from __future__ import annotations

import importlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from storekeep import ingest
from storekeep.backtest import hooks_bench
from storekeep.backtest.decisions_bench import Row, memory, row, seconds
from storekeep.config import Settings
from storekeep.pipeline import Pipeline, opened

MAPPING = "uci_online_retail"
LINES = 10_000_000
FILES, LINES_A_FILE = 1_000, 100
_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
_INVOICE = re.compile(r"^(C?)(?=\d)", re.MULTILINE)
_DAY = re.compile(r",(\d{4}-\d{2}-\d{2}) ")
_PEER_ROWS = 250_000
_NOT_GOODS = ("POST", "DOT", "C2", "M", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS")


def run(settings: Settings, quick: bool, files: Path | None = None) -> list[Row]:
    """Measure all of it; `quick` at a tenth of the size. One row a figure.

    `files` is a zip of daily files as UCI's Online Retail has them.
    """
    share = 10 if quick else 1
    of = "lines of UCI Online Retail, repeated" if files else "simulated lines"
    with tempfile.TemporaryDirectory(prefix="storekeep-bench-") as folder:
        Path(folder).chmod(0o711)
        days = _days(files)
        large, some = Path(folder) / "large.csv", Path(folder) / "some.csv"
        many = _write(large, days, LINES // share)
        fewer = _write(some, days, LINES // 10 // share)
        own = settings.model_copy(update={"home": Path(folder) / "home", "tenant": "bench"})
        rows = _one_file(own, large, many, of)
        large.unlink()
        rows += _small_files(own, Path(folder) / "small", days, FILES // share)
        rows.append(_beside(some, fewer, of))
    return rows + hooks_bench.run(settings, quick)


# What is read ------------------------------------------------------------------------------------------


def _days(files: Path | None) -> list[str]:
    """The lines of each day, without the header."""
    if files is None:
        return list(_made_up())
    with zipfile.ZipFile(files) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".csv"))
        return [archive.read(name).decode().partition("\n")[2] for name in names]


def _made_up() -> Iterator[str]:
    """Two hundred and forty days of some 1,500 lines, in invoices of twenty."""
    chance = np.random.default_rng(42)
    for day in range(240):
        on, many = date(2025, 1, 1) + timedelta(days=day), int(chance.integers(1_000, 2_000))
        skus, units = chance.integers(10_000, 14_000, many), chance.integers(1, 25, many)
        prices, buyers = chance.integers(10, 2_000, many), chance.integers(12_000, 18_000, many)
        yield "".join(
            f"{600_000 + 1_000 * day + place // 20},{skus[place]},ITEM {skus[place]},{units[place]},"
            f"{on} {8 + place * 10 // many:02}:{place // 20 % 60:02}:00,{prices[place] / 100:.2f},"
            f"{buyers[place // 20]}.0,United Kingdom\n"
            for place in range(many)
        )


def _write(path: Path, days: list[str], many: int) -> int:
    """One file of so many lines: the days, and all of them again after their end, as other invoices."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER)
        for lines in _repeated(days):
            part = lines if written + lines.count("\n") <= many else _first(lines, many - written)
            file.write(part)
            written += part.count("\n")
            if written == many:
                break
    return written


def _repeated(days: list[str]) -> Iterator[str]:
    for turn in count():
        for lines in days:
            yield _moved(lines, turn)


def _moved(lines: str, turn: int) -> str:
    """The lines of a day as those of a day in another year's turn."""
    told = _DAY.search(lines)
    if not turn or told is None:
        return lines
    day = date.fromisoformat(told[1]) + timedelta(days=365 * turn)
    return _INVOICE.sub(rf"\g<1>{turn}0", lines.replace(f",{told[1]} ", f",{day} "))


def _first(lines: str, many: int) -> str:
    return "".join(line + "\n" for line in lines.split("\n", many)[:many])


# What is measured --------------------------------------------------------------------------------------


def _one_file(own: Settings, file: Path, many: int, of: str) -> list[Row]:
    with opened(own) as pipeline, memory(pipeline) as held:
        spent = seconds(partial(_read, pipeline, [file]))
    pace = many / spent
    what = f"POS CSV of {many:,} {of}: validated, on the bus, stock moved, in the lake"
    return [
        row(what, pace, "line/s", "100,000 or more", pace >= 100_000),
        row(
            "memory of all processes meanwhile", max(held), "MiB", "1536 or less", max(held) <= 1536
        ),
    ]


def _small_files(own: Settings, folder: Path, days: list[str], many: int) -> list[Row]:
    """Files of a hundred lines, one after another."""
    folder.mkdir()
    lines = (line for text in _repeated(days) for line in text.splitlines(keepends=True))
    paths = [folder / f"{number:04}.csv" for number in range(many)]
    for path in paths:
        path.write_text(_HEADER + "".join(islice(lines, LINES_A_FILE)), encoding="utf-8")
    with opened(own.model_copy(update={"tenant": "small"})) as pipeline:
        spent = seconds(partial(_read, pipeline, paths))
    goal = 20 * many / FILES
    what = f"{many:,} files of {LINES_A_FILE} lines"
    return [row(what, spent, "s", f"{goal:g} s or less", spent <= goal)]


def _read(pipeline: Pipeline, files: list[Path]) -> None:
    pipeline.read_feed(ingest.mapping(MAPPING), files)


def _beside(file: Path, many: int, of: str) -> Row:
    """The same checks of the same lines, here and in Pandera on pandas."""
    ours = many / seconds(partial(_judged, file))
    what = f"validation alone, {many:,} {of}"
    try:
        importlib.import_module("pandera.pandas")
    except ImportError as error:
        return row(f"{what} (beside Pandera: {error.name} is not installed)", ours, "line/s")
    peer = many / seconds(partial(_pandera, file))
    ratio = ours / peer
    return row(what, ours, "line/s", "5 times Pandera", ratio >= 5, ("Pandera", peer, ratio))


def _judged(file: Path) -> None:
    for _ in ingest.load(ingest.mapping(MAPPING), [file], known_at=datetime.now(UTC)):
        pass


def _pandera(file: Path) -> None:
    """Read the cells as text, as they may be wrong; check all of them; drop what failed and say why."""
    pd, pandera = importlib.import_module("pandas"), importlib.import_module("pandera.pandas")
    schema = _schema(pandera)
    for part in pd.read_csv(file, dtype=str, keep_default_na=False, chunksize=_PEER_ROWS):
        rows = part.assign(
            StockCode=part.StockCode.str.upper(),
            quantity=pd.to_numeric(part.Quantity, errors="coerce"),
            price=pd.to_numeric(part.UnitPrice, errors="coerce"),
            at=pd.to_datetime(part.InvoiceDate, format="%Y-%m-%d %H:%M:%S", errors="coerce")
            .dt.tz_localize("Europe/London", ambiguous=False, nonexistent="shift_forward")
            .dt.tz_convert("UTC"),
        )
        try:
            schema.validate(rows, lazy=True)
        except pandera.errors.SchemaErrors as error:
            failed = error.failure_cases["index"].dropna().unique()
            rows = rows.drop(index=failed)


def _schema(pandera: Any) -> Any:
    """The mapping's checks, as Pandera has them."""
    check, column = pandera.Check, pandera.Column
    number = r"\s*[+-]?(\d+([.]\d*)?|[.]\d+)([eE][+-]?\d{1,3})?\s*$"
    goods = [
        check.notin(_NOT_GOODS),
        check(lambda codes: ~codes.str.lower().str.startswith("gift_"), name="gift"),
        check.str_length(min_value=1),
    ]
    sold = [
        check(
            lambda rows: (rows.quantity >= 0) | rows.InvoiceNo.str.startswith("C"), name="adjusted"
        )
    ]
    return pandera.DataFrameSchema(
        {
            "InvoiceNo": column(str, [check.str_length(min_value=1), check.str_matches(r"(?!A)")]),
            "StockCode": column(str, goods),
            "Quantity": column(str, check.str_matches(r"[+-]?\d{1,18}$|" + number)),
            "InvoiceDate": column(
                str, check.str_matches(r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2})?)?$")
            ),
            "UnitPrice": column(str, check.str_matches(number)),
            "CustomerID": column(str, check.str_matches(r"$|" + number)),
            "quantity": column(float, nullable=False, coerce=True),
            "price": column(float, check.ne(0), nullable=False),
            "at": column("datetime64[us, UTC]", nullable=False, coerce=True),
        },
        checks=sold,
    )
