"""Where flags come from: the protocol that a flag source satisfies."""

from typing import Protocol

from worker.flags import FlagSet


class FlagSource(Protocol):
    """One place that flags are read from. Both methods may block on I/O and are called from one thread at a
    time, never on the event loop. Neither logs: the caller does, and keeps the flags it has when one raises.

    Both raise `worker.flags.FlagFileError` where the flags are there and cannot be read, and OSError where
    they cannot be got at.
    """

    def load(self) -> FlagSet:
        """The flags as they are now. For the start: it raises at every call, for as long as they are not
        readable."""
        ...

    def poll(self) -> FlagSet | None:
        """The flags, if they are others than the last call of either method gave (also because a scheduled
        step came due) or if that call raised; None if all is as it was. The same failure is raised once, not
        at every poll.
        """
        ...
