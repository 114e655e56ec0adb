"""A recorded period driven again: the demonstration, a draft of a rulebook, and what is measured on them."""

from storekeep.backtest.demonstration import Options, Progress, demo
from storekeep.backtest.drafts import try_draft

__all__ = ["Options", "Progress", "demo", "try_draft"]
