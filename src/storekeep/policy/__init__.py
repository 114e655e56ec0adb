"""Policy: what an agent may do, what a person must be asked, what is forbidden, and who hears what.

A rulebook is a YAML file per agent and action that a buyer can read. Hides how it becomes a judgement of a
million proposals in one go: `load` checks and compiles it, `judge` judges a batch of any size, and
`usage_keys` says whose recent decisions the limits must know of. `try_cases` holds a rulebook against what
its owner expects of it, and `compare` says what changes between two. `docs/rulebooks.md` is the language.
A dispatch policy says which agent is woken by which event, and `bar` settles who comes first
(`docs/dispatch.md`). `bounds` and `changed` are for a person who approves something else; `key_figures` and
`reached` tell when a version is taken back.
"""

from storekeep.policy.cases import Failed, Tried, beside, try_cases
from storekeep.policy.changing import BOUNDS, bounds, changed
from storekeep.policy.comparison import Change, Difference, compare
from storekeep.policy.denying import bar
from storekeep.policy.dispatch import (
    SHIPPED_DISPATCH,
    Dispatch,
    Listener,
    Precedence,
    is_dispatch,
    load_dispatch,
)
from storekeep.policy.figures import key_figures, reached
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
    "BOUNDS",
    "KEYS",
    "SHIPPED",
    "SHIPPED_DISPATCH",
    "USED",
    "USES",
    "Change",
    "Difference",
    "Dispatch",
    "Failed",
    "Listener",
    "Precedence",
    "Rulebook",
    "Tried",
    "bar",
    "beside",
    "bounds",
    "changed",
    "compare",
    "is_dispatch",
    "judge",
    "key_figures",
    "load",
    "load_dispatch",
    "reached",
    "try_cases",
    "usage_keys",
    "uses",
]
