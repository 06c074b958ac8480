"""Where flags come from: the locations that are read, and the memory of the last flags from each."""

from typing import Protocol

from flagstream.errors import FlagstreamError, SinkError, SinkUnavailable
from flagstream.flag_sources.document import Document
from flagstream.flags import FlagSet

__all__ = ["Document", "FlagLocation", "FlagSource", "NotNow", "unread"]


class NotNow(FlagstreamError, OSError):
    """The location asks for no more requests for ``seconds``."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def unread(error: SinkError) -> OSError:
    """Return the error that a location raises for a store that could not be read."""
    wait = error.retry_after if isinstance(error, SinkUnavailable) else None
    return OSError(str(error)) if wait is None else NotNow(str(error), wait)


class FlagLocation(Protocol):
    """A place where one document with flags can be read: a file, an address, an object. One thread at a time
    uses it, never the event loop. It may block, but not without bound.
    """

    def fetch(self, *, unconditional: bool) -> Document | None:
        """Return the document; None if the last fetch returned the same one (never None if
        ``unconditional``).

        Raises OSError, with a message for people that holds no secret, if it cannot be read, and
        `flagstream.flags.FlagFileError` if it is not a document with flags. After a `NotNow` the caller makes
        no call until its time is over.
        """
        ...


class FlagSource(Protocol):
    """Describes one source of flags. ``load`` and ``poll`` may block on I/O; they are called from one thread
    at a time, never on the event loop. Neither logs: the caller does, and keeps its flags if one raises.

    Both raise `flagstream.flags.FlagFileError` if the flags are there and cannot be understood, and OSError
    if they cannot be read.
    """

    name: str
    """The name of the source in logs, metrics and the cache; it holds no secret."""

    @property
    def problem(self) -> str | None:
        """What is wrong with the source since the last call of ``load`` or ``poll``; None if nothing."""
        ...

    @property
    def good(self) -> Document | None:
        """The document of the last flags that the source returned; None if there were none."""
        ...

    def load(self) -> FlagSet:
        """Return the flags as they are now. It is for the start: it raises at every call, as long as they
        cannot be read.
        """
        ...

    def poll(self) -> FlagSet | None:
        """Return the flags if they have changed since the last call of either method (a scheduled step counts
        as a change), or if that call raised; None if nothing has changed. The same failure is raised once,
        not at every poll.
        """
        ...

    def restore(self, document: Document) -> FlagSet:
        """Return the flags of an earlier worker's ``good``, for use until ``poll`` returns newer ones."""
        ...
