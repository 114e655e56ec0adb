"""Rulebooks: what an agent may do, what a person must be asked, and what is forbidden.

A rulebook is a YAML file per agent and action that a buyer can read. Hides how it becomes a judgement of a
million proposals in one go: `load` checks and compiles it, `judge` judges a batch of any size, and
`usage_keys` says whose recent decisions the limits must know of; `bounds` and `changed` are for a person
who approves something else. `docs/rulebooks.md` is the whole language.
"""

from storekeep.policy.changing import BOUNDS, bounds, changed
from storekeep.policy.judging import KEYS, SHIPPED, USED, USES, Rulebook, judge, load, usage_keys

__all__ = [
    "BOUNDS",
    "KEYS",
    "SHIPPED",
    "USED",
    "USES",
    "Rulebook",
    "bounds",
    "changed",
    "judge",
    "load",
    "usage_keys",
]
