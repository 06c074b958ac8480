"""The thread in which the enrich stage makes the producer's blocking calls."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from flagstream.kafka.transactions import TransactionalProducer

log = structlog.get_logger(__name__)

T = TypeVar("T")

UNDER_WAY_SECONDS = 10.0
"""A call that has not ended a transaction after so long is a problem; *measured*: 5 to 20 ms."""
HANGS = "Kafka's transaction coordinator does not answer: look at the brokers. It is waited for"


class TransactionThread:
    """Runs one call at a time, in the order of the requests. Used on the event loop."""

    def __init__(self, producer: TransactionalProducer) -> None:
        self._producer = producer
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="enrich-transactions")
        self._since: float | None = None
        self._logged = False

    @property
    def busy(self) -> float:
        """For how many seconds the present call of :meth:`end` is under way; 0 if there is none."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    async def end(self, function: Callable[[], T]) -> T:
        """Run a call that should take milliseconds, such as the end of a transaction."""
        self._since, self._logged = asyncio.get_running_loop().time(), False
        try:
            return await self.run(function)
        finally:
            self._since = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run a call that may take its time."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def log_if_slow(self) -> None:
        """Log, once, that the present call takes too long; called every second or so."""
        if self.busy > UNDER_WAY_SECONDS and not self._logged:
            self._logged = True
            known = next(self._producer.problems(), None)
            hint = known.text if known is not None else HANGS
            log.warning("transaction_under_way", seconds=UNDER_WAY_SECONDS, hint=hint)

    def close(self) -> None:
        """Take no more calls."""
        self._executor.shutdown(wait=False)
