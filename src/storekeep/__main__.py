"""`python -m storekeep` is `storekeep`."""

from storekeep.cli import main

main()
