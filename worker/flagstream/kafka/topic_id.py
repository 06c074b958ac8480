"""The id of the topic that has a name now: a topic that was deleted and created again has another id."""

import asyncio
from collections.abc import Callable

import structlog

from flagstream.kafka.topics import TopicsNotReady
from flagstream.operate.retry import Backoff, retry_until_ready

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between tries, while the brokers do not answer."""


def differ(before: str, now: str) -> bool:
    """Whether these are the ids of two topics. An id that is not known is empty, and differs from none."""
    return bool(before and now) and before != now


class TopicIdentity:
    """Asks for the topic's id, in a thread. Partitions that ask at the same time share an answer.

    ``ask`` is the blocking call. It raises TopicsNotReady when it should be tried again; meanwhile
    ``problem`` says why, and is empty otherwise.
    """

    def __init__(self, ask: Callable[[], str]) -> None:
        self.problem = ""
        self._ask = ask
        self._asking = asyncio.Lock()
        self._begun = 0
        self._answer = (0, "")

    async def now(self) -> str:
        """Return the topic's id, or "" if the broker does not report one.

        The broker is asked only after this call begins, so the id also covers every record fetched before it:
        Kafka never reuses an id.
        """
        before = self._begun
        async with self._asking:
            if self._answer[0] > before:  # the answer to a question that began later than this call
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
