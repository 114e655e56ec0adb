"""The ledger cannot be changed unseen, no byte of an export and no row of the store; the place is named."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row

from storekeep import ledger, servers
from storekeep.config import Settings
from storekeep.errors import InvariantBroken, Permanent, Refused, Transient
from storekeep.ledger.merkle import levels
from storekeep.pipeline import Pipeline
from storekeep.store import Transaction, pages
from tests.shop import FIRST_DAY, Shop, of_tenant, opened_shop

# Merkle trees ---------------------------------------------------------------------------------------

# The leaves and roots that the Certificate Transparency project tests its trees with (RFC 6962).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
LEAVES += ["606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
WORDS = [bytes.fromhex(word).decode() for word in LEAVES]


@pytest.mark.parametrize("many", range(1, 9))
def test_roots_are_those_of_certificate_transparency(many: int) -> None:
    assert ledger.root([ledger.leaf(word) for word in WORDS[:many]]).hex() == ROOTS[many - 1]


def test_a_tree_without_leaves_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="at least one leaf"):
        ledger.root([])


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1: split at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = naive_root(leaves[:split]), naive_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def way_up(leaves: list[bytes], place: int) -> list[tuple[str, str]]:
    """The siblings from a leaf to the root, as a proof gives them, split at the largest power of two."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = leaves[:split], leaves[split:]
    if place < split:
        return [*way_up(left, place), ("right", naive_root(right).hex())]
    return [*way_up(right, place - split), ("left", naive_root(left).hex())]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=70), st.data())
def test_any_tree_is_as_defined_and_every_leaf_climbs_to_its_root(
    words: list[str], data: st.DataObject
) -> None:
    leaves = [ledger.leaf(word) for word in words]
    top = ledger.root(leaves)
    assert top == naive_root(leaves)
    for place, word in enumerate(words):
        path = way_up(leaves, place)
        assert ledger.climb(word, path) == top.hex()
        assert len(path) <= (len(words) - 1).bit_length()
    place = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.text(max_size=4).filter(lambda word: word != words[place]))
    assert ledger.climb(other, way_up(leaves, place)) != top.hex()


def test_a_node_is_not_mistaken_for_a_leaf() -> None:
    first, second = ledger.leaf("a"), ledger.leaf("b")
    pair = hashlib.sha256(first + second).digest()
    assert ledger.root([first, second]) != pair
    assert ledger.root([first, second]) != ledger.leaf("ab")


