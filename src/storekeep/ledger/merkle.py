"""Merkle trees as RFC 6962 has them: one hash that stands for many entries, and the way to it from each.

Hides how nodes are paired. A tree of many entries is built over whole columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from storekeep import canonical
from storekeep.errors import InvariantBroken

_LEAF, _NODE = b"\x00", b"\x01"


def leaf(entry: str) -> bytes:
    """Hash of a leaf: SHA-256 of a zero byte and the entry (RFC 6962, section 2.1)."""
    return hashlib.sha256(_LEAF + entry.encode()).digest()


def leaves(entries: pa.StringArray) -> list[bytes]:
    """The hash of each entry of a column."""
    return canonical.hashes(entries, _LEAF)


class Tree:
    """A tree that leaves are added to on the right: most of it is there when the last of them come."""

    def __init__(self) -> None:
        # From the leaves up, the nodes of whole pairs: they stay, whatever comes.
        self._whole: list[list[bytes]] = [[]]

    def grow(self, leaves_: Sequence[bytes]) -> None:
        """Add leaves."""
        self._whole[0] += leaves_
        for number, below in enumerate(self._whole):
            if len(below) < 2:
                return
            if number + 1 == len(self._whole):
                self._whole.append([])
            above = self._whole[number + 1]
            above += _above(below[2 * len(above) : len(below) // 2 * 2])

    def levels(self) -> list[list[bytes]]:
        """The nodes level by level, from the leaves, of which there is at least one, to the root."""
        if not self._whole[0]:
            raise InvariantBroken("a tree has at least one leaf")
        tree = [self._whole[0]]
        while len(tree[-1]) > 1:
            known = self._whole[len(tree)] if len(tree) < len(self._whole) else []
            tree.append([*known, *_above(tree[-1][2 * len(known) :])])
        return tree


def levels(leaves_: Sequence[bytes]) -> list[list[bytes]]:
    """The nodes of the tree of at least one leaf, level by level."""
    tree = Tree()
    tree.grow(leaves_)
    return tree.levels()


def root(leaves_: Sequence[bytes]) -> bytes:
    """Merkle tree hash of at least one leaf (RFC 6962, section 2.1).

    Pairing level by level and carrying an odd last node up unchanged gives the same tree as splitting at
    the largest power of two.
    """
    return levels(leaves_)[-1][0]


def siblings(many: int, place: int) -> list[tuple[str, int]]:
    """Of a tree of so many leaves, the siblings on the way from a leaf to the root.

    Each with its side, and its place among all nodes when the levels stand one after another.
    """
    found, before = [], 0
    while many > 1:
        sibling = place ^ 1
        if sibling < many:
            found.append(("left" if sibling < place else "right", before + sibling))
        before, many, place = before + many, (many + 1) // 2, place // 2
    return found


def climb(entry: str, path: Iterable[tuple[str, str]]) -> str:
    """The root that an entry and its proof lead to, in hexadecimal."""
    node = leaf(entry)
    for side, sibling in path:
        pair = bytes.fromhex(sibling) + node if side == "left" else node + bytes.fromhex(sibling)
        node = hashlib.sha256(_NODE + pair).digest()
    return node.hex()


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The nodes above a level's: one for each pair, and an odd last one as it is."""
    sha256 = hashlib.sha256
    pairs = zip(level[::2], level[1::2], strict=False)
    nodes = [sha256(_NODE + left + right).digest() for left, right in pairs]
    return [*nodes, level[-1]] if len(level) % 2 else nodes
