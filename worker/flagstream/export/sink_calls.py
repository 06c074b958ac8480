"""Calls of a sink, each in a thread and repeated until it succeeds."""

import asyncio
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import structlog

from flagstream.chunk import Partition
from flagstream.errors import PartitionStopped, SinkError, SinkRefused, SinkRefusesAll, SinkUnavailable
from flagstream.export.denials import Denials
from flagstream.export.retry_status import HANGS, HINTS, UNDER_WAY_SECONDS, RetryStatus, called
from flagstream.kafka.tenure import Tenure
from flagstream.operate import metrics
from flagstream.operate.retry import Backoff
from flagstream.sinks.settings import SinkSettings
from flagstream.units import format_seconds

log = structlog.get_logger(__name__)
T = TypeVar("T")

DELIVERIES = 8
"""Calls of the sink at a time: threads that mostly wait for the network."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between tries of a failing sink. The pause doubles each time, with jitter, so that the workers of a
fleet do not try at the same moment.
"""
STALE_PAUSE = 0.05
"""Seconds between two looks whether the group may have given the partition away."""


class SinkCalls:
    """Calls one sink for all partitions. Used on the event loop; the sink's methods run in threads.

    ``status`` says which calls are under way and which fail.
    """

    def __init__(self, name: str, settings: SinkSettings) -> None:
        self.status = RetryStatus()
        self._name = name
        self._settings = settings
        self._denials = Denials(settings.refused_after)
        self._threads = ThreadPoolExecutor(DELIVERIES, thread_name_prefix=f"sink-{name}")
        self._opened = asyncio.Event()
        self._hurry = asyncio.Event()
        self._log = log.bind(sink=name)

    @property
    def opened(self) -> bool:
        """Whether the sink was opened."""
        return self._opened.is_set()

    async def open(self, function: Callable[[], None]) -> None:
        """Open the sink. Calls for partitions wait until this has returned."""
        await self._until_done("open", None, function)
        self._opened.set()

    async def call_sink(self, what: str, tenure: Tenure, function: Callable[[], T]) -> T:
        """Call the sink for a partition until it succeeds, backing off for as long as it takes.

        Raises PartitionStopped; SinkRefused for a delivery if refused windows become dead
        letters.
        """
        await self._opened.wait()
        return await self._until_done(what, tenure, function)

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Do work that would hold up the event loop, and that nothing outside can keep from succeeding."""
        await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def pause(self, seconds: float) -> None:
        """Wait before the next try, until a person asks for it (:meth:`hurry`)."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    def hurry(self) -> None:
        """Try at once whatever waits to be tried again."""
        self._hurry.set()
        self._hurry = asyncio.Event()

    def log_slow(self) -> None:
        """Log each call that does not come back, once. Called every second or so."""
        for call in self.status.slow(asyncio.get_running_loop().time()):
            self._log.warning("delivery_under_way", what=call, seconds=UNDER_WAY_SECONDS, hint=HANGS)

    def forget(self, partition: Partition) -> None:
        """Forget how long the sink has denied ``partition``, which is not ours any more."""
        self._denials.over(partition)

    def close(self) -> None:
        """Start no further call. One that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _until_done(self, what: str, tenure: Tenure | None, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        partition = tenure.partition if tenure is not None else None
        while True:
            # No call starts while the group may have given the partition away.
            while tenure is not None and not tenure.fresh:  # noqa: ASYNC110  # a clock, nothing sets it
                await asyncio.sleep(STALE_PAUSE)
            try:
                began = loop.time()
                self.status.begun(what, partition, began)
                answer = await loop.run_in_executor(self._threads, function)
            except PartitionStopped:
                self.status.over(what, partition)
                raise
            except Exception as failure:
                error = failure if isinstance(failure, SinkError) else _unforeseen(failure)
                if what == "deliver" and partition is not None and self._counts(partition, error):
                    metrics.DELIVERY_FAILURES.labels(self._name, "refused").inc()
                    raise
                wait = backoff.next_pause()
                if isinstance(error, SinkUnavailable) and error.retry_after is not None:
                    wait = error.retry_after
                self._failed(what, partition, error, wait)
            else:
                if what == "deliver" and partition is not None:
                    self._denials.over(partition)
                self._succeeded(what, partition, loop.time() - began)
                return answer
            await self.pause(wait)

    def _counts(self, partition: Partition, error: SinkError) -> bool:
        """Return whether the window that was refused with ``error`` becomes dead letters."""
        if not isinstance(error, SinkRefused) or isinstance(error, SinkRefusesAll):
            self._denials.over(partition)
            return False
        counts = not error.denied or self._denials.counts(partition, asyncio.get_running_loop().time())
        return counts and self._settings.on_refused == "dead_letter"

    def _failed(self, what: str, partition: Partition | None, error: SinkError, wait: float) -> None:
        kind = "refused" if isinstance(error, SinkRefused) else "unavailable"
        text = str(error)
        settings = self._settings
        if isinstance(error, SinkRefused) and error.denied and settings.on_refused == "dead_letter":
            text += f"; windows become dead letters if this lasts {format_seconds(settings.refused_after)}"
        now = asyncio.get_running_loop().time()
        self.status.failed(what, partition, f"sink_{kind}", f"{kind}: {text}", now, wait)
        metrics.DELIVERY_FAILURES.labels(self._name, kind).inc()
        facts = {"what": called(what, partition), "kind": kind, "error": text, "retry_in": round(wait, 2)}
        facts["hint"] = HINTS[f"sink_{kind}"]
        if kind == "refused":  # a person has to act
            self._log.error("sink_failed", **facts)
        else:
            self._log.warning("sink_failed", **facts)

    def _succeeded(self, what: str, partition: Partition | None, seconds: float) -> None:
        if self.status.over(what, partition):
            self._log.info("sink_recovered", what=called(what, partition))
        if what == "deliver":
            metrics.DELIVERY_SECONDS.labels(self._name).observe(seconds)
        self._log.debug("sink_called", what=called(what, partition), seconds=round(seconds, 3))


def _unforeseen(failure: Exception) -> SinkUnavailable:
    """Return an error that names ``failure`` and where it was raised, without its text: that is a library's,
    and may quote a secret.
    """
    at = traceback.extract_tb(failure.__traceback__)[-1]
    return SinkUnavailable(
        f"{type(failure).__name__}, which the sink did not foresee, at {at.filename}:{at.lineno}"
    )
