"""Cuts the records of one partition into windows. Synchronous, no I/O."""

from collections import deque
from collections.abc import Sequence

from flagstream.chunk import Chunk, Partition
from flagstream.errors import RecordsMissing
from flagstream.export.routes import Route
from flagstream.export.takeover import Takeover
from flagstream.export.windows import ClosedWindow, Limits, OpenWindow
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder
from flagstream.units import MIB
from flagstream.window import OffsetRange

SLICE = 1_000
"""Records taken at a time, after which size and memory are looked at."""
SLICE_BYTES = MIB
"""What they weigh at most, unless it is a single one: validation and encoding make copies."""


class Cutter:
    """Takes slices of chunks in order and closes windows, those with a fixed end first. Times are those of
    the clock of the caller, in seconds.

    ``takeover`` is what the last owner left. ``held``: the ranges that the sink holds already. ``route`` is
    the way of windows; ``refused``, if given, that of the plan that is repeated, which the sink refused.

    For example with the fixed ends 17 and 21, position 10 and the limit of three events, the records 10 to 26
    become the windows [10, 17), [17, 21), [21, 24) and [24, 27).
    """

    def __init__(
        self,
        name: str,
        partition: Partition,
        position: int,
        takeover: Takeover,
        *,
        route: Route,
        refused: Route | None,
        held: Sequence[OffsetRange],
        limits: Limits,
        settings: SinkSettings,
        decoder: Decoder | None,
    ) -> None:
        self.open: OpenWindow | None = None
        self.asked: str | None = None
        """Why the open window is to be closed after all that waits has been taken, if somebody asked for it.
        """
        self._name = name
        self._partition = partition
        self._position = position
        self._range_start = takeover.range_start
        self._ends = deque(takeover.ends)
        self._route = route
        self._refused = refused
        self._held = frozenset(held)
        self._limits = limits
        self._settings = settings
        self._decoder = decoder
        self._deadline: float | None = None

    @property
    def next(self) -> int:
        """The first offset that is in no window yet."""
        return self._position if self.open is None else self.open.next

    @property
    def deadline(self) -> float | None:
        """When the open window is closed, whatever it holds; None if its end is fixed or none is open."""
        return self._deadline

    @property
    def repeats(self) -> bool:
        """Whether the window that takes the next record has a fixed end. The budget does not matter then."""
        return bool(self._ends) or (self.open is not None and self.open.fixed is not None)

    @property
    def closable(self) -> bool:
        """Whether a window is open that may be closed early."""
        return self.open is not None and self.open.fixed is None and not self.open.empty

    def due(self, now: float) -> str | None:
        """Return why the open window has to be closed now; None if it does not."""
        if self.open is None:
            return None
        if reason := self.open.full_by:
            return reason
        return "time" if self._deadline is not None and now >= self._deadline else None

    def take(self, chunk: Chunk, now: float) -> int:
        """Take a slice of ``chunk``, which starts at :attr:`next`, into the open window or a new one. Returns
        how many records were taken: none if the window that repeats a plan ends without them.

        Raises RecordsMissing if the last record of such a window is gone, and PartitionStopped for a record
        that cannot be exported.
        """
        window = self.open or self._begin(now)
        count = window.room(chunk.records[: _slice(chunk)])
        if count:
            window.add(chunk.records[:count])
        elif self._settings.on_missing_records == "continue":
            window.end_early()
        else:
            end = window.fixed.end if window.fixed is not None else window.next
            raise RecordsMissing(
                f"the window [{window.range_start}, {end}) of {self._partition} cannot be delivered as "
                "it was planned: its last record is no longer in the topic"
            )
        return count

    def _begin(self, now: float) -> OpenWindow:
        fixed = self._ends.popleft() if self._ends else None
        route = self._route
        if self._refused is not None and fixed is not None and fixed.plan is not None:
            route = self._refused
        self.open = OpenWindow(
            route,
            self._partition,
            self._position,
            self._range_start,
            limits=self._limits,
            sink_name=self._name,
            fixed=fixed,
            decoder=self._decoder,
        )
        self._deadline = now + self._settings.flush_interval if fixed is None else None
        return self.open

    def close(self, reason: str, topic_id: str) -> ClosedWindow:
        """Close the open window and return it."""
        assert self.open is not None
        window = self.open.close(reason, topic_id)
        self.forget()
        window.held = window.range in self._held
        window.refused = self._refused is not None and window.plan is not None
        window.next_start = window.range.end
        if not window.held:
            exported = window.manifest is not None
            window.next_start = self.route_of(window).next_start(window.range, exported=exported)
        self._position, self._range_start = window.range.end, window.next_start
        return window

    def route_of(self, window: ClosedWindow) -> Route:
        """Return the way that ``window`` takes."""
        return self._refused if window.refused and self._refused is not None else self._route

    def forget(self) -> None:
        """Throw the open window away."""
        self.open = None
        self._deadline = None


def _slice(chunk: Chunk) -> int:
    """Return how many records of ``chunk`` are taken at a time."""
    if chunk.weight.bytes <= SLICE_BYTES:
        return SLICE
    return max(1, min(SLICE, SLICE_BYTES * len(chunk.records) // chunk.weight.bytes))
