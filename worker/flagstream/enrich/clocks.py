"""Events whose times cannot be right: a clock that is wrong where they were made."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec
import structlog

from flagstream.enrich.transform import LARGEST_SECOND
from flagstream.operate.health import Problem

log = structlog.get_logger(__name__)

AHEAD_SECONDS = 600.0
"""An event may be so far ahead: clocks that are looked after differ by less."""
BEFORE = datetime(2010, 1, 1, tzinfo=UTC).timestamp()
"""No flag was evaluated then: a clock that was never set counts from 1970 or 2000."""
LEFT_OUT = 86_400.0
"""A time so near to 0 means that the application left the time out."""
REMIND_SECONDS = 60.0
"""Seconds between two log lines, and for how long after the last such event it counts as a problem."""
SAMPLE = 8
"""How many events of a chunk are looked at: an application with a wrong clock sends more than one."""
HINT = "set the clock of the application that sends them; objects in a layout by time and retention go by it"


class _Dated(msgspec.Struct, gc=False):
    creationDate: object = None


_decode = msgspec.json.Decoder(_Dated).decode


class EventClocks:
    """Looks at some events of each chunk. ``clock`` is monotonic, ``now`` the time of day, in seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._now = now
        self._seen: tuple[float, str] | None = None
        self._logged_at: float | None = None

    def look(self, place: str, texts: Iterable[object]) -> None:
        """Look at events (JSON) of a chunk that begins at ``place``; other texts are skipped."""
        now = self._now()
        for text in texts:
            try:
                seconds = _decode(text).creationDate  # type: ignore[arg-type]
            except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
                continue
            if not isinstance(seconds, int | float) or isinstance(seconds, bool):
                continue
            if seconds > LARGEST_SECOND:  # in finer units: the transform takes its first ten digits
                seconds = int(str(int(seconds))[:10])
            if seconds > now + AHEAD_SECONDS or (seconds < BEFORE and abs(seconds) > LEFT_OUT):
                self._found(place, seconds)
                return

    def problems(self) -> Iterator[Problem]:
        """Yield the problem if such an event was seen in the last minute."""
        if self._seen is not None and self._clock() - self._seen[0] <= REMIND_SECONDS:
            yield Problem("event_clock", f"{self._seen[1]}; {HINT}")

    def _found(self, place: str, seconds: float) -> None:
        try:
            says = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
        except (ValueError, OverflowError, OSError):  # no calendar has it
            says = "a time before the year 1"
        text = f"events at {place} or shortly after say that they were made at {says}"
        at = self._clock()
        self._seen = (at, text)
        if self._logged_at is None or at - self._logged_at >= REMIND_SECONDS:
            self._logged_at = at
            log.warning("event_clock", source="enrich", problem=text, hint=HINT)
