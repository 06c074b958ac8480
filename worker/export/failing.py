"""Which calls of a sink fail, since when, and when they are tried again."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """``problem`` of a call that failed; it has failed since ``since`` and is due again at ``again``."""

    problem: str
    since: float
    again: float


class Failing:
    """The calls that fail, by what they do: ``deliver evaluations-3``. Times are those of a monotonic clock
    that callers hand in, in seconds.
    """

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def failed(self, what: str, problem: str, now: float, wait: float) -> None:
        """The call has failed, for the first time or again, and is tried again in ``wait`` seconds."""
        before = self._failures.get(what)
        self._failures[what] = Failure(problem, before.since if before is not None else now, now + wait)

    def over(self, what: str) -> bool:
        """The call has succeeded, or is of no interest any more. Whether it had failed before."""
        return self._failures.pop(what, None) is not None

    def shown(self, now: float) -> Iterator[str]:
        """A line for people on each."""
        for what, failure in self._failures.items():
            left = failure.again - now
            then = f"next try in {span(left)}" if left > 0 else "being tried"
            yield f"{what}: {failure.problem} (for {span(now - failure.since)}, {then})"


def span(seconds: float) -> str:
    """About how long: ``45 s``, ``12 min``, ``30 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
