"""A topic of another cluster over a recorded client: what it makes of each answer, and what it asks again."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from flagstream.errors import SinkRefused, SinkRefusesAll, SinkUnavailable
from flagstream.sinks.kafka import other_cluster as module
from flagstream.sinks.kafka.other_cluster import LIMIT_SECONDS, OtherClusterSink
from flagstream.sinks.kafka.records import Produce, Records
from flagstream.sinks.kafka.settings import KafkaSinkSettings

RECORDS = [Produce(b"k", b"%d" % n, n) for n in range(20)]


class Client:
    """Stands in for a Producer: refuses the values in ``answers`` and all that is sent together with them."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig
        self._batch: list[tuple[bytes, Callable[[Any, Any], None]]] = []

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        self._batch.append((value, on_delivery))

    def poll(self, seconds: float) -> None:
        batch, self._batch = self._batch, []
        code = next((self._rig.answers[value] for value, _ in batch if value in self._rig.answers), None)
        for value, report in batch:
            if code is None:
                self._rig.taken.append(value)
            report(None if code is None else KafkaError(code), None)


class Rig:
    """A sink, the values that its clients' broker took, how many clients there were, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[bytes, int] = {}
        self.taken: list[bytes] = []
        self.limits: list[int] = []
        self.records = Records(RECORDS)
        self.now = 0.0
        self.limit = 1_000_000
        monkeypatch.setattr(module, "Producer", self._make)
        self.sink = OtherClusterSink(
            KafkaSinkSettings(topic="copies", bootstrap_servers="there:9092"), lambda: self.now
        )
        monkeypatch.setattr(self.sink, "_topic_limit", lambda: self.limit)

    def deliver(self) -> Any:
        return self.sink.deliver(None, self.records)  # type: ignore[arg-type]

    def _make(self, properties: dict[str, Any], logger: object) -> Client:
        self.limits.append(properties["message.max.bytes"])
        return Client(self)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


@pytest.mark.parametrize("code", [KafkaError.INVALID_RECORD, KafkaError.MSG_SIZE_TOO_LARGE])
def test_one_refused_record_does_not_take_the_others_with_it(rig: Rig, code: int) -> None:
    """The broker refused their batch; by themselves the others are taken, and the error names the one."""
    rig.answers = {b"7": code}

    with pytest.raises(SinkRefused) as reported:
        rig.deliver()

    assert list(reported.value.events or {}) == [7]
    assert rig.taken == [record.value for record in RECORDS if record.offset != 7]


def test_a_topic_that_refuses_everything_condemns_no_record(rig: Rig) -> None:
    """Nothing becomes a dead letter."""
    rig.answers = {record.value: KafkaError.INVALID_RECORD for record in RECORDS}

    with pytest.raises(SinkRefusesAll):
        rig.deliver()


def test_what_is_acknowledged_is_not_sent_again(rig: Rig) -> None:
    """Neither with the records that were refused nor when another try is made."""
    rig.answers = {b"7": KafkaError.INVALID_RECORD}
    for _ in range(3):
        with pytest.raises(SinkRefused):
            rig.deliver()
    rig.answers = {}
    assert rig.deliver().created == len(RECORDS)

    assert sorted(rig.taken) == sorted(record.value for record in RECORDS)


def test_small_windows_that_are_refused_whole_are_counted_together(rig: Rig) -> None:
    """A topic that refuses everything gets to eight records as well where windows hold three."""
    rig.answers = {record.value: KafkaError.POLICY_VIOLATION for record in RECORDS}
    reported = []
    for start in range(0, 9, 3):
        rig.records = Records(RECORDS[start : start + 3])
        with pytest.raises(SinkRefused) as error:
            rig.deliver()
        reported.append(type(error.value))
    assert reported == [SinkRefused, SinkRefused, SinkRefusesAll]


@pytest.mark.parametrize(
    "code",
    [KafkaError._FATAL, KafkaError.UNKNOWN_PRODUCER_ID, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER],
)
def test_a_producer_that_the_brokers_do_not_know_is_made_anew(rig: Rig, code: int) -> None:
    """The brokers forget it after a long rest, for example; its next delivery has another."""
    rig.answers = {b"3": code}
    with pytest.raises(SinkUnavailable):
        rig.deliver()

    rig.answers = {}
    rig.deliver()

    assert len(rig.limits) == 2


def test_the_topics_limit_is_asked_again(rig: Rig) -> None:
    """People raise and lower it while workers run. As long as it stays, so does the producer."""
    rig.deliver()
    for limit in (1_000_000, 5_000_000, 2_000):
        rig.limit, rig.now = limit, rig.now + LIMIT_SECONDS + 1
        rig.deliver()
        rig.deliver()

    assert rig.limits == [1_000_000, 5_000_000, 2_000]


def test_a_record_that_is_suddenly_too_large_is_a_reason_to_ask(rig: Rig) -> None:
    """The next window is cut to the new limit."""
    rig.answers = {b"0": KafkaError.MSG_SIZE_TOO_LARGE}
    with pytest.raises(SinkRefused):
        rig.deliver()
    rig.limit, rig.answers = 4_000, {}

    rig.deliver()

    assert rig.limits == [1_000_000, 1_000_000, 4_000], "of all windows, of the halves, of the next window"

    rig.records = Records(RECORDS)
    rig.deliver()
    assert rig.limits[3:] == []
