"""What a stage asks of a topic's format, where that is not JSON."""

from collections.abc import Sequence
from typing import Protocol

from flagstream.outcomes import Dead


class Decoder(Protocol):
    """Turns values of a topic into the JSON text of their events."""

    @property
    def trouble(self) -> str | None:
        """What :meth:`prepare` waits for, for people; None while it does not wait."""

    async def prepare(self, values: Sequence[bytes | None]) -> None:
        """Get what :meth:`decode` needs for these values, however long it takes; call it before."""

    def decode(
        self, values: Sequence[bytes | None], unknown: set[int] | None = None
    ) -> list[bytes | Dead | None]:
        """The event of each value as JSON text on one line, or why there is none. No I/O, never raises.

        What has no bytes (a tombstone, an empty value) is handed on as it is. ``unknown``: ids of schemas
        that count as missing, also if they are known by now; those that are found missing are added.
        """


class Encoder(Protocol):
    """Turns the JSON text of events into values of a topic."""

    def open(self) -> None:
        """Get ready, before the first :meth:`encode`; blocks. Raises RegistryError: try again later."""

    def encode(self, text: bytes) -> bytes | Dead:
        """The value for an enriched event. No I/O, never raises."""
