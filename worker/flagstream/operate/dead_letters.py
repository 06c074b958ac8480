"""Dead letters in the worker's own log: enough to notice them and to find the first, not a line for each."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog

from flagstream.dead_letters import DeadLetter
from flagstream.operate.health import Problem

SUMMARY_SECONDS = 60.0
"""Between two lines of one reason: a broken producer makes thousands of dead letters a second."""

HINT = "look at their headers in the dead-letter topic, and mend what wrote them"

Summary = dict[str, tuple[int, str]]
"""By reason: how many, and where the first one was."""


def summary(letters: Iterable[DeadLetter]) -> Summary:
    """Return what the log says of ``letters``: the number and the first place by reason."""
    found: Summary = {}
    for letter in letters:
        count, first = found.get(letter.reason, (0, letter.place))
        found[letter.reason] = (count + 1, first)
    return found


def add(to: Summary, more: Mapping[str, tuple[int, str]]) -> None:
    """Count ``more`` into ``to``."""
    for reason, (count, place) in more.items():
        before, first = to.get(reason, (0, place))
        to[reason] = (before + count, first)


class DeadLetterLog:
    """Logs the first dead letters of a reason at once, and what comes later as one line a minute. ``fields``
    say whose they are. Used on the event loop.
    """

    def __init__(self, **fields: Any) -> None:
        self._log = structlog.get_logger(__name__).bind(**fields)
        self._later: Summary = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._episode: Summary = {}

    def problems(self) -> Iterator[Problem]:
        """Yield each reason for which there were dead letters in the last minute or two."""
        for reason, (count, first) in self._episode.items():
            records = "1 record" if count == 1 else f"{count} records"
            yield Problem(
                "dead_letters", f"{reason}: {records} became dead letters, the first {first}; {HINT}"
            )

    def tell(self, found: Mapping[str, tuple[int, str]]) -> None:
        """Called when ``found`` is in the dead-letter topic for good."""
        add(self._later, found)
        add(self._episode, found)
        for reason in found:
            if reason not in self._timers:
                self._write(reason)

    def close(self) -> None:
        """Log what was not logged yet. Called when the process is about to end."""
        for reason in list(self._later):
            self._write(reason)
        for timer in self._timers.values():
            timer.cancel()

    def _write(self, reason: str) -> None:
        if (timer := self._timers.pop(reason, None)) is not None:
            timer.cancel()
        if reason not in self._later:
            self._episode.pop(reason, None)
            return
        count, first = self._later.pop(reason)
        self._log.warning("dead_letters", reason=reason, count=count, first=first, hint=HINT)
        self._timers[reason] = asyncio.get_running_loop().call_later(SUMMARY_SECONDS, self._write, reason)
