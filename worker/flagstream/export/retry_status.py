"""Which calls of a sink are under way and which fail, since when, and when they are tried again."""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from flagstream.chunk import Partition
from flagstream.operate.health import Problem


@dataclass(frozen=True, slots=True)
class Failure:
    """``problem`` of a call that failed; it has failed since ``since`` and is due again at ``again``."""

    kind: str
    problem: str
    since: float
    again: float


UNDER_WAY_SECONDS = 10.0
"""After which a call that has not come back is a problem. A delivery takes well under a second as a rule; the
time-outs of clients, with their retries, come after minutes.
"""


HINTS = {
    "sink_refused": "look at the rights and settings of the sink; SIGHUP tries it again at once",
    "sink_unavailable": "look whether the sink is up and has room; it is tried again by itself",
    "transaction": "look at the brokers; it is tried again by itself",
}
"""What a person can do, by the kind of the problem."""
HANGS = "the sink hangs or is slow: look whether it works. The call is waited for"


class RetryStatus:
    """The calls that are under way or fail, by what they do (``deliver``) and for which partition, where it
    is for one. Times are those of a monotonic clock that callers hand in, in seconds.
    """

    def __init__(self) -> None:
        self._failures: dict[tuple[str, Partition | None], Failure] = {}
        self._begun: dict[tuple[str, Partition | None], float] = {}
        self._told: set[tuple[str, Partition | None]] = set()

    def begun(self, what: str, partition: Partition | None, now: float) -> None:
        """Note that the call is under way."""
        self._begun[what, partition] = now

    def under_way(self, now: float) -> dict[Partition | None, float]:
        """Return for how many seconds each partition has waited for its call. None: all of them wait."""
        return {partition: now - begun for (_, partition), begun in self._begun.items()}

    def slow(self, now: float) -> Iterator[str]:
        """Yield each call that has become a problem because it does not come back, once."""
        for key, begun in self._begun.items():
            if now - begun > UNDER_WAY_SECONDS and key not in self._told:
                self._told.add(key)
                yield called(*key)

    def failed(
        self, what: str, partition: Partition | None, kind: str, problem: str, now: float, wait: float
    ) -> None:
        """Note that the call has failed, for the first time or again, and is tried again in ``wait`` seconds.
        ``kind`` is one of :data:`flagstream.operate.health.KINDS`.
        """
        self._back(what, partition)
        before = self._failures.get((what, partition))
        since = before.since if before is not None else now
        self._failures[what, partition] = Failure(kind, problem, since, now + wait)

    def over(self, what: str, partition: Partition | None) -> bool:
        """Forget the call: it has succeeded, or is of no interest any more. Return whether it had failed."""
        self._back(what, partition)
        return self._failures.pop((what, partition), None) is not None

    def forget(self, partition: Partition) -> None:
        """Forget all calls of ``partition``, also one that is under way: nobody waits for it any more."""
        for what, other in [*self._failures, *self._begun]:
            if other == partition:
                self.over(what, partition)

    def _back(self, what: str, partition: Partition | None) -> None:
        self._begun.pop((what, partition), None)
        self._told.discard((what, partition))

    def problems(self, now: float, leaving_out: Container[Partition] = ()) -> Iterator[Problem]:
        """Yield one problem for each call that fails or does not come back, but for those of some
        partitions.
        """
        for (what, partition), failure in self._failures.items():
            if partition in leaving_out:
                continue
            left = failure.again - now
            then = f"next try in {span(left)}" if left > 0 else "being tried"
            text = f"{called(what, partition)}: {failure.problem} (for {span(now - failure.since)}, {then})"
            text += f"; {HINTS[failure.kind]}"
            yield Problem(failure.kind, text, str(partition or ""))
        for (what, partition), begun in self._begun.items():
            slow = now - begun > UNDER_WAY_SECONDS
            if slow and partition not in leaving_out and (what, partition) not in self._failures:
                text = f"{called(what, partition)}: no answer for {span(now - begun)}; {HANGS}"
                yield Problem("delivery_under_way", text, str(partition or ""))


def called(what: str, partition: Partition | None) -> str:
    """Return the name of a call for people: ``deliver evaluations-3``, or ``open``."""
    return f"{what} {partition}" if partition else what


def span(seconds: float) -> str:
    """About how long: ``45 s``, ``12 min``, ``30 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
