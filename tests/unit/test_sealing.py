"""What is personal is opened by the person's key and nothing else, and says whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.errors import InvariantBroken, Refused
from storekeep.ingest import (
    is_hidden,
    new_person_key,
    persons_in,
    persons_key,
    unseal,
    unwrapped,
    withheld,
)
from storekeep.ingest.pseudonyms import Matched, matches
from storekeep.ingest.sealing import WITHHELD, person_of, seal

WRAPPING = bytes(range(32))
KEYS = {name: unwrapped(new_person_key(WRAPPING), WRAPPING) for name in ("crm:1", "crm:2")}


def keys(persons: Sequence[str]) -> dict[str, bytes]:
    return {name: KEYS[name] for name in persons}


def sealed(text: str | None, person: str | None = "crm:1", field: str = "name") -> str:
    found = seal({field: pa.array([text], pa.string())}, pa.array([person], pa.string()), keys)
    return str(found[field][0].as_py())


@given(st.text(min_size=1))
def test_a_text_comes_back_as_it_was_and_is_sealed_alike_each_time(text: str) -> None:
    # Lone surrogates are no text; Arrow has none.
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    hidden = sealed(text)
    assert hidden == sealed(text)
    assert unseal(hidden, "name", KEYS["crm:1"]) == text
    assert person_of(hidden) == "crm:1"
    assert is_hidden(hidden)
    if len(text) > 3:
        assert text not in hidden


def test_no_other_person_field_or_change_opens_it() -> None:
    hidden = sealed("Ann")
    assert hidden != sealed("Ann", "crm:2")
    assert hidden != sealed("Ann", field="email")
    changed = hidden.replace(hidden[10], "A" if hidden[10] != "A" else "B", 1)
    for text, field, key in (
        (hidden, "name", KEYS["crm:2"]),
        (hidden, "email", KEYS["crm:1"]),
        (hidden.replace("crm:1", "crm:2"), "name", KEYS["crm:1"]),
        (changed, "name", KEYS["crm:1"]),
        ("Ann", "name", KEYS["crm:1"]),
    ):
        with pytest.raises(InvariantBroken):
            unseal(text, field, key)


def test_nobodys_text_is_withheld_and_nothing_stays_nothing() -> None:
    texts = pa.array(["Ann", None, "Bob"], pa.string())
    whose = pa.array([None, "crm:1", "crm:1"], pa.string())
    found = seal({"name": texts}, whose, keys)["name"].to_pylist()
    assert found[:2] == [WITHHELD, None]
    assert unseal(found[2], "name", KEYS["crm:1"]) == "Bob"


def test_only_what_we_kept_passes_for_sealed() -> None:
    hidden = sealed("Ann")
    whose = pa.array(["crm:1", "crm:1"])
    texts = pa.array([hidden, WITHHELD])
    assert seal({"name": texts}, whose, keys, kept=True)["name"].to_pylist() == texts.to_pylist()
    # Somebody's name may look so.
    found = seal({"name": texts}, whose, keys)["name"].to_pylist()
    for text, again in zip(texts.to_pylist(), found, strict=True):
        assert unseal(again, "name", KEYS["crm:1"]) == text


def test_of_a_text_only_what_is_of_some_persons_is_withheld() -> None:
    row = f'{{"name":"{sealed("Ann")}","boss":"{sealed("Bob", "crm:2")}","sku":"x"}}'
    assert persons_in(row) == {"crm:1", "crm:2"}
    left = withheld(row, frozenset({"crm:1"}))
    assert persons_in(left) == {"crm:2"}
    assert left.startswith(f'{{"name":"{WITHHELD}","boss":"sealed/')


def test_keys_are_wrapped_by_the_home_for_each_tenant(tmp_path: Path) -> None:
    one, other = (persons_key(tmp_path, tenant) for tenant in ("acme", "eve"))
    assert one == persons_key(tmp_path, "acme")
    assert one != other
    wrapped = new_person_key(one)
    assert wrapped != new_person_key(one)
    assert unwrapped(wrapped, one) not in wrapped
    with pytest.raises(Refused, match=r"persons\.key"):
        unwrapped(wrapped, other)
    assert (tmp_path / "keys" / "persons.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "Ann@Example.org", " ann@example.ORG "),
        ("phone", "+49 30 901820", "0049 (0)30/90-18.20"),
    ],
)
def test_an_address_or_a_number_is_known_again_however_it_is_written(
    kind: Matched, one: str, other: str
) -> None:
    found = matches(pa.array([one, other, None]), kind, WRAPPING, None).to_pylist()
    assert found[0] == found[1]
    assert found[2] is None
    assert found[0].startswith(f"match.{kind}:")
    assert found[0] != matches(pa.array([one]), kind, WRAPPING[::-1], None)[0].as_py()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("email", text) for text in ("ann", "@x.org", "ann@", "a n@x.org", "a@b@c", "")),
        *(("phone", text) for text in ("030 901820", "+0 30 901820", "+49", "+49 30 x", "")),
    ],
)
def test_what_is_no_address_and_no_number_is_nobodys(kind: Matched, text: str) -> None:
    assert matches(pa.array([text]), kind, WRAPPING, "").to_pylist() == [""]
