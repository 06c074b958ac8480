"""What a consumer reads, in which group, and how the thread that does it shows that it is alive."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagstream.units import Start


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """The consumer called ``name`` reads ``topic``, from ``start`` on where nothing is committed.

    ``properties`` is the complete librdkafka configuration but for callbacks. ``session_timeout``: seconds.
    """

    name: str
    properties: Mapping[str, Any]
    topic: str
    start: Start
    session_timeout: float

    @property
    def group(self) -> str:
        """Return the name of the consumer group."""
        return str(self.properties["group.id"])

    @property
    def commit_limit(self) -> float:
        """The seconds after which librdkafka may have sent a commit again, so that its outcome is not
        known.
        """
        return int(self.properties.get("socket.timeout.ms", 60_000)) / 2000


@dataclass(slots=True)
class Pulse:
    """When the consumer's thread last polled, and when it was last seen moving, in monotonic seconds."""

    polled_at: float
    last_active: float

    def beat(self) -> None:
        """The thread moves."""
        self.last_active = time.monotonic()

    def polled(self) -> None:
        """The thread has polled."""
        self.polled_at = self.last_active = time.monotonic()
