"""Logs errors that nothing awaits. Some of them come again by the hundred.

Where no descriptor is left, asyncio reports each of the connections that wait, once a second, with a trace.
"""

import math
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

REMIND_SECONDS = 60.0
"""How often errors of one kind are logged."""


class IgnoredErrors:
    """Logs the first error of a kind at once, and those that follow as one line a minute. A kind is the class
    of the error with the system's number for it. ``clock`` is monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[tuple[str, int | None], tuple[float, int]] = {}

    def report(self, reason: str, error: BaseException | None) -> None:
        """Log ``error``, which ends nothing, if its kind is due; ``reason`` says where it comes from."""
        kind = (type(error).__name__, error.errno if isinstance(error, OSError) else None)
        logged_at, since = self._logged.get(kind, (-math.inf, 0))
        now = self._clock()
        if now - logged_at < REMIND_SECONDS:
            self._logged[kind] = logged_at, since + 1
            return
        self._logged[kind] = now, 0
        log.error("error_ignored", reason=reason, count=since + 1, exc_info=error)
