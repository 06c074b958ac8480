"""Asks the brokers where partitions begin and end now, which a paused consumer does not learn."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flagstream.chunk import Partition
from flagstream.librdkafka_text import LOGGER, words

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 4.0
"""Bound of one of the three requests."""


class Ends(NamedTuple):
    """A partition holds the offsets ``[low, high)``. From ``stable`` on there are records of open
    transactions, and readers wait for the end of those.
    """

    low: int
    stable: int
    high: int


class TopicEnds:
    """Asks for many partitions at once, with three requests. Only one call may run at a time."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self._admin: AdminClient | None = None

    def ask(self, partitions: Collection[Partition]) -> Mapping[Partition, Ends]:
        """Return the ends of those partitions whose brokers answer in time. Blocks."""
        committed, uncommitted = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
        if self._admin is None:
            try:
                self._admin = AdminClient(dict(self._properties), logger=LOGGER)
            except KafkaException as failure:
                log.warning("ends_not_asked", error=words(failure.args[0]))
                return {}
        first: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        last: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        low = self._offsets(partitions, first, uncommitted)
        stable = self._offsets(low, last, committed)
        high = self._offsets(stable, last, uncommitted)
        if high.keys() != set(partitions):
            # librdkafka 2.16 keeps the leaders that it learned first, and goes on asking them with an epoch
            # that is old after a restart of the broker (FENCED_LEADER_EPOCH). A new client learns them again.
            self._admin = None
        return {partition: Ends(low[partition], stable[partition], end) for partition, end in high.items()}

    def _offsets(
        self, partitions: Collection[Partition], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[Partition, int]:
        wanted = {TopicPartition(p.topic, p.index): spec for p in partitions}
        if not wanted or self._admin is None:
            return {}
        answers = self._admin.list_offsets(wanted, isolation_level=isolation, request_timeout=ANSWER_SECONDS)
        found = {}
        for tp, answer in answers.items():
            try:
                offset = int(answer.result(2 * ANSWER_SECONDS).offset)
            except (KafkaException, TimeoutError):
                continue  # not known; librdkafka reports the reason to the consumer
            if offset >= 0:  # it is -1001 where no answer came in time
                found[Partition(tp.topic, tp.partition)] = offset
        return found
