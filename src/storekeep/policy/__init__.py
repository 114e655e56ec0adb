"""Rulebooks: what an agent may do, what a person must be asked, and what is forbidden.

A rulebook is a YAML file per agent and action that a buyer can read. Hides how it becomes a judgement of a
million proposals in one go: `load` checks and compiles it, `judge` judges a batch of any size, and
`usage_keys` says whose recent decisions the limits must know of. `try_cases` holds a rulebook against what
its owner expects of it, and `compare` says what changes between two. `docs/rulebooks.md` is the language.
"""

from storekeep.policy.cases import Failed, Tried, beside, try_cases
from storekeep.policy.comparison import Change, Difference, compare
from storekeep.policy.judging import (
    KEYS,
    SHIPPED,
    USED,
    USES,
    Rulebook,
    judge,
    load,
    usage_keys,
    uses,
)

__all__ = [
    "KEYS",
    "SHIPPED",
    "USED",
    "USES",
    "Change",
    "Difference",
    "Failed",
    "Rulebook",
    "Tried",
    "beside",
    "compare",
    "judge",
    "load",
    "try_cases",
    "usage_keys",
    "uses",
]
