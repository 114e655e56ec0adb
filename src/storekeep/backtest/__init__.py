"""A recorded period driven through the pipeline: the demonstration, and what is measured on it."""

from storekeep.backtest.demonstration import Options, Progress, demo

__all__ = ["Options", "Progress", "demo"]
