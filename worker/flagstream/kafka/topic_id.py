"""Which topic bears a name now: one that was deleted and created again has another id."""

import asyncio
from collections.abc import Callable

import structlog

from flagstream.kafka.topics import TopicsNotReady
from flagstream.operate.retry import Backoff, retry_until_ready

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between tries, while the brokers do not answer."""


def differ(before: str, now: str) -> bool:
    """Whether these are the ids of two topics. Either is empty where it is not known."""
    return bool(before and now) and before != now


class TopicIdentity:
    """Asks for the topic's id, in a thread; partitions that ask at the same time share an answer.

    ``ask`` is the blocking call; it raises TopicsNotReady when it should be tried again. ``problem`` says so
    meanwhile, and is empty otherwise.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self.problem = ""
        self._ask = ask
        self._asking = asyncio.Lock()
        self._begun = 0
        self._answer = (0, "")

    async def now(self) -> str:
        """The id, or nothing where it is not told. Asked after this was called, so it was that of all records
        that were fetched before: ids never come back.
        """
        before = self._begun
        async with self._asking:
            if self._answer[0] > before:  # an answer to others, who asked later than we
                return self._answer[1]
            self._begun += 1
            number = self._begun
            pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
            found = await retry_until_ready(self._ask, (TopicsNotReady,), self._failed, pauses)
            self.problem = ""
            self._answer = (number, found)
            return found

    def _failed(self, error: TopicsNotReady) -> None:
        if self.problem != str(error):
            log.warning("topic_id_awaited", error=str(error))
        self.problem = str(error)
