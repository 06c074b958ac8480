"""The protocol of a topic's format, for topics that are not in JSON."""

from collections.abc import Sequence
from typing import Protocol

from flagstream.outcomes import Dead


class Decoder(Protocol):
    """Turns values of a topic into the JSON text of their events."""

    @property
    def trouble(self) -> str | None:
        """The reason why :meth:`prepare` waits, for people; None while it does not wait."""

    async def prepare(self, values: Sequence[bytes | None]) -> None:
        """Get what :meth:`decode` needs for these values, however long it takes. The stage calls it first."""

    def decode(
        self, values: Sequence[bytes | None], unknown: set[int] | None = None
    ) -> list[bytes | Dead | None]:
        """Return the event of each value as JSON text on one line, or why there is none. It does no I/O and
        never raises.

        A value without bytes (a tombstone, an empty value) passes as it is. ``unknown``: the ids of schemas
        that count as missing, even if they are known by now; ids that are found missing are added to it.
        """


class Encoder(Protocol):
    """Turns the JSON text of events into values of a topic."""

    def open(self) -> None:
        """Get ready, before the first :meth:`encode`. It blocks. Raises RegistryError: the stage tries
        again later.
        """

    def encode(self, text: bytes) -> bytes | Dead:
        """Return the value for an enriched event. It does no I/O and never raises."""