# An export ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """A real export, and which places each of its lines may be named by."""

    whole: bytes
    public: str
    places: list[set[str]]

    @property
    def lines(self) -> list[bytes]:
        return self.whole.splitlines(keepends=True)

    def verified(self, folder: Path, content: bytes, public: str | None = None) -> ledger.Verified:
        path = folder / "changed.jsonl"
        path.write_bytes(content)
        return ledger.verify_export(path, public or self.public)


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A Monday and a Tuesday of the shop: two runs, an approval, outcomes."""
    with opened_shop(of_tenant(home_settings, "ledger_law")) as opened:
        opened.prepare()
        opened.play(FIRST_DAY, FIRST_DAY.replace(day=FIRST_DAY.day + 1))
        yield opened


@pytest.fixture(scope="module")
def exported(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("export") / "ledger.jsonl"
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        many = ledger.export(tx, path, pipeline.signing.public)
    whole = path.read_bytes()
    places, batch, left = [{"line 1"}], 0, 0
    for number, line in enumerate(whole.splitlines()[1:], 2):
        value = json.loads(line)
        if left:
            entry = value_of(places, batch)
            places.append({f"batch {batch}, entry {entry}"})
            left -= 1
        elif "leaves" in value:
            batch, left = value["batch"], value["entry_count"]
            places.append({f"batch {batch}", f"line {number}", f"after batch {batch - 1}"})
        else:
            places.append({"the last line", f"line {number}", f"after batch {batch}"})
    assert sum("entry" in where for place in places for where in place) == many > 10
    assert batch >= 4
    return Exported(whole, pipeline.signing.public, places)


def value_of(places: list[set[str]], batch: int) -> int:
    """How many entries of a batch have a line already."""
    return sum(f"batch {batch}, entry" in where for place in places for where in place)


def wheres(outcome: ledger.Verified) -> set[str]:
    return {problem.where for problem in outcome.problems}


def batch_of(places: set[str]) -> set[str]:
    return {where.partition(",")[0] for where in places}


def test_an_export_that_nobody_touched_holds(exported: Exported, tmp_path: Path) -> None:
    outcome = exported.verified(tmp_path, exported.whole)
    assert outcome.ok, outcome.problems
    assert outcome.entries + outcome.batches + 2 == len(exported.lines)
    assert outcome.head == json.loads(exported.lines[-1])["head"]


def test_an_export_can_be_verified_by_somebody_elses_program(exported: Exported) -> None:
    """What the format promises, computed here from the standards alone."""
    head, *rest = (json.loads(line) for line in exported.lines[:-1])
    raw = exported.lines[1:-1]
    previous, place = "", 0
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(head["public_key"]))
    while place < len(rest):
        seal, many = rest[place], rest[place]["entry_count"]
        entries = [line.rstrip(b"\n") for line in raw[place + 1 : place + 1 + many]]
        leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
        assert seal["leaves"] == [leaf.hex() for leaf in leaves]
        assert seal["root"] == naive_root(leaves).hex()
        assert seal["previous"] == previous
        names = ("batch", "batch_id", "entry_count", "root", "previous", "recorded_at")
        bound = {"tenant": head["tenant"], **{name: seal[name] for name in names}}
        previous = hashlib.sha256(rfc8785.dumps(bound)).hexdigest()
        assert seal["chain"] == previous
        key.verify(bytes.fromhex(seal["signature"]), seal["chain"].encode())
        for entry in entries:
            assert rfc8785.dumps(json.loads(entry)) == entry
        place += 1 + many
    assert json.loads(exported.lines[-1])["head"] == previous


@given(data=st.data())
def test_any_changed_byte_is_found_and_its_place_named(
    data: st.DataObject, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    line = data.draw(st.integers(0, len(exported.lines) - 1))
    column = data.draw(st.integers(0, len(exported.lines[line]) - 1))
    at = sum(map(len, exported.lines[:line])) + column
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != exported.whole[at]))
    content = bytearray(exported.whole)
    content[at] = byte
    folder = tmp_path_factory.getbasetemp()
    if line == 0:
        with suppress(Refused):
            assert not exported.verified(folder, bytes(content)).ok
        return
    outcome = exported.verified(folder, bytes(content))
    allowed = exported.places[line] | batch_of(exported.places[line])
    assert wheres(outcome) & allowed, (wheres(outcome), allowed)
    if ord("\n") not in (exported.whole[at], byte) and "entry" in str(exported.places[line]):
        assert wheres(outcome) == exported.places[line]


@given(data=st.data())
def test_any_cut_is_found(
    data: st.DataObject, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ends = [sum(map(len, exported.lines[:many])) for many in range(1, len(exported.lines))]
    inside = st.integers(len(exported.lines[0]), len(exported.whole) - 1)
    at = data.draw(st.sampled_from(ends) | inside)
    outcome = exported.verified(tmp_path_factory.getbasetemp(), exported.whole[:at])
    line = exported.whole[:at].count(b"\n")
    known = [batch_of(places) for places in exported.places[max(0, line - 1) : line + 1]]
    assert wheres(outcome) & set().union({"the last line"}, *known), wheres(outcome)


@given(data=st.data())
def test_lines_removed_moved_repeated_or_put_in_are_found(
    data: st.DataObject, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = list(exported.lines)
    inside = st.integers(1, len(lines) - 1)
    first, second = data.draw(st.lists(inside, min_size=2, max_size=2, unique=True).map(sorted))
    what = data.draw(st.sampled_from(["remove", "swap", "repeat", "insert", "move"]))
    if what == "remove":
        del lines[first]
    elif what == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    elif what == "repeat":
        lines.insert(first, lines[first])
    elif what == "insert":
        lines.insert(first, data.draw(st.sampled_from([b"\n", b"{}\n", lines[0], lines[second]])))
    else:
        lines.insert(second, lines.pop(first))
    if lines == exported.lines:
        return
    outcome = exported.verified(tmp_path_factory.getbasetemp(), b"".join(lines))
    # What was changed shows in the batch it is in, or where the next seal was awaited.
    pairs = zip_longest(lines, exported.lines)
    changed = next(place for place, (now, was) in enumerate(pairs) if now != was)
    places = exported.places[changed - 1 : changed + 1]
    # A seal that was put there speaks of the batch that it names.
    places += exported.places[second - 1 : second]
    allowed = set().union(*places, *map(batch_of, places))
    assert wheres(outcome) & allowed, (what, wheres(outcome), allowed)


@given(data=st.data())
def test_no_garbage_breaks_the_verifier(
    data: st.DataObject, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever somebody writes into a seal, they are told that it does not hold, and no more."""
    lines = list(exported.lines)
    seals = [place for place, line in enumerate(lines) if b'"leaves"' in line]
    place = data.draw(st.sampled_from([*seals, len(lines) - 1]))
    value: dict[str, Any] = json.loads(lines[place])
    name = data.draw(st.sampled_from(sorted(value)))
    odd = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
    numbers = st.sampled_from([-1, 0, 2**53, 2**63, 10**30, 1.5])
    value[name] = data.draw((odd | numbers).filter(lambda drawn: drawn != value[name]))
    written = data.draw(
        st.sampled_from([json.dumps(value), json.dumps(value)[:-1] + ',"x":"\\ud800"}'])
    )
    lines[place] = written.encode() + b"\n"
    assert not exported.verified(tmp_path_factory.getbasetemp(), b"".join(lines)).ok


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_export_is_refused(content: bytes, exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a ledger export"):
        exported.verified(tmp_path, content)


def test_a_forged_ledger_is_not_by_our_key(exported: Exported, tmp_path: Path) -> None:
    """Who holds no key may make everything agree but the signatures."""
    other = ledger.signer(tmp_path / "other")
    forged = [line.replace(b'"sku":"bread"', b'"sku":"bled!"') for line in exported.lines]
    assert forged != exported.lines
    resigned = resealed(forged, other)
    assert exported.verified(tmp_path, resigned, other.public).ok
    outcome = exported.verified(tmp_path, resigned)
    assert "line 1" in wheres(outcome)
    named = resigned.replace(other.public.encode(), exported.public.encode())
    outcome = exported.verified(tmp_path, named)
    assert {problem.what for problem in outcome.problems} == {"its signature is not by this key"}


def test_a_ledger_without_its_last_batch_has_another_head(
    exported: Exported, tmp_path: Path
) -> None:
    """What no file can prove of itself is that nothing came after: the head does, to who knows it."""
    key = ledger.signer(tmp_path / "other")
    lines = list(exported.lines)
    last = max(place for place, line in enumerate(lines) if b'"leaves"' in line)
    shorter = resealed([*lines[:last], lines[-1]], key)
    outcome = exported.verified(tmp_path, shorter, key.public)
    assert outcome.ok
    assert outcome.head != exported.verified(tmp_path, resealed(lines, key), key.public).head


def resealed(lines: list[bytes], key: ledger.Signer) -> bytes:
    """The lines as somebody with another key would make them agree with each other again."""
    head = json.loads(lines[0])
    out = [rfc8785.dumps({**head, "public_key": key.public})]
    previous, place, batches = "", 1, 0
    while b'"leaves"' in lines[place]:
        seal = json.loads(lines[place])
        entries = [
            line.rstrip(b"\n") for line in lines[place + 1 : place + 1 + seal["entry_count"]]
        ]
        leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
        seal |= {"leaves": [leaf.hex() for leaf in leaves], "root": naive_root(leaves).hex()}
        seal |= {"previous": previous}
        names = ("batch", "batch_id", "entry_count", "root", "previous", "recorded_at")
        bound = {"tenant": head["tenant"], **{name: seal[name] for name in names}}
        seal["chain"] = previous = hashlib.sha256(rfc8785.dumps(bound)).hexdigest()
        seal["signature"] = key.sign(previous)
        out += [rfc8785.dumps(seal), *entries]
        place, batches = place + 1 + len(entries), batches + 1
    closing: dict[str, Any] = {"batches": batches, "entries": len(out) - 1 - batches}
    closing["head"] = previous
    return b"\n".join([*out, rfc8785.dumps(closing)]) + b"\n"


def test_an_export_appears_whole_or_not_at_all(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("an earlier one")
    with pytest.raises(Transient):
        export_as_the_connection_breaks(shop.pipeline, path)
    assert path.read_text() == "an earlier one"


def export_as_the_connection_breaks(pipeline: Pipeline, path: Path) -> None:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx._cursor.connection.close()
        ledger.export(tx, path, pipeline.signing.public)


# The store ------------------------------------------------------------------------------------------


def test_the_ledger_of_the_store_holds(shop: Shop) -> None:
    outcome = shop.pipeline.verify()
    assert outcome.ok, outcome.problems
    assert outcome.batches >= 4


def test_a_byte_changed_by_the_owner_of_the_database_is_found(
    shop: Shop, home_settings: Settings
) -> None:
    pipeline = shop.pipeline
    with servers.lease(home_settings) as database, database.admin() as admin:
        admin.execute("SELECT set_config('storekeep.tenant', %s, false)", (pipeline.tenant,))
        ours = (pipeline.tenant,)
        page = (
            "storekeep.ledger_page SET content = %b WHERE tenant = %s AND batch = 1 AND first = 0"
        )
        held = (
            "SELECT content, entry_count FROM storekeep.ledger_page WHERE tenant = %s AND batch = 1"
        )
        row = admin.execute(held, ours).fetchone()
        assert row is not None
        texts = pages.unpacked(row[0], row[1]).to_pylist()
        texts[2] = texts[2].replace('"kind"', '"kinD"')
        (page_,) = pages.packed(pa.array(texts))
        try:
            assert admin.execute("UPDATE " + page, (page_.content, *ours)).rowcount == 1
            outcome = pipeline.verify()
        finally:
            admin.execute("UPDATE " + page, (row[0], *ours))
    assert not outcome.ok
    assert wheres(outcome) == {"batch 1, entry 2"}
    assert pipeline.verify().ok


@pytest.fixture(scope="module")
def owner(shop: Shop, home_settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection by which everything may be changed, for changes that are rolled back."""
    with (
        servers.lease(home_settings) as database,
        psycopg.connect(database.conninfo, row_factory=dict_row) as connection,
    ):
        connection.execute("SELECT set_config('search_path', 'storekeep', false)")
        connection.execute("SELECT set_config('timezone', 'UTC', false)")
        yield connection


def after(
    shop: Shop,
    owner: psycopg.Connection[dict[str, Any]],
    change: LiteralString | Callable[[psycopg.Cursor[dict[str, Any]]], None],
    parameters: Sequence[object] = (),
) -> ledger.Verified:
    """What a verification finds after a change, which is then taken back."""
    with owner.cursor() as cursor:
        cursor.execute("SELECT set_config('storekeep.tenant', %s, true)", (shop.pipeline.tenant,))
        try:
            if callable(change):
                change(cursor)
            else:
                cursor.execute(change, parameters)
                assert cursor.rowcount >= 1
            return ledger.verify(
                Transaction(cursor, shop.pipeline.tenant), shop.pipeline.signing.public
            )
        finally:
            owner.rollback()


Texts = list[str]


def rewritten(
    shop: Shop, batch: int, change: Callable[[Texts], Texts]
) -> Callable[[psycopg.Cursor[dict[str, Any]]], None]:
    """Write the pages of a batch anew, with other entries on them."""

    def write(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
        tx = Transaction(cursor, shop.pipeline.tenant)
        texts = change(tx.ledger_entries(batch, batch)["entry"].to_pylist())
        cursor.execute("DELETE FROM ledger_page WHERE batch = %s", (batch,))
        tx.append_pages(batch, 0, pages.packed(pa.array(texts)))

    return write


@given(data=st.data())
def test_any_changed_character_of_any_entry_is_found(
    data: st.DataObject, shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        entries = tx.ledger_entries(1, 99).to_pylist()
    entry = data.draw(st.sampled_from(entries))
    text, place = entry["entry"], entry["place"]
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8", exclude_characters="\n" + text[at]))
    other = text[:at] + letter + text[at + 1 :]
    change = rewritten(
        shop, entry["batch"], lambda texts: [*texts[:place], other, *texts[place + 1 :]]
    )
    assert wheres(after(shop, owner, change)) == {f"batch {entry['batch']}, entry {place}"}


@given(data=st.data())
def test_any_changed_byte_of_a_page_is_found(
    data: st.DataObject, shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    """Unless it says the same: the compressed form has bits that mean nothing."""
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run("SELECT batch, first, entry_count, content FROM ledger_page")
    page = data.draw(st.sampled_from(rows))
    content = bytearray(page["content"])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    outcome = after(
        shop,
        owner,
        "UPDATE ledger_page SET content = %b WHERE batch = %s AND first = %s",
        (bytes(content), page["batch"], page["first"]),
    )
    was, now = (
        pages.unpacked(each, page["entry_count"]) for each in (page["content"], bytes(content))
    )
    assert outcome.ok == was.equals(now)
    assert {where.partition(",")[0] for where in wheres(outcome)} <= {f"batch {page['batch']}"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda texts: [*texts, texts[1]], id="one more"),
        pytest.param(lambda texts: [*texts[:1], *texts[2:]], id="one less"),
        pytest.param(lambda texts: [texts[0], texts[2], texts[1], *texts[3:]], id="two swapped"),
        pytest.param(lambda texts: [texts[0], texts[1], texts[1], *texts[3:]], id="one twice"),
        pytest.param(lambda texts: ["", *texts[1:]], id="one empty"),
    ],
)
def test_entries_added_removed_or_swapped_are_found(
    change: Callable[[Texts], Texts], shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    outcome = after(shop, owner, rewritten(shop, 1, change))
    assert {where.partition(",")[0] for where in wheres(outcome)} == {"batch 1"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        # What entries are found by.
        (
            "UPDATE decision SET place = place + 90 WHERE batch = 1 AND place = 1",
            "batch 1, entry 1",
        ),
        ("UPDATE decision SET place = 2 WHERE batch = 1 AND place = 1", "batch 1, entry 2"),
        ("UPDATE decision SET batch = 2 WHERE batch = 1 AND place = 1", "batch 1, entry 1"),
        ("DELETE FROM decision WHERE batch = 1 AND place = 1", "batch 1, entry 1"),
        (
            "UPDATE decision SET decision_id = gen_random_uuid() WHERE batch = 1 AND place = 1",
            "batch 1, entry 1",
        ),
        ("UPDATE ledger_step SET decision_id = gen_random_uuid()", "batch"),
        ("UPDATE ledger_step SET place = place + 1", "batch"),
        ("DELETE FROM ledger_step", "batch"),
        (
            (
                "INSERT INTO ledger_step SELECT tenant, decision_id, batch, place FROM decision"
                " WHERE batch = 1 AND place = 1"
            ),
            "batch 1, entry 1",
        ),
        (
            (
                "INSERT INTO ledger_step SELECT tenant, decision_id, 8888, 1 FROM decision"
                " WHERE batch = 1 AND place = 1"
            ),
            "batch 8888",
        ),
        # Pages.
        ("DELETE FROM ledger_page WHERE batch = 2", "batch 2"),
        ("UPDATE ledger_page SET content = '' WHERE batch = 1", "batch 1, entry 0"),
        ("UPDATE ledger_page SET entry_count = entry_count + 1 WHERE batch = 1", "batch 1"),
        ("UPDATE ledger_page SET first = first + 1000 WHERE batch = 1", "batch 1"),
        (
            (
                "INSERT INTO ledger_page SELECT tenant, 9999, first, entry_count, content"
                " FROM ledger_page WHERE batch = 1"
            ),
            "batch 9999",
        ),
        # Seals.
        (
            "UPDATE ledger_batch SET nodes = set_byte(nodes, 3, 255 - get_byte(nodes, 3)) WHERE batch = 1",
            "batch 1",
        ),
        (
            (
                "UPDATE ledger_batch SET nodes = set_byte(nodes, length(nodes) - 1,"
                " 255 - get_byte(nodes, length(nodes) - 1)) WHERE batch = 1"
            ),
            "batch 1",
        ),
        ("UPDATE ledger_batch SET nodes = nodes || '\\x00' WHERE batch = 1", "batch 1"),
        ("UPDATE ledger_batch SET nodes = '' WHERE batch = 1", "batch 1"),
        ("UPDATE ledger_batch SET root = 'ab' WHERE batch = 1", "batch 1"),
        ("UPDATE ledger_batch SET chain = root WHERE batch = 1", "batch 1"),
        ("UPDATE ledger_batch SET previous = 'ab' WHERE batch = 2", "batch 2"),
        ("UPDATE ledger_batch SET entry_count = entry_count + 1 WHERE batch = 2", "batch 2"),
        ("UPDATE ledger_batch SET batch_id = gen_random_uuid() WHERE batch = 2", "batch 2"),
        (
            "UPDATE ledger_batch SET recorded_at = recorded_at + interval '1 us' WHERE batch = 2",
            "batch 2",
        ),
        ("UPDATE ledger_batch SET signature = 'ab' WHERE batch = 3", "batch 3"),
        ("UPDATE ledger_batch SET signature = 'not hex' WHERE batch = 3", "batch 3"),
        ("UPDATE ledger_batch SET signature = upper(signature) WHERE batch = 3", "batch 3"),
        ("UPDATE ledger_batch SET signature = ' ' || signature WHERE batch = 3", "batch 3"),
        ("DELETE FROM ledger_batch WHERE batch = 2", "batch 3"),
    ],
)
def test_any_changed_row_is_found(
    change: LiteralString, where: str, shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    outcome = after(shop, owner, change)
    assert any(place.startswith(where) for place in wheres(outcome)), outcome.problems


def test_a_page_that_was_damaged_is_not_explained_from(
    shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    with owner.cursor() as cursor:
        cursor.execute("SELECT set_config('storekeep.tenant', %s, true)", (shop.pipeline.tenant,))
        cursor.execute("UPDATE ledger_page SET content = 'no page' WHERE batch = 1")
        with pytest.raises(InvariantBroken, match="no entry 1 in batch 1"):
            Transaction(cursor, shop.pipeline.tenant).ledger_entry(1, 1)
    owner.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_page SET content = content",
        "DELETE FROM ledger_page",
        "UPDATE ledger_step SET place = place",
        "DELETE FROM ledger_step",
        "UPDATE ledger_batch SET root = root",
        "DELETE FROM ledger_batch",
        "UPDATE event_log SET facts = facts",
        "DELETE FROM event_log",
        "UPDATE registry SET content = content",
        "TRUNCATE ledger_page",
    ],
)
def test_the_role_that_records_cannot_change_what_is_recorded(
    statement: LiteralString, shop: Shop
) -> None:
    with pytest.raises(Permanent, match="permission denied"):
        run_as_recorder(shop.pipeline, statement)


def run_as_recorder(pipeline: Pipeline, statement: LiteralString) -> None:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx._run(statement)


def test_an_entry_changed_with_its_leaf_and_root_is_still_found(
    shop: Shop, owner: psycopg.Connection[dict[str, Any]]
) -> None:
    """Who changes an entry and mends leaf and root breaks the chain; mending that breaks the signature."""
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        entries = tx.ledger_entries(1, 1).to_pylist()
    texts = [entry["entry"] for entry in entries]
    texts[1] = texts[1].replace('"order_units":', '"order_units":1')
    tree = levels([ledger.leaf(text) for text in texts])

    def change(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
        rewritten(shop, 1, lambda _: texts)(cursor)
        nodes = b"".join(node for level in tree for node in level)
        seal = "UPDATE ledger_batch SET root = %s, nodes = %b WHERE batch = 1"
        cursor.execute(seal, (tree[-1][0].hex(), nodes))

    outcome = after(shop, owner, change)
    assert wheres(outcome) == {"batch 1"}
    assert {problem.what for problem in outcome.problems} == {"its seal was changed"}


def test_another_key_verifies_nothing(shop: Shop, exported: Exported, tmp_path: Path) -> None:
    other = ledger.signer(tmp_path).public
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        outcome = ledger.verify(tx, other)
    assert {problem.what for problem in outcome.problems} == {"its signature is not by this key"}
    assert len(outcome.problems) == outcome.batches
    assert not exported.verified(tmp_path, exported.whole, other).ok
    assert not exported.verified(tmp_path, exported.whole, "ab").ok


# Keys -----------------------------------------------------------------------------------------------


def test_the_key_is_its_owners_only_and_stays_the_same(tmp_path: Path) -> None:
    first = ledger.signer(tmp_path)
    key, public = tmp_path / "keys" / "ledger.pem", tmp_path / "keys" / "ledger.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert public.read_text() == first.public + "\n"
    assert ledger.signer(tmp_path).public == first.public
    assert sorted(path.name for path in key.parent.iterdir()) == ["ledger.pem", "ledger.pub"]
    assert "_key" not in repr(first)


def test_threads_that_make_the_key_at_once_make_one(tmp_path: Path) -> None:
    made: list[str] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        made.append(ledger.signer(tmp_path).public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert set(made) == {ledger.signer(tmp_path).public}


def test_processes_that_make_the_key_at_once_make_one(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from storekeep import ledger;"
        "home, go = Path(sys.argv[1]), Path(sys.argv[1], 'go');"
        "Path(sys.argv[1], sys.argv[2]).touch()\n"
        "while not go.exists(): time.sleep(0.0005)\n"
        "print(ledger.signer(home).public)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    while not all((tmp_path / name).exists() for name in ("one", "two")):
        assert all(process.poll() is None for process in started)
    (tmp_path / "go").touch()
    said = {process.communicate(timeout=30)[0].strip() for process in started}
    assert said == {ledger.signer(tmp_path).public}


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    ledger.signer(tmp_path)
    (tmp_path / "keys" / "ledger.pem").write_bytes(content)
    with pytest.raises(Refused, match=r"ledger\.pem does not hold an Ed25519 key"):
        ledger.signer(tmp_path)


def test_a_key_that_is_lost_is_not_made_anew(tmp_path: Path) -> None:
    """A chain that another key goes on signing would prove nothing."""
    first = ledger.signer(tmp_path)
    key = tmp_path / "keys" / "ledger.pem"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(Refused, match=r"ledger\.pem is gone"):
        ledger.signer(tmp_path)
    key.write_bytes(kept)
    assert ledger.signer(tmp_path).public == first.public
