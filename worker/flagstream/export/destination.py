"""What the partitions of one sink share, and what stops one of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flagstream.chunk import Partition
from flagstream.errors import SinkRefused
from flagstream.export.budget import MemoryBudget
from flagstream.export.routes import Route
from flagstream.export.windows import Limits
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder


class Services(Protocol):
    """What all partitions of a sink share, beside its route."""

    async def topic_id(self) -> str:
        """Return the id of the output topic; empty if the broker does not report one. Asked only now."""
        ...

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Call ``function`` in a thread."""
        ...

    def committed(self, partition: Partition, offset: int) -> None:
        """Learn that ``offset`` was committed."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the process."""
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the windows of one sink go and under which rules; the same for all partitions."""

    name: str
    route: Route
    settings: SinkSettings
    limits: Limits
    budget: MemoryBudget
    services: Services
    refused: Callable[[SinkRefused], Route]
    """Makes the route to the dead-letter topic, for a window that the sink refused with this error."""
    decoder: Decoder | None = None
    """Of an output topic that is not JSON."""
    unit: str = "windows"
    """What the sink makes of windows, for texts."""


@dataclass(frozen=True, slots=True)
class Hole:
    """The records from the offset ``start`` on were deleted before they were fetched. After all before
    ``start`` is committed, the partition goes on at ``resume_at``; if that is None, it stops with
    ``problem``.
    """

    problem: str
    start: int
    resume_at: int | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the partition stopped, and when it looks again by itself (event loop time)."""

    problem: str
    look_at: float | None = None
