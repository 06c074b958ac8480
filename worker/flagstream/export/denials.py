"""How long a sink has denied each partition: when a denial becomes a refusal."""

from flagstream.chunk import Partition

FORGOTTEN_SECONDS = 600.0
"""More than two tries of one delivery are apart: the longest pause, and the time-outs of a slow client."""


class Denials:
    """Says when a denial counts as a refusal (see :class:`flagstream.errors.SinkRefused`): once the
    partition has met nothing but denials for ``after`` seconds.

    Windows that become dead letters do not begin the time again, so the next one does not wait. Times are
    those of a monotonic clock that callers hand in, in seconds.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._seen: dict[Partition, tuple[float, float]] = {}  # the first denial, and the last

    def counts(self, partition: Partition, now: float) -> bool:
        """Take note of a denial. The first never counts, also where ``after`` is 0: the client that met it
        may be at fault, and the next try has a new one.
        """
        first, last = self._seen.get(partition, (None, now))
        # Where nothing was tried for long, nobody knows whether it was denied all the while.
        if first is None or now - last > self._after + FORGOTTEN_SECONDS:
            self._seen[partition] = (now, now)
            return False
        self._seen[partition] = (first, now)
        return now - first >= self._after

    def over(self, partition: Partition) -> None:
        """The sink took a window of the partition, failed in another way, or the partition is not ours."""
        self._seen.pop(partition, None)
