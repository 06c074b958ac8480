"""How an export ends that begins again: at the committed offset or at another one, as a value."""

from dataclasses import dataclass

from flagstream.errors import FlagstreamError, SinkRefused
from flagstream.export.phases import Event


@dataclass(frozen=True, slots=True)
class RefusedWindow:
    """A planned window that is to become dead letters: the sink refused it with ``error``. ``position`` is
    the offset that was committed with its plan.
    """

    error: SinkRefused
    position: int | None


@dataclass(frozen=True, slots=True)
class Restart:
    """The partition is read again from the committed offset, or from ``to``. ``refused`` is the window that
    becomes dead letters then.
    """

    to: int | None = None
    refused: RefusedWindow | None = None


class StartAgain(FlagstreamError):
    """The export cannot go on with what it holds and ends; the stage starts the partition again as
    ``restart`` says. Nothing is lost: the records are in the topic.
    """

    def __init__(self, event: Event, restart: Restart, message: str = "") -> None:
        self.event = event
        self.restart = restart
        super().__init__(message or event.value)
