"""Random numbers that are looked up, not drawn: the same key and counter give the same number.

A stream that is drawn from one after another gives an agent that orders often other lead times than a rule
that orders seldom, and their comparison measures luck. Here a number belongs to what it is for (Salmon and
others, "Parallel random numbers: as easy as 1, 2, 3", 2011), so both meet the same world whatever they do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def words(state: Words, counter: Integers) -> Words:
    """The `counter`-th 64-bit number, from 0, of the SplitMix64 stream that starts at `state`.

    z = state + (counter + 1)γ; z = (z ⊕ z≫30)·a; z = (z ⊕ z≫27)·b; z ⊕ z≫31, with γ, a, b as in Steele,
    Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), whose reference
    program starts like this from 1234567:

    >>> words(np.array([1234567, 1234567], np.uint64), np.array([0, 1])).tolist()
    [6457827717110365317, 3203168211198807973]
    """
    mixed = state + (counter.astype(np.uint64) + np.uint64(1)) * _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def states(seed: int, purpose: str, keys: Iterable[str]) -> Words:
    """Where the stream of each key starts: 64 bits of SHA-256 of seed, purpose and key."""
    prefix = hashlib.sha256(f"{seed}\n{purpose}\n".encode())
    digests = bytearray()
    for key in keys:
        hashed = prefix.copy()
        hashed.update(key.encode())
        digests += hashed.digest()[:8]
    return np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64)


def fractions(state: Words, counter: Integers) -> Floats:
    """Numbers in [0, 1), uniform, one for each state and counter: the upper 53 bits over 2⁵³."""
    upper = words(state, counter) >> np.uint64(11)
    return np.asarray(upper.astype(np.float64) * 2.0**-53, np.float64)


def draw(seed: int, purpose: str, keys: Iterable[str]) -> Floats:
    """One number in [0, 1) for each key, uniform; another purpose gives independent numbers."""
    start = states(seed, purpose, keys)
    return fractions(start, np.zeros(len(start), np.int64))
