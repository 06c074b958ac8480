"""Exports to a topic of the worker's own cluster. Records and offset are one transaction: exactly once."""

from collections.abc import Iterator, Mapping, Sequence

from flagstream.chunk import Partition
from flagstream.outcomes import Proof
from flagstream.record_limits import DEFAULT_LIMIT
from flagstream.sinks.kafka.records import Produce, RecordEncoder, preview
from flagstream.sinks.kafka.settings import KafkaSinkSettings, fingerprint
from flagstream.sinks.protocol import Preview, Transaction
from flagstream.window import Manifest


class TopicSink:
    """Implements :class:`~flagstream.sinks.protocol.ConfiguredTransactionalSink` with a topic of the worker's
    own cluster.
    """

    unit = "records"

    def __init__(self, settings: KafkaSinkSettings) -> None:
        self.topic = settings.topic
        self.partitioner: str = settings.partitioner
        self.limit = DEFAULT_LIMIT
        self._refused: dict[Partition, tuple[int, dict[tuple[bytes, bytes], str]]] = {}
        self.fingerprint = fingerprint(settings)
        self._event_ids = settings.event_ids

    def begin(self, partition: Partition, start: int) -> RecordEncoder:
        _, refused = self._refused.get(partition, (0, {}))
        return RecordEncoder(partition, event_ids=self._event_ids, limit=self.limit, refused=refused)

    def refuse(self, partition: Partition, until: int, refused: Mapping[tuple[bytes, bytes], str]) -> None:
        """Reject these keys and values from now on, with the reason, in addition to those that are known,
        until the offset ``until`` of the partition is committed. The engine calls it after the topic refused
        them.
        """
        last, known = self._refused.get(partition, (0, {}))
        self._refused[partition] = (max(last, until), {**known, **refused})

    def committed(self, partition: Partition, offset: int) -> None:
        """Forget the refusals before ``offset``, which the engine has just committed."""
        if partition in self._refused and offset >= self._refused[partition][0]:
            del self._refused[partition]

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: Sequence[Produce]) -> None:
        for record in payload:
            transaction.produce(self.topic, key=record.key, value=record.value, headers=[])

    def probe(self) -> Iterator[Proof]:
        why = "a worker writes in the transaction that commits offsets"
        yield Proof("write", "unproved", why)

    def preview(self, manifest: Manifest, payload: Sequence[Produce]) -> Preview:
        return preview(self.topic, payload)
