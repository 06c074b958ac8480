"""What failed transactions teach the enrich stage: how long to pause, and which partitions to keep apart."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from worker.chunk import Partition
from worker.operate.retry import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between transactions that fail."""
TOLD_TURNS = 2
"""Transactions in a row that have to fail before it is a problem: one is rolled back in any rebalance."""


def _backoff() -> Backoff:
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE)


@dataclass(slots=True)
class _Alone:
    """A partition whose records have transactions of their own, since one that held them was refused."""

    problem: str = ""
    backoff: Backoff = field(default_factory=_backoff)


class Setbacks:
    """Times are those of a monotonic clock that callers hand in, in seconds."""

    def __init__(self) -> None:
        self._backoff = _backoff()
        self._problem = ""
        self._until = 0.0
        self._alone: dict[Partition, _Alone] = {}

    def failed(self, problem: str, now: float) -> float:
        """A transaction failed for a reason that another one would have met as well. Returns the seconds for
        which no other one begins.
        """
        pause = self._backoff.next_pause()
        self._problem, self._until = problem, now + pause
        return pause

    def left(self, now: float) -> float:
        """Seconds until the next transaction may begin."""
        return max(0.0, self._until - now)

    def part(self, partitions: Collection[Partition]) -> None:
        """A topic refused what these have in a transaction. From now on each has transactions of its own, which
        shows whose records they are, and lets the others go on.
        """
        for partition in partitions:
            self._alone.setdefault(partition, _Alone())

    def alone(self, partition: Partition) -> bool:
        """Whether the partition has transactions of its own."""
        return partition in self._alone

    def refused(self, partition: Partition, problem: str) -> float:
        """A topic refused the partition's own transaction. Returns the seconds for which it waits."""
        alone = self._alone[partition]
        alone.problem = problem
        return alone.backoff.next_pause()

    def committed(self, partitions: Collection[Partition]) -> None:
        """A transaction with these succeeded."""
        self._problem = ""
        self._backoff.reset()
        self.forget(partitions)

    def forget(self, partitions: Collection[Partition]) -> None:
        """These are not ours any more, or nothing is wrong with them."""
        for partition in partitions:
            self._alone.pop(partition, None)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, each with the partition that it concerns, or an empty name."""
        if self._problem and self._backoff.turns >= TOLD_TURNS:
            yield "", f"transactions fail, {self._backoff.turns} in a row: {self._problem}"
        for partition, alone in self._alone.items():
            if alone.problem:
                yield (
                    str(partition),
                    f"{partition}: its transaction is refused, {alone.backoff.turns} times so far, and tried "
                    f"again; the other partitions go on: {alone.problem}",
                )
