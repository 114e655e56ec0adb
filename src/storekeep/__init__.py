"""Storekeep: runs a retailer's AI agents under policy, with one ledger and one revert."""

__version__ = "0.1.0.dev0"
