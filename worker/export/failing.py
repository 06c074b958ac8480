"""Which calls of a sink fail, since when, and when they are tried again."""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from worker.chunk import Partition
from worker.operate.health import Problem


@dataclass(frozen=True, slots=True)
class Failure:
    """``problem`` of a call that failed; it has failed since ``since`` and is due again at ``again``."""

    kind: str
    problem: str
    since: float
    again: float


class Failing:
    """The calls that fail, by what they do (``deliver``) and for which partition, where it is for one.
    Times are those of a monotonic clock that callers hand in, in seconds.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, Partition | None], Failure] = {}

    def failed(
        self, what: str, partition: Partition | None, kind: str, problem: str, now: float, wait: float
    ) -> None:
        """Note that the call has failed, for the first time or again, and is tried again in ``wait`` seconds.
        ``kind`` is one of :data:`worker.operate.health.KINDS`.
        """
        before = self._failures.get((what, partition))
        since = before.since if before is not None else now
        self._failures[what, partition] = Failure(kind, problem, since, now + wait)

    def over(self, what: str, partition: Partition | None) -> bool:
        """Forget the call: it has succeeded, or is of no interest any more. Return whether it had failed."""
        return self._failures.pop((what, partition), None) is not None

    def forget(self, partition: Partition) -> None:
        """Forget all calls of ``partition``."""
        for key in [key for key in self._failures if key[1] == partition]:
            del self._failures[key]

    def problems(self, now: float, leaving_out: Container[Partition] = ()) -> Iterator[Problem]:
        """Yield a problem for each, but for those of some partitions."""
        for (what, partition), failure in self._failures.items():
            if partition in leaving_out:
                continue
            left = failure.again - now
            then = f"next try in {span(left)}" if left > 0 else "being tried"
            text = f"{called(what, partition)}: {failure.problem} (for {span(now - failure.since)}, {then})"
            yield Problem(failure.kind, text, str(partition or ""))


def called(what: str, partition: Partition | None) -> str:
    """Return the name of a call for people: ``deliver evaluations-3``, or ``open``."""
    return f"{what} {partition}" if partition else what


def span(seconds: float) -> str:
    """About how long: ``45 s``, ``12 min``, ``30 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
