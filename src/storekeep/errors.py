"""What can go wrong, by what the caller may do about it.

Bad data is a value and never raised (see `storekeep.ingest`); a policy's refusal is a verdict and never
raised (see `storekeep.policy`). What is left raises one of these, so that a caller chooses by type alone
whether to try again, to look first, to tell the person, or to stop.
"""


class StorekeepError(Exception):
    """Any failure Storekeep names; its text says what happened, where, and what to do."""

    exit_code = 3


class Transient(StorekeepError):
    """It may work if tried again: a server restarting, a rate limit, a full queue.

    `after_seconds`: not before so long, where whoever failed said so.
    """

    def __init__(self, said: str, after_seconds: float = 0.0) -> None:
        super().__init__(said)
        self.after_seconds = after_seconds


class Permanent(StorekeepError):
    """It will not work however often it is tried: the outside system said no."""


class Unknown(StorekeepError):
    """The outside system may or may not have acted: look before sending again."""


class InvariantBroken(StorekeepError):
    """A promise of Storekeep itself does not hold: stop, keep the evidence, report it."""


class Refused(StorekeepError):
    """The request cannot be carried out as asked: bad input, or a rule of ours forbids it."""

    exit_code = 1


class Misused(Refused):
    """The words of the request are wrong: an unknown option, column, file or setting."""

    exit_code = 2
