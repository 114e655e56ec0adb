"""The page on the ledger says what entries hold, and its script tells a real export from a changed one."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep import features, ledger, policy
from storekeep.actions import PLACE_PURCHASE_ORDER, HttpOrders
from storekeep.config import OrderSystem as Setting
from storekeep.config import Settings
from storekeep.decisions import Decided, Selection
from storekeep.policy import SHIPPED
from storekeep.store import DeadLetter
from tests.contracts.order_system import OrderSystem
from tests.shop import BUYER, FIRST_DAY, Shop, moment, new_tenant, opened_shop

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
NO_STEP = (
    "batch",
    "promotion",
    "mode",
    "halt",
    "resume",
    "unheard",
    "breaker",
    "message",
    "person",
)
KINDS = ("batch", "decision", "approval", "outcome", "reversal", "dead_letter", *NO_STEP[1:])
SHARED = {"kind", "decision_id", "step"}


def script() -> str:
    """The program of the page."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def section(title: str) -> str:
    """The text under a heading, up to the next of any level."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section is called {title}"
    return found[1]


def fields(text: str) -> set[str]:
    """The names in the first column of a table."""
    cells = re.findall(r"^\| (`.+?) \| ", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@dataclass(frozen=True)
class Exported:
    """A real export, who signed it, and its lines."""

    path: Path
    public: str
    lines: list[bytes]

    @property
    def values(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def monday(shop: Shop) -> list[str]:
    """The first Monday up to the decisions, and those of them that wait for a person."""
    shop.prepare()
    for step in (shop.sell, shop.remember, shop.decide):
        step(FIRST_DAY)
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return [row["decision_id"] for row in tx.approvals()]


def approved(shop: Shop) -> None:
    """What waits is approved and ordered, then taken back, some of it before it is done; and one day more."""
    shop.pipeline.approve(monday(shop), BUYER)
    chosen = Selection(ids=tuple(shop.ids("bread")))
    shop.pipeline.revert(shop.pipeline.plan_revert(chosen), BUYER, "ordered by telephone")
    shop.act(FIRST_DAY)
    shop.revert("north", FIRST_DAY)
    shop.play(FIRST_DAY + timedelta(days=1))


def rejected(shop: Shop) -> None:
    """A person says no, and more: which rulebook holds, what the agent may do, that it stops a while."""
    pipeline = shop.pipeline
    pipeline.reject(monday(shop), BUYER, "too dear")
    pipeline.note_unheard()
    pipeline.promote(SHIPPED / "replenish.yaml", BUYER)
    pipeline.set_mode("replenish", "shadow", by="ann", approver=BUYER, reason="too much")
    pipeline.halt("replenish", by="ann", reason="at once")
    pipeline.resume("replenish", by="ann", reason="mended")
    pipeline.person("c1", by="ann", reason="asked what is kept")
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx.add_dead_letters([DeadLetter("nats", 3, 17, "broken", {"id": "x"}, b"x")])
    pipeline.drop_messages([each["message_id"] for each in pipeline.put_aside()], BUYER, "a test")


def unanswered(shop: Shop) -> None:
    """Nobody says anything."""
    waiting = monday(shop)
    shop.clock.now += timedelta(days=30)
    assert shop.pipeline.lapse() == len(waiting) == 1


def changed(shop: Shop) -> None:
    """A person asks for something else, two others agree; it is taken back, and proposed again."""
    pipeline, (wine, *_) = shop.pipeline, monday(shop)
    asks = "usual_order_units IS NULL AND order_value_minor > 50000\n    role: buyer\n"
    more = "    persons: 3\n    change: {order_units: {at_most: order_units}}\n"
    book = (SHIPPED / "replenish.yaml").read_text(encoding="utf-8").replace(asks, asks + more)
    put_in_force(shop, book)
    assert pipeline.change(wine, "ann", {"order_units": 24}, "the shelf is small") == "changed"
    assert pipeline.approve([wine], "bob") == {wine: "agreed"}
    assert pipeline.approve([wine], BUYER) == {wine: "approved"}
    shop.act(FIRST_DAY)
    shop.revert("north", FIRST_DAY)
    shop.undo("north", FIRST_DAY)


def did_badly(shop: Shop) -> None:
    """A rulebook that is taken back by its own conditions."""
    monday(shop)
    book = (SHIPPED / "replenish.yaml").read_text(encoding="utf-8")
    book += "\nrollback: [{id: soon, when: days >= 0, decisions: 1, reason: It was a test.}]\n"
    put_in_force(shop, book)
    shop.play(FIRST_DAY + timedelta(days=1))


def put_in_force(shop: Shop, book: str) -> None:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        version = policy.load(book, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA).version
        tx.register("rulebook", "replenish", version, book, shop.clock.now, BUYER)
        tx.promote("rulebook", "replenish", version, shop.clock.now, BUYER)


def given_up(shop: Shop) -> None:
    """The order system has a fault: what was tried too often a person drops or retries, the rest expires."""
    monday(shop)
    with OrderSystem() as system, closing(HttpOrders(Setting(url=system.url))) as adapter:
        shop.pipeline.adapters = {"PlacePurchaseOrder": adapter}
        shop.pipeline.draw = lambda: 0.0
        system.fault("500", "before", times=10**6)
        while len(shop.pipeline.dead_letters()) < 2:
            shop.pipeline.act()
            if any(each["state"] == "open" for each in shop.pipeline.breakers()):
                shop.pipeline.reset_breaker("adapter/http", BUYER, "they say it works")
        one, two = (each["decision_id"] for each in shop.pipeline.dead_letters())
        shop.pipeline.drop([one], BUYER, "ordered by telephone")
        shop.pipeline.retry([two], BUYER, "they say it works")
        shop.clock.now += timedelta(days=3)
        shop.pipeline.act()


@pytest.fixture(scope="module")
def exports(
    home_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Exported]:
    """Shops in which every kind of entry is written."""
    folder, made = tmp_path_factory.mktemp("page"), {}
    for play in (approved, rejected, unanswered, changed, did_badly, given_up):
        path = folder / play.__name__
        with opened_shop(new_tenant(home_settings)) as shop:
            play(shop)
            pipeline = shop.pipeline
            with pipeline.store.transaction(pipeline.tenant) as tx:
                ledger.export(tx, path, pipeline.signing.public)
            lines = path.read_bytes().splitlines(keepends=True)
            made[play.__name__] = Exported(path, pipeline.signing.public, lines)
    return made


@pytest.fixture(scope="module")
def exported(exports: dict[str, Exported]) -> Exported:
    """The richest of them."""
    return exports["approved"]


@pytest.fixture(scope="module")
def entries(exports: dict[str, Exported]) -> list[dict[str, Any]]:
    """The entries of all of them."""
    return [value for each in exports.values() for value in each.values if "kind" in value]


@pytest.fixture(scope="module")
def verify() -> Callable[..., str]:
    """The function of the script."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(script(), "docs/ledger.md", "exec"), names)  # noqa: S102  # our own page's program
    found: Callable[..., str] = names["verify"]
    return found


