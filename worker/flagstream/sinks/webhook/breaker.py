"""Keeps one view of an endpoint's health for all partitions that deliver to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flagstream.errors import PartitionStopped, SinkRefused, SinkUnavailable

PROBE_WAIT = 1.0
"""Seconds after which other callers try again while one of them probes."""


class CircuitBreaker:
    """After ``failures`` in a row nobody calls the endpoint for ``pause`` seconds; then one call probes it.

    Without it, each partition would go on calling an endpoint that is known to be down, each with a time-out
    of its own. If an endpoint says how long to wait (``retry_after``), nobody calls it for so long. A refusal
    counts as a sign of life. While nobody calls the endpoint, every attempt raises its last error, so the
    text of a SinkUnavailable that a caller raises must be fit for a log. Several threads use it at once.
    ``clock`` is monotonic.
    """

    def __init__(self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._last = ""
        self._open_until: float | None = None
        self._probing = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Wrap each call of the endpoint. Raises SinkUnavailable instead of calling while the endpoint is
        left alone.
        """
        self._admit()
        try:
            yield
        except (SinkRefused, PartitionStopped):
            self._succeeded()
            raise
        except BaseException as error:
            self._failed(error)
            raise
        else:
            self._succeeded()

    def _admit(self) -> None:
        with self._lock:
            if self._open_until is None:
                return
            left = self._open_until - self._clock()
            if left > 0:
                raise SinkUnavailable(
                    f"the receiver is left alone for {left:.1f} s after {self._reason()}",
                    left,
                    unanswered=False,
                )
            if self._probing:
                raise SinkUnavailable(
                    f"the receiver is being tried after {self._reason()}", PROBE_WAIT, unanswered=False
                )
            self._probing = True

    def _reason(self) -> str:
        count = "a failure" if self._failures == 1 else f"{self._failures} failures in a row, the last"
        return f"{count}: {self._last}"

    def _succeeded(self) -> None:
        with self._lock:
            self._failures, self._open_until, self._probing = 0, None, False

    def _failed(self, error: BaseException) -> None:
        retry_after, text = None, type(error).__name__
        if isinstance(error, SinkUnavailable):
            retry_after, text = error.retry_after, str(error)
        with self._lock:
            self._failures += 1
            self._last = text
            self._probing = False
            pause = max(self._pause if self._failures >= self._allowed else 0.0, retry_after or 0.0)
            if pause:
                self._open_until = self._clock() + pause
