"""How far the fleet has come, seen from outside: committed offsets and ends of topics."""

from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

ANSWER_SECONDS = 30.0
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Offsets:
    """Looks at one broker. Joins no group and commits nothing."""

    def __init__(self, bootstrap_servers: str, partitions: int) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._partitions = range(partitions)
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._consumers: dict[str, Consumer] = {}

    def committed(self, group: str, topic: str) -> dict[int, TopicPartition]:
        """Committed offset and metadata of each partition; offset -1001 where there is none. What a
        transaction has sent and not committed does not count."""
        if group not in self._consumers:
            # read_uncommitted, or it would wait for pending transactions
            self._consumers[group] = self._consumer(group, "read_uncommitted")
        wanted = [TopicPartition(topic, partition) for partition in self._partitions]
        return {found.partition: found for found in self._consumers[group].committed(wanted, ANSWER_SECONDS)}

    def ends(self, topic: str, *, stable: bool = False) -> dict[int, int]:
        """The end of each partition; with `stable` its first open transaction, if that is before."""
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(topic, partition): LATEST for partition in self._partitions}
        answers = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=ANSWER_SECONDS)
        return {tp.partition: answer.result(ANSWER_SECONDS).offset for tp, answer in answers.items()}

    def behind_last_record(self, topic: str, partition: int, end: int) -> int:
        """Return the offset after the last record that readers see: markers and aborted records may
        follow."""
        consumer = self._consumer("nobody", "read_committed")
        try:
            back = 100
            while True:
                start = max(0, end - back)
                if found := _last(consumer, TopicPartition(topic, partition, start)):
                    return found
                if start == 0:
                    return 0
                back *= 10
        finally:
            consumer.close()

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()

    def _consumer(self, group: str, isolation: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )


def _last(consumer: Consumer, place: TopicPartition) -> int:
    """Return the offset after the last record from `place` on, 0 if there is none."""
    consumer.assign([place])
    last = 0
    while True:
        messages = consumer.consume(1000, timeout=0.1) or consumer.consume(1, timeout=ANSWER_SECONDS)
        if not messages:
            raise TimeoutError(f"{place.topic}-{place.partition}: no answer for {ANSWER_SECONDS:g} s")
        for message in messages:
            error = message.error()
            if error is None:
                last = int(message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                return last
