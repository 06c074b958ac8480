"""What librdkafka reports: errors, with hints for people, and how far it has looked."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError

from flagstream.chunk import Partition
from flagstream.errors import ExitCode, Fatal
from flagstream.kafka.recovery import recovered
from flagstream.kafka.silence import BrokerSilence
from flagstream.librdkafka_text import words
from flagstream.operate import metrics

log = structlog.get_logger(__name__)

REMIND_SECONDS = 60.0
"""Seconds between two log lines of the same error: librdkafka reports it with every try to connect. A
recovery in between does not make it new, or a cluster that flickers would fill the log.
"""

HINTS = {
    KafkaError._ALL_BROKERS_DOWN: "no broker answers at kafka.bootstrap_servers: "
    "look whether they run and can be reached; retried until one does",
    KafkaError._TRANSPORT: "a broker cannot be reached: look whether it runs; retried until it can",
    KafkaError._RESOLVE: "a broker's name does not resolve: look at "
    "kafka.bootstrap_servers and the DNS; retried until it does",
    KafkaError._AUTHENTICATION: "check the credentials in kafka.properties",
    KafkaError._SSL: "check the TLS settings in kafka.properties",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic {topic} does not exist; create it, or set "
    "topics.create = true",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not read the topic {topic}; give it the right to",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group {group}; give it the "
    "right to",
}


_INSTANCE_TAKEN = (KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID)
"""These come as fatal errors (_FATAL) that name their own reason in the text only."""


def raise_if_fatal(error: KafkaError | None) -> None:
    """Raise Fatal, with the right exit code, for an error that no retry mends."""
    if error is None:
        return
    if any(KafkaError(code).str() in words(error) for code in _INSTANCE_TAKEN):
        raise Fatal(ExitCode.FENCED, f"another process uses our group.instance.id: {words(error)}")
    if error.fatal() or error.code() == KafkaError._FATAL:
        raise Fatal(ExitCode.KAFKA, f"{error.name()}: {words(error)}")


@dataclass(slots=True)
class _Trouble:
    """An error that is not known to be over: when librdkafka last reported it, and whether it was logged."""

    problem: str
    reported_at: float
    logged: bool
    positions: Mapping[Partition, int] | None = None
    """At the first statistics after it."""


class Reports:
    """What librdkafka reports to the consumer ``name`` of ``topic`` in ``group``, in the consumer's thread.

    ``member``: the consumer is a member of the group. ``clock`` is monotonic. ``looked`` is called with a
    partition and the offset before which librdkafka has handed over all records.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        clock: Callable[[], float] = time.monotonic,
        looked: Callable[[Partition, int], None] = lambda partition, offset: None,
        group: str = "",
    ) -> None:
        self._group = group
        self._looked = looked
        self.member = False
        self._name = name
        self._topic = topic
        self._clock = clock
        self._fatal: KafkaError | None = None
        self._troubles: dict[int, _Trouble] = {}
        self._logged: dict[int, float] = {}
        self._born = math.inf
        self._silence = BrokerSilence(clock)
        self._log = log.bind(source=name, topic=topic)

    @property
    def problem(self) -> str:
        """What is wrong between this consumer and Kafka, for people; empty if nothing is known."""
        troubles = dict(self._troubles)
        # If all brokers are away, each attempt to reach one fails as well, which says less.
        last = max(
            troubles, key=lambda code: (code != KafkaError._TRANSPORT, troubles[code].reported_at), default=0
        )
        return troubles[last].problem if troubles else self._silence.problem

    def raise_if_fatal(self) -> None:
        """Raise Fatal if librdkafka has reported an error that ends the process."""
        raise_if_fatal(self._fatal)

    def error(self, error: KafkaError) -> None:
        """librdkafka reports ``error``. It goes on trying by itself, but people have to see why nothing
        moves.
        """
        code = error.code()
        if code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            self._fatal = error
            return
        hint = HINTS.get(code, "retried until it passes").format(topic=self._topic, group=self._group)
        metrics.kafka_error(self._name, error.name())
        now = self._clock()
        due = now - self._logged.get(code, -math.inf) >= REMIND_SECONDS
        if due:
            self._logged[code] = now
            self._log.error("kafka_error", error=f"{error.name()}: {words(error)}", hint=hint)
        before = self._troubles.get(code)
        logged = due or (before is not None and before.logged)
        self._troubles[code] = _Trouble(f"{error.name()}: {hint}", now, logged)

    def statistics(self, text: str, positions: Mapping[Partition, int]) -> None:
        """Find out from the statistics how far librdkafka has looked, and whether errors are over.

        ``positions`` has the next offset to read of each partition.
        """
        statistics = json.loads(text)
        self.member = self.member or statistics.get("cgrp", {}).get("join_state") == "steady"
        self._look_for_recovery(statistics, positions)
        self._look_for_silence(statistics.get("brokers", {}))
        partitions = statistics.get("topics", {}).get(self._topic, {}).get("partitions", {})
        # Each partition reports the size of the queue that all share.
        held = max((found.get("fetchq_size", 0) for found in partitions.values()), default=0)
        metrics.WAITING_MEMORY.labels(self._name, "fetched").set(held)
        for index, found in partitions.items():
            partition = Partition(self._topic, int(index))
            if partition in positions and found["fetchq_cnt"] == 0 and found["next_offset"] >= 0:
                self._looked(partition, found["next_offset"])

    def _look_for_silence(self, brokers: Mapping[str, Any]) -> None:
        before = self._silence.problem
        self._silence.observe(brokers)
        if self._silence.problem and not before:
            self._log.warning("broker_silent", problem=self._silence.problem)
        elif before and not self._silence.problem:
            self._log.info("broker_answers")

    def _look_for_recovery(self, statistics: Mapping[str, Any], positions: Mapping[Partition, int]) -> None:
        # Statistics wait while the thread does, so they may be old. The freshest of all samples shows when
        # the client was made.
        age = statistics["age"] / 1e6
        self._born = min(self._born, self._clock() - age)
        for code, trouble in list(self._troubles.items()):
            since = self._born + age - trouble.reported_at
            if since <= 0:
                continue
            before = trouble.positions = trouble.positions or dict(positions)
            moved = any(offset > before.get(partition, offset) for partition, offset in positions.items())
            held = [partition.index for partition in positions]
            if recovered(code, since, statistics, self._topic, held, moved=moved):
                del self._troubles[code]
                if trouble.logged:
                    self._log.info("kafka_recovered", problem=trouble.problem)
