"""Begins stopped partitions again, from time to time, in case a person has mended what stopped them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from flagstream.chunk import Partition
from flagstream.operate.retry import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 600.0
"""Seconds between two looks. Each reads the partition from its committed offset, and lists what the sink
holds."""
WELL_SECONDS = 10.0
"""Without another stop after a look, or with a commit before, the partition is well again."""


@dataclass(slots=True)
class _Stop:
    problem: str
    backoff: Backoff
    due: float | None
    """When the partition begins again; None while it does."""
    looked_at: float = 0.0


class StoppedPartitions:
    """``look`` begins a partition again; it stops again if the reason is still there. ``clock`` is monotonic.

    A partition counts as stopped until a look has shown that it is well, so that neither pages nor alerts see
    it come and go. Used on the event loop.
    """

    def __init__(self, look: Callable[[Partition], None], clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._stops: dict[Partition, _Stop] = {}

    @property
    def problems(self) -> dict[Partition, str]:
        """The reason of each partition that has stopped."""
        return {partition: stop.problem for partition, stop in self._stops.items()}

    def follow(self, stopped: Mapping[Partition, str]) -> None:
        """Take note of the partitions that are ``stopped`` now, and let those look again whose time has come.
        To be called every second or so.
        """
        now = self._clock()
        for partition, problem in stopped.items():
            stop = self._stops.get(partition)
            if stop is None:
                backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
                stop = self._stops[partition] = _Stop(problem, backoff, now + backoff.next_pause())
            elif stop.due is None:
                stop.due = now + stop.backoff.next_pause()
            stop.problem = problem
        for partition, stop in list(self._stops.items()):
            if partition in stopped:
                continue
            if stop.due is not None:  # it looks again for a reason of its own
                stop.due, stop.looked_at = None, now
            elif now - stop.looked_at > WELL_SECONDS:
                del self._stops[partition]
        self._look_at([p for p in stopped if (due := self._stops[p].due) is not None and due <= now])

    def look_now(self) -> None:
        """Begin all partitions again that are not about to."""
        for stop in self._stops.values():
            stop.backoff.reset()
        self._look_at([partition for partition, stop in self._stops.items() if stop.due is not None])

    def forget(self, partition: Partition) -> None:
        """Called when the partition is lost, or something of it was committed."""
        self._stops.pop(partition, None)

    def _look_at(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._stops[partition].due, self._stops[partition].looked_at = None, self._clock()
            self._look(partition)