# What the page says of entries ------------------------------------------------------------------------


def test_every_kind_of_entry_has_its_section_and_is_in_the_export(
    entries: list[dict[str, Any]],
) -> None:
    assert {entry["kind"] for entry in entries} == set(KINDS)
    headings = re.findall(r"^### (`.+`)$", PAGE, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", " ".join(headings))) == KINDS
    assert fields(section("What an entry holds")) == SHARED


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_has_the_fields_that_the_page_names(
    kind: str, entries: list[dict[str, Any]]
) -> None:
    written = {name for entry in entries if entry["kind"] == kind for name in entry}
    if kind == "outcome":
        # No order of the shop's is refused.
        written |= ledger.outcome("refused", moment(FIRST_DAY)).keys()
    title = "`halt` and `resume`" if kind in ("halt", "resume") else f"`{kind}`"
    assert fields(section(title)) == written - SHARED


def test_the_steps_of_each_kind_are_named(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        if entry["kind"] not in NO_STEP:
            assert f"`{entry['step']}`" in section(f"`{entry['kind']}`"), entry["step"]
    assert all(f"`{verdict}`" in section("`decision`") for verdict in Decided)


def test_the_fields_of_a_held_decision_are_those_the_page_leaves(
    entries: list[dict[str, Any]],
) -> None:
    by_step = {entry["step"]: set(entry) for entry in entries}
    row = re.search(
        r"^\| `reason`, `safe_default` \| Only (.+) \|$", section("`decision`"), re.MULTILINE
    )
    assert row is not None
    assert by_step["hold"] - by_step["allow"] == {"reason", "safe_default"}
    # Only what is proposed again reverses anything, and says what its order came to.
    assert by_step["allow"] - by_step["hold"] - {"reverses", "group_value_minor"} == set(
        re.findall(r"`(\w+)`", row[1])
    )


def test_the_lines_of_an_export_have_the_fields_that_the_page_names(exported: Exported) -> None:
    told = re.findall(r"^\d\. (.*?)(?=^\d\. |\Z)", section("The export"), re.MULTILINE | re.DOTALL)
    first, seal, last = exported.values[0], exported.values[1], exported.values[-1]
    for line, text in ((first, told[0]), (seal, told[1]), (last, told[3])):
        assert set(line) <= set(re.findall(r"`(\w+)`", text)), text
    assert f"`{first['format']}`" in told[0]
    assert fields(section("How it is sealed")) == {"tenant"} | seal.keys() - {
        *("chain", "leaves", "signature")
    }
    assert len(seal["signature"]) == 128


# The script -------------------------------------------------------------------------------------------


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The page's script as a person runs it, in a folder with nothing else."""
    (tmp_path / "verify_export.py").write_text(script(), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-I", "verify_export.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_needs_nothing_of_storekeep() -> None:
    tree = ast.parse(script())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named += [
        each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names
    ]
    roots = {name.partition(".")[0] for name in named}
    assert roots - sys.stdlib_module_names == {"cryptography"}


def test_the_script_accepts_a_real_export(exported: Exported, tmp_path: Path) -> None:
    head = exported.values[-1]["head"]
    for words in ([], [exported.public]):
        done = run(tmp_path, str(exported.path), *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"it holds, up to {head}\n", "")


def test_the_script_says_where_an_export_was_changed(exported: Exported, tmp_path: Path) -> None:
    place = next(at for at, line in enumerate(exported.lines) if b'"order_units":' in line)
    lines = list(exported.lines)
    lines[place] = re.sub(rb'"order_units":\d', b'"order_units":0', lines[place], count=1)
    (tmp_path / "changed").write_bytes(b"".join(lines))
    done = run(tmp_path, "changed", exported.public)
    assert done.returncode == 1
    assert re.fullmatch(r"it does NOT hold: batch \d+, entry \d+: it was changed\n", done.stderr)


@pytest.mark.parametrize("key", ["00" * 32, "", "no key"])
def test_the_script_refuses_another_key(key: str, exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, str(exported.path), key)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "it does NOT hold: line 1: another public key\n"


def test_the_script_refuses_a_ledger_that_names_another_key(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    other = ledger.signer(tmp_path / "other").public
    named = b"".join(exported.lines).replace(exported.public.encode(), other.encode())
    (tmp_path / "named").write_bytes(named)
    with pytest.raises(Exception, match=r"^$"):  # the signature's own error has no words
        verify(tmp_path / "named", other)
    with pytest.raises(ValueError, match="another public key"):
        verify(tmp_path / "named", exported.public)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b"[1]\n" * 3, b"\xff\xfe\n\n\n", b"1\n2\n3\n"]
)
def test_the_script_refuses_what_is_no_export(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(content)
    done = run(tmp_path, "none")
    assert done.returncode == 1
    assert done.stderr.startswith("it does NOT hold: ")


def refuses(verify: Callable[..., str], path: Path, content: bytes, *keys: str) -> bool:
    """Whether the script refuses a file of that content, for whatever reason."""
    path.write_bytes(content)
    with suppress(Exception):
        verify(path, *keys)
        return False
    return True


def changes(lines: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """What somebody may do to whole lines."""
    for at in range(len(lines)):
        yield f"line {at + 1} dropped", [*lines[:at], *lines[at + 1 :]]
        yield f"line {at + 1} twice", [*lines[: at + 1], *lines[at:]]
        yield f"cut before line {at + 1}", lines[:at]
        yield f"line {at + 1} first", [lines[at], *lines[:at], *lines[at + 1 :]]
        yield (
            f"line {at + 1} and the next",
            [*lines[:at], *lines[at : at + 2][::-1], *lines[at + 2 :]],
        )
    yield "a line after the last", [*lines, b"{}\n"]
    yield "an empty line after the last", [*lines, b"\n"]


def test_the_script_refuses_lines_dropped_repeated_cut_and_reordered(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    tried = 0
    for what, lines in changes(exported.lines):
        if lines != exported.lines:
            assert refuses(verify, tmp_path / "changed", b"".join(lines), exported.public), what
            tried += 1
    assert tried > 4 * len(exported.lines)


def test_the_script_refuses_any_seal_with_a_letter_in_another_case(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    """Hexadecimal digits have two spellings: what is not in what is signed must have one."""
    for at, value in enumerate(exported.values):
        if "leaves" not in value and at:
            continue
        for name in ("public_key", "signature", "root", "chain", "previous"):
            if name in value and value[name] != value[name].upper():
                lines = list(exported.lines)
                lines[at] = lines[at].replace(value[name].encode(), value[name].upper().encode())
                assert refuses(verify, tmp_path / "changed", b"".join(lines)), (at, name)


def rewritten(exported: Exported, place: int, text: bytes) -> bytes:
    """The export with another line in one place."""
    return b"".join([*exported.lines[:place], text, *exported.lines[place + 1 :]])


def plain(value: object) -> bytes:
    """A line as an export has it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_the_script_refuses_what_agrees_but_was_not_exported_so(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    """What somebody without the key may do, who knows how it is sealed."""
    seal, line = exported.values[1], exported.lines[1]
    entry = exported.lines[2].replace(b'"step":', b'"stop":', 1)
    leaf = hashlib.sha256(b"\x00" + entry.removesuffix(b"\n")).hexdigest()
    with_entry = plain({**seal, "leaves": [leaf, *seal["leaves"][1:]]})
    tried = {
        "an entry changed with its leaf": b"".join(
            [exported.lines[0], with_entry, entry, *exported.lines[3:]]
        ),
        "a leaf too many": rewritten(
            exported, 1, plain({**seal, "leaves": [*seal["leaves"], leaf]})
        ),
        "a space in a seal": rewritten(exported, 1, line.replace(b":", b": ", 1)),
        "a key twice": rewritten(exported, 1, line.replace(b"{", b'{"batch":1,', 1)),
        "a key too many": rewritten(exported, 1, plain({**seal, "note": "all is well"})),
        "a line break less": b"".join(exported.lines).removesuffix(b"\n"),
    }
    for what, content in tried.items():
        assert content != b"".join(exported.lines), what
        assert refuses(verify, tmp_path / "changed", content, exported.public), what


def signed(values: list[dict[str, Any]], key: ledger.Signer, tenant: str) -> bytes:
    """Batches, each a seal and its entries, sealed and signed anew as they say of themselves."""
    lines = [plain({"format": "storekeep-ledger-1", "public_key": key.public, "tenant": tenant})]
    many, chain = 0, ""
    for value in values:
        seal = {
            name: value[name] for name in value if name not in ("chain", "signature", "entries")
        }
        bound = {name: seal[name] for name in seal if name != "leaves"} | {"tenant": tenant}
        chain = hashlib.sha256(plain(bound).removesuffix(b"\n")).hexdigest()
        lines += [plain({**seal, "chain": chain, "signature": key.sign(chain)}), *value["entries"]]
        many += len(value["entries"])
    return b"".join([*lines, plain({"batches": len(values), "entries": many, "head": chain})])


def test_the_script_refuses_what_the_holder_of_the_key_would_sign(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    """A chain that does not hang together is refused, whoever signed it."""
    key, tenant = ledger.signer(tmp_path / "other"), exported.values[0]["tenant"]
    batches: list[dict[str, Any]] = []
    for line, value in zip(exported.lines[1:-1], exported.values[1:-1], strict=True):
        if "leaves" in value:
            batches.append({**value, "entries": []})
        else:
            batches[-1]["entries"].append(line)
    path = tmp_path / "signed"
    path.write_bytes(signed(batches, key, tenant))
    assert verify(path, key.public) == exported.values[-1]["head"]
    first, second, *others = batches
    tried = {
        "another number": [first, {**second, "batch": 3}],
        "another batch before it": [first, {**second, "previous": first["root"]}],
        "a batch left out": [first, *others],
        "another root": [first, {**second, "root": first["root"]}],
        "no entries": [{**first, "entries": [], "leaves": [], "entry_count": 0}],
    }
    for what, values in tried.items():
        assert refuses(verify, path, signed(values, key, tenant), key.public), what


@given(data=st.data())
def test_the_script_refuses_any_changed_byte(
    data: st.DataObject,
    exported: Exported,
    verify: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    line = data.draw(st.integers(0, len(exported.lines) - 1))
    column = data.draw(st.integers(0, len(exported.lines[line]) - 1))
    content = bytearray(b"".join(exported.lines))
    at = sum(map(len, exported.lines[:line])) + column
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    path = tmp_path_factory.getbasetemp() / "changed-by-the-page"
    assert refuses(verify, path, bytes(content), exported.public)


def test_a_cut_with_a_last_line_to_match_holds_and_has_another_head(
    exported: Exported, verify: Callable[..., str], tmp_path: Path
) -> None:
    """The page says that no file can prove its end: that has to be true, too."""
    seals = [at for at, value in enumerate(exported.values) if "leaves" in value]
    kept = exported.lines[: seals[-1]]
    held = [exported.values[at] for at in seals[:-1]]
    last = {
        "batches": len(held),
        "entries": sum(seal["entry_count"] for seal in held),
        "head": held[-1]["chain"],
    }
    (tmp_path / "cut").write_bytes(b"".join([*kept, plain(last)]))
    assert verify(tmp_path / "cut", exported.public) == held[-1]["chain"]
    assert held[-1]["chain"] != exported.values[-1]["head"]
