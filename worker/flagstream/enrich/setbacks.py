"""What failed transactions teach the enrich stage: how long to pause, and which partitions to keep apart."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from flagstream.chunk import Partition
from flagstream.operate.health import Problem
from flagstream.operate.retry import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds that pass between one transaction that fails and the next one."""
ALONE_SECONDS = 60.0
"""How long after the last refusal a partition keeps transactions of its own: bad records seldom come one by
one.
"""
PROBLEM_TURNS = 2
"""So many failed transactions in a row are a problem: one may be rolled back in any rebalance."""


def _backoff() -> Backoff:
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE)


@dataclass(slots=True)
class _Alone:
    """A partition that has transactions of its own, because one that held its records was refused."""

    refused_at: float
    problem: str = ""
    backoff: Backoff = field(default_factory=_backoff)


class Setbacks:
    """Keeps the pauses, the partitions that are kept apart, and what is wrong with them.

    Callers hand the time in: seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._backoff = _backoff()
        self._problem = ""
        self._until = 0.0
        self._alone: dict[Partition, _Alone] = {}

    def failed(self, problem: str, now: float) -> float:
        """A transaction failed for a reason that concerns every transaction. Returns the seconds for which
        none begins.
        """
        pause = self._backoff.next_pause()
        self._problem, self._until = problem, now + pause
        return pause

    def left(self, now: float) -> float:
        """Return the seconds until the next transaction may begin."""
        return max(0.0, self._until - now)

    def part(self, partitions: Collection[Partition], now: float) -> None:
        """A topic refused a transaction that held records of ``partitions``. From now on each of them has
        transactions of its own. That shows whose records were refused, and lets the others go on.
        """
        for partition in partitions:
            self._alone.setdefault(partition, _Alone(now)).refused_at = now

    def alone(self, partition: Partition) -> bool:
        """Return whether the partition has transactions of its own."""
        return partition in self._alone

    def refused(self, partition: Partition, problem: str, now: float) -> float:
        """A topic refused the partition's own transaction. Returns the seconds for which the partition waits.

        The others wait a little as well. They wait longer while no transaction succeeds: then a topic refuses
        them all.
        """
        self.part([partition], now)
        alone = self._alone[partition]
        alone.problem = problem
        self._until = now + self._backoff.next_pause()
        return alone.backoff.next_pause()

    def committed(self, partitions: Collection[Partition], now: float) -> None:
        """A transaction with records of ``partitions`` was committed."""
        self._problem = ""
        self._backoff.reset()
        for partition in partitions:
            if (alone := self._alone.get(partition)) is not None:
                alone.problem = ""
                alone.backoff.reset()
                if now - alone.refused_at > ALONE_SECONDS:
                    del self._alone[partition]

    def forget(self, partitions: Collection[Partition]) -> None:
        """These partitions are not held any more. A problem that concerns others too comes back with the next
        transaction.
        """
        self._problem = ""
        for partition in partitions:
            self._alone.pop(partition, None)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong now."""
        if self._problem and self._backoff.turns >= PROBLEM_TURNS:
            text = f"transactions fail, {self._backoff.turns} in a row, and are tried again: {self._problem}"
            yield Problem("transaction", text)
        for partition, alone in self._alone.items():
            if alone.problem:
                text = (
                    f"{partition}: its transactions are refused, {alone.backoff.turns} in a row, and tried "
                    f"again; other partitions go on: {alone.problem}"
                )
                yield Problem("transaction", text, str(partition))
