"""Where flags come from: places that are read, and the memory of what was read there last."""

from typing import Protocol

from flagstream.errors import FlagstreamError, SinkError, SinkUnavailable
from flagstream.flag_sources.document import Document
from flagstream.flags import FlagSet

__all__ = ["Document", "FlagLocation", "FlagSource", "NotNow", "unread"]


class NotNow(FlagstreamError, OSError):
    """The place asks to be left alone for ``seconds``."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def unread(error: SinkError) -> OSError:
    """What a place raises for a store that could not be read."""
    wait = error.retry_after if isinstance(error, SinkUnavailable) else None
    return OSError(str(error)) if wait is None else NotNow(str(error), wait)


class FlagLocation(Protocol):
    """Where one document with flags can be read: a file, an address, an object. Used by one thread at a time,
    never on the event loop; it may block, but not without bound."""

    def fetch(self, *, anew: bool) -> Document | None:
        """The document; None if it is the one that the last fetch gave (never None when ``anew``).

        Raises OSError, with a message for people that holds no secret, where it cannot be got at, and
        `flagstream.flags.FlagFileError` where what is there is no document with flags. A `NotNow` is
        heeded: no call is made until its time is over.
        """
        ...


class FlagSource(Protocol):
    """One place that flags are read from. ``load`` and ``poll`` may block on I/O and are called from one
    thread at a time, never on the event loop. Neither logs: the caller does, and keeps the flags it has when
    one raises.

    Both raise `flagstream.flags.FlagFileError` where the flags are there and cannot be read, and OSError
    where they cannot be got at.
    """

    name: str
    """Tells the source from others, in logs, metrics and the cache; holds no secret."""

    @property
    def problem(self) -> str | None:
        """What is wrong with the source since the last call of ``load`` or ``poll``; None if nothing."""
        ...

    @property
    def good(self) -> Document | None:
        """The document that the flags last given were read from; None if there were none."""
        ...

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

    def restore(self, document: Document) -> FlagSet:
        """The flags of an earlier worker's ``good``, which stand in until ``poll`` gives better ones."""
        ...
