"""A transactional producer over recorded clients, whose answers a test decides."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from flagstream.chunk import Partition
from flagstream.kafka import registration, transaction_calls, transaction_recovery
from flagstream.kafka.transactions import TransactionalProducer

OFFSETS = {Partition("ingest", 0): (5, "")}
TIMEOUT = 10.0


def failure(code: int, text: str = "", *, fatal: bool = False, retriable: bool = False) -> KafkaException:
    """An error as librdkafka raises it; one that is neither fatal nor retriable asks for an abort."""
    return KafkaException(
        KafkaError(
            code,
            text or None,
            fatal=fatal,
            retriable=retriable,
            txn_requires_abort=not (fatal or retriable),
        )
    )


class Rig:
    """A producer over recorded clients.

    ``trace`` has the calls that the clients got, each name with the client's number; ``answers`` what they
    raise, call by call; ``sent`` what they were given. Only pauses move the clock. A call that librdkafka may
    never return from has to be made inside of ``bounded``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trace: list[str] = []
        self.answers: dict[str, list[Exception | None]] = {}
        self.now = 1_000.0
        self.pauses: list[float] = []
        self.clients: list[Client] = []
        self.stood_still = False
        self.properties: dict[str, Any] = {}
        self.sent: list[tuple[str, object]] = []
        self.left = 0
        self.during: dict[str, Callable[[], object]] = {}
        self.undelivered: dict[bytes | None, KafkaError] = {}
        self.wrong: dict[str, KafkaError] = {}
        self.bounded = False
        for module in (registration, transaction_calls, transaction_recovery):
            monkeypatch.setattr(module, "bounded", self._bounded)
        self.producer = TransactionalProducer(
            {"transactional.id": "t", "transaction.timeout.ms": TIMEOUT * 1000},
            stable=False,
            make=self._make,
            clock=lambda: self.now,
            sleep=self._sleep,
            stood_still_since=lambda then, seconds: self.stood_still,
        )
        self.producer.open()
        self.trace.clear()

    def fill(self) -> None:
        """A transaction that holds a record for the topic ``out``."""
        self.producer.begin()
        self.producer.produce("out", key=None, value=b"v", headers=[])

    def commit(self) -> None:
        self.producer.commit(OFFSETS, object())

    def _bounded(self, function: Callable[[], object]) -> None:
        self.bounded = True
        try:
            function()
        finally:
            self.bounded = False

    def _make(self, properties: dict[str, Any], logger: object) -> Any:
        self.properties = properties
        self.clients.append(Client(self, len(self.clients) + 1, properties["error_cb"]))
        return self.clients[-1]

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Client:
    """Stands in for a Producer of confluent-kafka."""

    def __init__(self, rig: Rig, number: int, lost_a_broker: Callable[[KafkaError], None]) -> None:
        self._rig, self._number, self.lost_a_broker = rig, number, lost_a_broker
        self.room, self.why = 1_000, KafkaError._QUEUE_FULL
        self.others: dict[int, int] = {}
        """Errors of records that are not ``why``."""
        self.on_poll: Callable[[], object] = lambda: None

    def _called(self, name: str, *, blocks: bool = False) -> None:
        assert self._rig.bounded == blocks, f"{name} may never return, so it needs a bound"
        self._rig.trace.append(f"{name} {self._number}")
        if name in self._rig.during:
            self._rig.during[name]()
        answers = self._rig.answers.get(name, [])
        if answers and (answer := answers.pop(0)) is not None:
            raise answer

    def init_transactions(self, timeout: float) -> None:
        self._called("init", blocks=True)

    def begin_transaction(self) -> None:
        self._called("begin")

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], group: object, wait: float) -> None:
        self._rig.sent += [("offsets", [(tp.topic, tp.partition, tp.offset, tp.metadata) for tp in offsets])]
        self._rig.sent += [("group", group)]
        self._called("offsets", blocks=True)

    def commit_transaction(self, timeout: float) -> None:
        self._called("commit", blocks=True)

    def abort_transaction(self, timeout: float) -> None:
        self._called("abort", blocks=True)

    def produce(self, topic: str, value: bytes | None, key: bytes | None = None, **more: Any) -> None:
        self._rig.sent.append(("record", (topic, value, key, more.get("headers"), more.get("timestamp"))))
        self._called("produce")
        if (delivered := more.get("on_delivery")) is not None:
            delivered(self._rig.undelivered.get(value), None)

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> int:
        """Queues ``room`` records, as librdkafka does: the others get an error each."""
        for index, record in enumerate(records):
            if index >= self.room:
                record["_error"] = KafkaError(self.others.get(index, self.why))
        return min(self.room, len(records))

    def poll(self, timeout: float) -> None:
        """Raises a fatal error, as confluent-kafka does whatever callbacks are set."""
        self.on_poll()
        for answer in self._rig.answers.get("poll", []):
            if answer is not None:
                raise answer

    def flush(self, timeout: float) -> int:
        return self._rig.left

    def list_topics(self, topic: str, timeout: float) -> Any:
        if topic not in self._rig.wrong:
            raise failure(KafkaError._TRANSPORT)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=self._rig.wrong[topic])})
