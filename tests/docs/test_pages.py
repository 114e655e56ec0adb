"""What the pages name is there: functions, files, commands, links, tables, steps, stages and messages."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from storekeep import decisions, lake
from storekeep.cli.asked import EVERYWHERE
from storekeep.cli.program import program
from storekeep.features import sku_location
from storekeep.lake import Kept
from storekeep.pipeline import Pipeline

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "storekeep"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md"))}
PAGES["README"] = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE, OPERATIONS, README = (
    PAGES[name] for name in ("architecture", "operations", "README")
)


def where(page: str) -> Path:
    """The folder from which a page's links go out."""
    return ROOT if page == "README" else ROOT / "docs"


def section(page: str, title: str) -> str:
    """The text under a heading of any level, up to the next of any level."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section is called {title}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables of a text, without their heads, as cells."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r" ?(?<!\\)\| ?", line)] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def names(cell: str) -> list[str]:
    """The names in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


@cache
def source() -> str:
    """All of the package's text."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted(SOURCE.rglob("*"))
        if path.suffix in {".py", ".sql", ".yaml"}
    )


# Functions, modules and files -------------------------------------------------------------------------

ROOTS = {path.name for path in ROOT.iterdir()}


def found(name: str) -> object:
    """What a dotted name stands for; `LookupError` when there is nothing of that name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if part in getattr(value, "__dataclass_fields__", {}):
                return value
            if not hasattr(value, part):
                raise LookupError(f"{'.'.join(parts[:length])} has no {'.'.join(parts[length:])}")
            value = getattr(value, part)
        return value
    raise LookupError(f"there is no {name}")


def dotted(page: str) -> set[str]:
    """The names of modules, classes and functions on a page."""
    return set(re.findall(r"`(storekeep(?:\.\w+)+)`", prose(page)))


def paths(page: str) -> set[str]:
    """The files and folders of the project on a page, other than those of a home."""
    words = re.findall(r"`([\w.-]+(?:/[\w.-]+)*)`", prose(page))
    return {
        word
        for word in words
        if word.partition("/")[0] in ROOTS or ("/" in word and word.partition("/")[0] != "HOME")
    }


@pytest.mark.parametrize("name", PAGES)
def test_every_dotted_name_is_in_the_code(name: str) -> None:
    for each in sorted(dotted(PAGES[name])):
        if f'"{each}"' in source() or f"'{each}'" in source():
            # A file or a setting that has the package's name in front.
            continue
        found(each)


def test_the_pages_on_the_code_name_a_good_part_of_it() -> None:
    assert len(dotted(ARCHITECTURE)) > 30


@pytest.mark.parametrize(
    "name", ["storekeep.pipeline.Pipeline.decides", "storekeep.clock", "storekeep.lake.x"]
)
def test_a_name_that_is_not_in_the_code_is_seen(name: str) -> None:
    with pytest.raises(LookupError):
        found(name)


@pytest.mark.parametrize("name", ["README", "architecture", "operations", "ledger", "walk"])
def test_every_file_is_there(name: str) -> None:
    for each in sorted(paths(PAGES[name])):
        assert (ROOT / each).exists(), each


def test_the_files_of_the_project_are_told_from_other_words() -> None:
    told = paths(ARCHITECTURE)
    assert {"pyproject.toml", "tests/docs/test_pages.py", "tests/crash/test_steps.py"} <= told


