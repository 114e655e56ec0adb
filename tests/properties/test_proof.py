"""The proof of one decision holds by itself, and no byte of it can be changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storekeep import ledger
from storekeep.config import Settings
from storekeep.errors import InvariantBroken, Refused
from storekeep.ledger.merkle import Tree, levels, siblings
from tests.shop import FIRST_DAY, SKUS, Shop, of_tenant, opened_shop


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A Monday whose northern orders are taken back, and a Tuesday."""
    with opened_shop(of_tenant(home_settings, "proof_law")) as opened:
        opened.prepare()
        opened.play(FIRST_DAY)
        opened.revert("north", FIRST_DAY)
        opened.play(FIRST_DAY + timedelta(days=1))
        yield opened


def proved(shop: Shop, sku: str) -> dict[str, Any]:
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return ledger.proved(tx, shop.ids(sku)[0], pipeline.signing.public)


@dataclass(frozen=True)
class Written:
    """A real proof as a file's bytes, and who signed it."""

    whole: bytes
    public: str

    def verified(self, folder: Path, content: bytes, key: str | None = None) -> ledger.Verified:
        path = folder / "proof.json"
        path.write_bytes(content)
        return ledger.verify_proof(path, key or self.public)

    def fails(self, folder: Path, content: bytes) -> bool:
        try:
            return not self.verified(folder, content).ok
        except Refused:
            return True


@pytest.fixture(scope="module")
def bread(shop: Shop) -> Written:
    return Written(ledger.written(proved(shop, "bread")).encode(), shop.pipeline.signing.public)


@pytest.mark.parametrize("sku", SKUS)
def test_a_proof_that_nobody_touched_holds(sku: str, shop: Shop, tmp_path: Path) -> None:
    told = proved(shop, sku)
    path = tmp_path / "proof.json"
    path.write_text(ledger.written(told), newline="\n")
    for key in (None, shop.pipeline.signing.public):
        outcome = ledger.verify_proof(path, key)
        assert outcome.ok, outcome.problems
        assert outcome.entries == len(told["entries"])
    steps = [json.loads(each["entry"])["step"] for each in told["entries"]]
    assert steps[0] is None
    assert sku != "bread" or steps[1:] == ["allow", "executed", "reverting", "compensated"]


def test_it_says_nothing_of_other_decisions(shop: Shop, bread: Written) -> None:
    others = [id_ for id_ in shop.ids(*SKUS) if id_ != shop.ids("bread")[0]]
    assert not [id_ for id_ in others if id_.encode() in bread.whole]


@given(data=st.data())
def test_any_changed_byte_fails(
    data: st.DataObject, bread: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at = data.draw(st.integers(0, len(bread.whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != bread.whole[at]))
    content = bytearray(bread.whole)
    content[at] = byte
    assert bread.fails(tmp_path_factory.getbasetemp(), bytes(content))


def test_another_spelling_of_a_digit_fails(
    bread: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`a` and `A` are the same digit: also where no hash covers the text, only one of them counts."""
    folder = tmp_path_factory.getbasetemp()
    value = json.loads(bread.whole)
    item = value["entries"][1]
    for place, name in ((item["seal"], "signature"), (item["seal"], "root"), (item, "leaf")):
        kept = place[name]
        place[name] = kept.upper()
        assert bread.fails(folder, ledger.written(value).encode()), name
        place[name] = kept
    item["path"][0][1] = item["path"][0][1].upper()
    assert bread.fails(folder, ledger.written(value).encode())


@given(data=st.data())
def test_any_cut_and_anything_after_it_fails(
    data: st.DataObject, bread: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert bread.fails(folder, bread.whole[: data.draw(st.integers(0, len(bread.whole) - 1))])
    assert bread.fails(folder, bread.whole + data.draw(st.binary(min_size=1, max_size=3)))


def test_parts_of_other_proofs_do_not_fit(
    shop: Shop, bread: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    own, other = json.loads(bread.whole), json.loads(json.dumps(proved(shop, "milk")))
    for number in (0, 1):
        mixed = json.loads(bread.whole)
        mixed["entries"][number] = other["entries"][number]
        assert bread.fails(folder, ledger.written(mixed).encode())
    for name in ("entry", "leaf", "path", "seal"):
        mixed = json.loads(bread.whole)
        mixed["entries"][1][name] = own["entries"][2][name]
        assert bread.fails(folder, ledger.written(mixed).encode()), name
    for name in ("tenant", "decision_id"):
        assert bread.fails(folder, ledger.written({**own, name: other["format"]}).encode())


@given(data=st.data())
def test_no_garbage_breaks_the_verifier(
    data: st.DataObject, bread: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    value = json.loads(bread.whole)
    item = value["entries"][1]
    place = data.draw(st.sampled_from([value, item, item["seal"]]))
    name = data.draw(st.sampled_from(sorted(place)))
    odd = (
        st.none() | st.booleans() | st.integers(-1, 9) | st.text() | st.lists(st.text(), max_size=2)
    )
    place[name] = data.draw(
        (odd | st.just({}) | st.just([["left"]])).filter(lambda one: one != place[name])
    )
    with suppress(InvariantBroken):
        assert bread.fails(tmp_path_factory.getbasetemp(), ledger.written(value).encode())


def test_another_key_is_told(bread: Written, tmp_path: Path) -> None:
    other = ledger.signer(tmp_path).public
    assert not bread.verified(tmp_path, bread.whole, other).ok
    forged = json.loads(bread.whole)
    forged["public_key"] = other
    assert bread.fails(tmp_path, ledger.written(forged).encode())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"no proof\n", b"[]", b'{"format":"storekeep-ledger-1"}\n']
)
def test_what_is_no_proof_is_refused(content: bytes, bread: Written, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not the proof of a decision"):
        bread.verified(tmp_path, content)


@given(st.integers(1, 300), st.data())
@example(1, None)
def test_the_siblings_of_a_tree_stand_where_they_are_looked_for(many: int, data: Any) -> None:
    leaves = [ledger.leaf(str(place)) for place in range(many)]
    nodes = [node for level in levels(leaves) for node in level]
    place = 0 if data is None else data.draw(st.integers(0, many - 1))
    path = [(side, nodes[at].hex()) for side, at in siblings(many, place)]
    assert ledger.climb(str(place), path) == ledger.root(leaves).hex()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_a_tree_that_grows_in_parts_is_the_tree_of_all_its_leaves(parts: list[int]) -> None:
    leaves = [ledger.leaf(str(place)) for place in range(sum(parts))]
    tree, rest = Tree(), iter(leaves)
    for many in parts:
        tree.grow(list(islice(rest, many)))
    assert tree.levels() == levels(leaves)
    # Nor is it otherwise when its nodes are asked for on the way.
    assert tree.levels()[-1][0] == ledger.root(leaves)


def test_kept_nodes_are_those_of_the_leaves_and_are_not_needed(shop: Shop) -> None:
    """They are there for speed: each can be made again, and a proof is the same without them."""
    pipeline = shop.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        for sealed in tx.ledger_batches():
            number = sealed["batch"]
            texts = tx.ledger_entries(number, number)["entry"].to_pylist()
            tree = [
                node for level in levels([ledger.leaf(text) for text in texts]) for node in level
            ]
            assert tx.ledger_nodes(number, range(len(tree))) == tree
            assert sealed["root"] == tree[-1].hex()
