"""What has to be there before a stage can join its group: brokers, topics, flags, the schema registry.

A stage waits for it as long as it takes. Meanwhile the process is unready, and its pages say what is missing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from flagstream.config.settings import Settings
from flagstream.kafka import properties
from flagstream.kafka.earlier_output import NotTold, earlier_output
from flagstream.kafka.topics import TopicFacts, TopicIds, TopicsNotReady, prepare_topics
from flagstream.operate.health import Health, Problem
from flagstream.operate.retry import Backoff, retry_until_ready
from flagstream.topic_formats.registry import RegistryError

log = structlog.get_logger(__name__)
T = TypeVar("T")

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 5.0
"""Pauses between two tries."""


class Prerequisites:
    """Asks for what the stages of a process need. The stages call it when they start, on the event loop.

    With ``facts`` the brokers are not asked about the topics: the built-in broker of the demo cannot answer.
    """

    def __init__(self, settings: Settings, health: Health, facts: TopicFacts | None) -> None:
        self._settings = settings
        self._health = health
        self._facts = facts
        self._admin = properties.admin_properties(settings)
        self._topic_ids = TopicIds(self._admin)
        self._name_was_checked = False

    async def topics(self, stage: str, *names: str) -> TopicFacts:
        """Return what the brokers report about the topics ``names``, once they have all of them."""
        if self._facts is not None:
            return self._facts
        facts = await self.wait_for(
            stage, lambda: prepare_topics(self._admin, self._settings.topics, names), TopicsNotReady
        )
        await self._warn_if_name_is_new()
        return facts

    def topic_id(self, topic: str) -> str:
        """Return the id that ``topic`` has now, or "" if it is not known. Blocks; called in a thread.

        Raises TopicsNotReady if no broker answers.
        """
        if self._facts is not None:
            return self._facts.ids.get(topic, "")
        return self._topic_ids.now(topic)

    async def wait_for(self, stage: str, ask: Callable[[], T], *passing: type[Exception]) -> T:
        """Call ``ask`` in a thread until it returns, and return its answer. After an error of the classes
        ``passing`` it is called again; the problem of ``stage`` is that error meanwhile.
        """

        def failed(error: Exception) -> None:
            problem = _problem(error)
            if self._health.starting.get(stage) != problem:
                log.error("stage_waits", stage=stage, reason=problem.text)
            self._health.starting[stage] = problem

        return await retry_until_ready(ask, passing, failed, Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS))

    async def _warn_if_name_is_new(self) -> None:
        """Once a process: a mistyped name reads and exports everything again, and nothing else shows it."""
        if self._name_was_checked:
            return
        self._name_was_checked = True
        with suppress(NotTold):
            if found := await asyncio.to_thread(earlier_output, self._admin, self._settings):
                log.warning("name_is_new", name=self._settings.name, hint=found)


def _problem(error: Exception) -> Problem:
    match error:
        case TopicsNotReady():
            return Problem(error.kind, str(error))
        case RegistryError():
            return Problem("registry", str(error))
        case _:
            return Problem("flags", str(error))