@cache
def constants() -> frozenset[str]:
    """Every text that stands as it is in the package's code."""
    return frozenset(
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_a_home_is_one_that_the_code_names(name: str) -> None:
    for each in sorted(set(re.findall(r"`HOME/([^`]+)`", PAGES[name]))):
        for part in each.split("/"):
            assert part in constants(), f"HOME/{each}"


# Commands ---------------------------------------------------------------------------------------------

LAUNCHERS = ("opentelemetry-instrument",)
TARGETS = set(re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(page: str) -> Iterator[list[str]]:
    """The words of each `storekeep` and `make` on a page, in blocks for a shell and in its sentences."""
    blocks = re.findall(r"^```(?:console|sh|bash)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    lines += re.findall(r"(?<!`)`((?:storekeep|make) [^`]+)`", prose(page))
    for line in lines:
        words = shlex.split(re.split(r"\\?\|", line)[0])
        while words and ("=" in words[0] or words[0] in LAUNCHERS):
            del words[0]
        if words and words[0].removeprefix(".venv/bin/") in ("storekeep", "make"):
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command, if anything: a target, a command or an option that there is not."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        return next((f"make has no {word}" for word in targets if word not in TARGETS), None)
    command: click.Command = program
    own = {"--help", "-h", "--version", *(f"--{name}" for name in EVERYWHERE)}
    takes = {f"--{name}" for name in EVERYWHERE if name in ("home", "tenant")}
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("-") and word not in own:
            return f"{command.name} has no option {word}"
        if word in takes:
            next(rest, None)
        elif not word.startswith("-") and isinstance(command, click.Group):
            if word not in command.commands and (other := getattr(command, "otherwise", None)):
                return wrong([*words[: words.index(word)], other, *words[words.index(word) :]])
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            command = command.commands[word]
            own |= {name for each in command.params for name in each.opts}
    return None


@pytest.mark.parametrize("name", PAGES)
def test_every_command_is_there(name: str) -> None:
    for words in commands(PAGES[name]):
        assert wrong(words) is None, f"{shlex.join(words)}: {wrong(words)}"


def test_the_readme_shows_how_to_begin() -> None:
    shown = [" ".join(words) for words in commands(README)]
    assert {"make demo", "make test", "storekeep demo --sales FILE --mapping M"} <= set(shown)
    assert "`uci_online_retail`" in README
    assert (SOURCE / "ingest" / "mappings" / "uci_online_retail.yaml").exists()


@pytest.mark.parametrize(
    "line",
    [
        "storekeep decide",
        "storekeep policy judge FILE",
        "storekeep demo --fast",
        "storekeep --homes X run",
        "make it",
    ],
)
def test_a_command_that_is_not_there_is_seen(line: str) -> None:
    assert wrong(line.split())


def test_the_readme_fits_on_a_screen() -> None:
    assert README.count("\n") <= 70


# Links ------------------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """What a link may name of a page: its headings as GitHub spells them, or as the site does."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    return plain | {each.replace("_", "-") for each in plain}


def links(page: str) -> list[str]:
    """The targets of a page's links, other than those to elsewhere."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [each for each in targets if not re.match(r"https?:", each)]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for each in links(PAGES[name]):
        path, _, anchor = each.partition("#")
        target = where(name) / path if path else None
        assert target is None or target.exists(), each
        if anchor:
            there = PAGES[name] if target is None else target.read_text(encoding="utf-8")
            assert anchor in anchors(there), each


def test_the_readme_shows_the_pipeline() -> None:
    assert "docs/pipeline.svg" in links(README)
    assert re.search(r"!\[[^\]]{40,}\]\(docs/pipeline\.svg\)", README)


# Architecture -----------------------------------------------------------------------------------------


def test_the_tables_of_the_record_are_those_that_are_made() -> None:
    text = section(ARCHITECTURE, "PostgreSQL")
    told = {name for row in rows(text) for name in names(row[0])}
    made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+) \(", source()))
    assert told == made
    office = set(re.findall(r"CREATE TABLE IF NOT EXISTS back_office\.(\w+)", source()))
    assert office <= set(names(text))


def test_what_is_only_added_to_is_what_no_right_is_given_to_change() -> None:
    text = section(ARCHITECTURE, "PostgreSQL")
    added = {names(row[0])[0] for row in rows(text) if row[2].startswith("only added")}
    granted = re.search(
        r"ARRAY\[([^\]]+)\] LOOP\s+EXECUTE format\('GRANT SELECT, INSERT ON", source()
    )
    assert granted is not None
    assert added - {"migration"} == set(re.findall(r"'(\w+)'", granted[1]))


def test_the_tables_of_the_lake_are_those_that_are_kept() -> None:
    told = [name for row in rows(section(ARCHITECTURE, "The lake")) for name in names(row[0])]
    known = [*vars(lake).values(), *vars(sku_location).values()]
    kept = {each.name for each in known if isinstance(each, Kept)}
    for each in known:
        if isinstance(each, Mapping):
            kept |= {table.name for table in each.values() if isinstance(table, Kept)}
    assert sorted(told) == sorted(kept)


def test_the_layers_are_those_that_are_checked() -> None:
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    told = [set(names(row[0])) for row in rows(section(ARCHITECTURE, "Layers"))]
    assert told == [set(re.findall(r"\w+", layer)) for layer in checked[0]["layers"]]
    assert re.findall(r"^- \*(.+?)\*", section(ARCHITECTURE, "Layers"), re.MULTILINE) == [
        contract["name"] for contract in checked
    ]


def test_the_life_of_a_decision_is_the_fold() -> None:
    first: dict[str, str] = {}
    following: dict[tuple[str, str], str] = {}
    for row in rows(section(ARCHITECTURE, "The life of a decision")):
        step = [name for cell in row[:3] for name in names(cell)]
        if len(step) == 2:
            first[step[0]] = step[1]
        else:
            following[step[0], step[1]] = step[2]
    assert first == {str(key): str(value) for key, value in decisions._FIRST.items()}
    assert following == {
        (str(status), result): str(value) for (status, result), value in decisions._NEXT.items()
    }


def test_the_steps_that_commit_are_steps_of_the_pipeline() -> None:
    told = [
        name
        for row in rows(section(ARCHITECTURE, "What commits together"))
        for name in names(row[0])
    ]
    assert all(callable(getattr(Pipeline, name)) for name in told)
    assert len(told) == len(set(told)) > 12


def test_every_law_is_told() -> None:
    text = section(ARCHITECTURE, "The laws, and where they are held")
    told = re.findall(r"^\*\*(\d+)\. ", text, re.MULTILINE)
    assert told == [str(number) for number in range(1, 12)]


# Operations -------------------------------------------------------------------------------------------


def test_every_stage_is_told_and_no_other() -> None:
    stages = set(re.findall(r'\bstage\("(\w+)"', source()))
    told = [
        name for row in rows(section(OPERATIONS, "Spans and metrics")) for name in names(row[0])
    ]
    assert len(stages) >= 12
    assert sorted(told) == sorted(stages)


FAILURES = {"Refused", "Misused", "Transient", "Permanent", "Unknown", "Missing", "_failure"}
# Told by other means than an exception, or only when a promise was broken.
ELSEWHERE = {"write", "say", "InvariantBroken"}
# What a person who runs Storekeep meets; mappings, rulebooks and sales are told with their place.
WATCHED = ("servers", "store", "ledger", "lake.py", "pipeline", "cli/asked.py")
GAP = "\0"


def text_of(node: ast.expr) -> str:
    """A message as it stands in the code, with a gap for what differs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return GAP


def called(node: ast.Call) -> str:
    """The name of what is called, without what it belongs to."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


@cache
def messages(among: tuple[str, ...] = ("",), *more: str) -> tuple[str, ...]:
    """What failures say in the files of the package whose path begins so."""
    told = [
        text_of(argument)
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).as_posix().startswith(among)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and called(node) in FAILURES | set(more)
        for argument in node.args
    ]
    # One that only passes on another's words says nothing of its own.
    return tuple(each for each in told if sum(map(str.isalpha, each)) > 8)


def documented() -> list[str]:
    """The messages on the page."""
    start = OPERATIONS.index("\n## When it says no\n")
    return [name for row in rows(OPERATIONS[start:]) for name in names(row[0])]


def says(message: str, told: str) -> bool:
    """Whether a message of the code is the one that is told, where `...` stands for what differs."""
    parts = [re.escape(part.strip()) for part in told.split("...") if part.strip()]
    return re.search(".*".join(parts), message, re.DOTALL) is not None


def test_every_message_that_is_told_is_one_of_the_code() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(PYTHON)", "...")
    known = (*messages(("",), *ELSEWHERE), *makefile.splitlines())
    for told in documented():
        assert any(says(each, told) for each in known), told


def test_every_message_of_a_server_a_home_or_a_ledger_is_told() -> None:
    told = documented()
    missing = [
        each.replace(GAP, "...")
        for each in messages(WATCHED)
        if not any(says(each, one) for one in told)
    ]
    assert not missing, "\n".join(missing)
    assert len(messages(WATCHED)) > 60


def test_the_exit_codes_are_those_of_the_commands_page() -> None:
    def codes(page: str) -> set[str]:
        table = re.findall(r"^\| \d.*$", section(page, "Exit codes"), re.MULTILINE)
        return set(re.findall(r"\b\d+\b", re.sub(r"`[^`]*`", "", " ".join(table))))

    assert codes(OPERATIONS) == codes(PAGES["commands"])
    assert len(codes(OPERATIONS)) == 8
