"""The transactional producer over a recorded client: what each error of librdkafka makes of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagstream.chunk import Partition
from flagstream.errors import ExitCode, Fatal, TransactionAborted, TransactionUncertain
from flagstream.kafka import transactions
from flagstream.kafka.transactions import (
    NotQueued,
    QueueFull,
    RecordTooLarge,
    TransactionalProducer,
    TransactionRefused,
)

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
    """A producer, the calls that its clients got (each name with the client's number), what they answer, and
    a clock that only pauses move.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trace: list[str] = []
        self.answers: dict[str, list[Exception | None]] = {}
        self.now = 1_000.0
        self.pauses: list[float] = []
        self.clients: list[Client] = []
        self.stood_still = False
        self.properties: dict[str, Any] = {}
        self.wrong: dict[str, KafkaError] = {}
        monkeypatch.setattr(transactions, "bounded", lambda function: function())
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

    def _called(self, name: str) -> None:
        self._rig.trace.append(f"{name} {self._number}")
        answers = self._rig.answers.get(name, [])
        if answers and (answer := answers.pop(0)) is not None:
            raise answer

    def init_transactions(self, timeout: float) -> None:
        self._called("init")

    def begin_transaction(self) -> None:
        self._called("begin")

    def send_offsets_to_transaction(self, *args: object) -> None:
        self._called("offsets")

    def commit_transaction(self, timeout: float) -> None:
        self._called("commit")

    def abort_transaction(self, timeout: float) -> None:
        self._called("abort")

    def produce(self, *args: object, **kwargs: object) -> None:
        self._called("produce")

    def produce_batch(self, topic: str, records: list[dict[str, Any]]) -> int:
        """Queues ``room`` records, as librdkafka does: the others get an error each."""
        for record in records[self.room :]:
            record["_error"] = KafkaError(self.why)
        return min(self.room, len(records))

    def poll(self, timeout: float) -> None:
        """Raises a fatal error, as confluent-kafka does whatever callbacks are set."""
        for answer in self._rig.answers.get("poll", []):
            if answer is not None:
                raise answer

    def flush(self, timeout: float) -> int:
        return 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        if topic not in self._rig.wrong:
            raise failure(KafkaError._TRANSPORT)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=self._rig.wrong[topic])})


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_commit_is_two_calls(rig: Rig) -> None:
    """Offsets, then the commit, of one client."""
    rig.fill()
    rig.commit()

    assert rig.trace == ["begin 1", "produce 1", "offsets 1", "commit 1"]


@pytest.mark.parametrize(
    "code",
    [KafkaError.INVALID_PRODUCER_ID_MAPPING, KafkaError.UNKNOWN_PRODUCER_ID, KafkaError.INVALID_TXN_STATE],
)
@pytest.mark.parametrize("fatal", [False, True])
def test_a_producer_that_the_brokers_do_not_know_is_registered_anew(rig: Rig, code: int, fatal: bool) -> None:
    """Its id has expired, or a failover has forgotten it: a new client takes the id, without another word to
    the old one, and the next transaction works."""
    rig.answers = {"offsets": [failure(code, fatal=fatal)]}
    rig.fill()

    with pytest.raises(TransactionAborted):
        rig.commit()
    rig.fill()
    rig.commit()

    assert rig.trace[2:5] == ["offsets 1", "init 2", "begin 2"]
    assert rig.trace[-1] == "commit 2"


@pytest.mark.parametrize("text", ["invalid state", "the request timed out"])
def test_only_the_offsets_tell_of_a_commit_that_ended_in_an_unknown_state(rig: Rig, text: str) -> None:
    """It may have been committed before the coordinator failed over, whatever topic the text seems to
    name.
    """
    rig.answers = {"commit": [failure(KafkaError.INVALID_TXN_STATE, text, fatal=True)]}
    rig.fill()

    with pytest.raises(TransactionUncertain):
        rig.commit()

    assert rig.trace[-1] == "init 2"


def test_the_first_error_is_the_one_that_is_told(rig: Rig) -> None:
    """Without the right to write, nothing is added to the transaction, and its abort fails fatally, for Kafka
    knows of none. The message names the right and the topic."""
    rig.answers = {
        "commit": [failure(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Failed to add partition(s)")],
        "abort": [failure(KafkaError.INVALID_TXN_STATE, fatal=True)],
    }
    rig.fill()

    with pytest.raises(
        TransactionRefused, match=r"may not write \(WRITE\) to out.*TOPIC_AUTHORIZATION"
    ) as told:
        rig.commit()

    assert not told.value.of_a_record
    assert rig.trace[-2:] == ["abort 1", "init 2"]


def test_what_broke_a_transaction_while_it_was_filled_is_told_by_the_abort(rig: Rig) -> None:
    """Only an attempt to commit reveals it."""
    rig.answers = {
        "produce": [None, failure(KafkaError._STATE)],
        "commit": [failure(KafkaError.INVALID_TIMESTAMP, "ProduceRequest for out [0] failed")],
    }
    rig.fill()
    with pytest.raises(NotQueued):
        rig.producer.produce("out", key=None, value=b"v", headers=[])

    with pytest.raises(TransactionRefused, match="INVALID_TIMESTAMP") as told:
        rig.producer.abort()

    assert told.value.of_a_record
    assert rig.trace[-3:] == ["commit 1", "abort 1", "init 2"], "or the next batch would be out of order"
    rig.fill()
    rig.producer.abort()  # it is over


def test_a_delivery_that_fails_while_offsets_are_sent_is_told(rig: Rig) -> None:
    """librdkafka says only that the state is wrong."""
    rig.answers = {
        "offsets": [failure(KafkaError._STATE, "Failed to commit offsets")],
        "commit": [failure(KafkaError.INVALID_RECORD, "ProduceRequest for out [0] failed")],
    }
    rig.fill()

    with pytest.raises(TransactionRefused, match="INVALID_RECORD"):
        rig.commit()

    assert rig.trace[-4:] == ["offsets 1", "commit 1", "abort 1", "init 2"]


def test_a_client_that_begins_nothing_is_replaced(rig: Rig) -> None:
    """A fatal error may come between two transactions."""
    rig.answers = {"begin": [failure(KafkaError.UNKNOWN_PRODUCER_ID, fatal=True)]}

    with pytest.raises(NotQueued):
        rig.producer.begin()
    with pytest.raises(TransactionAborted, match="UNKNOWN_PRODUCER_ID"):
        rig.producer.abort()

    rig.fill()
    rig.commit()
    assert rig.trace[-1] == "commit 2"


def test_a_search_for_refused_records_never_commits_them(rig: Rig) -> None:
    """The client refuses one by itself, which breaks no transaction: a commit would succeed."""
    rig.answers = {"produce": [None, failure(KafkaError.MSG_SIZE_TOO_LARGE)]}

    with pytest.raises(TransactionAborted):
        rig.producer.takes("out", [{"value": b"good"}, {"value": b"large"}])

    assert rig.trace == ["begin 1", "produce 1", "produce 1", "abort 1"]


def test_a_search_for_refused_records_outlives_its_client(rig: Rig) -> None:
    """The client may have ended before the next try begins: that ends the search, not the process."""
    rig.answers = {"begin": [failure(KafkaError.UNKNOWN_PRODUCER_ID, fatal=True)]}

    with pytest.raises(TransactionAborted, match="UNKNOWN_PRODUCER_ID"):
        rig.producer.takes("out", [{"value": b"good"}])

    rig.fill()
    rig.commit()
    assert rig.trace[-1] == "commit 2"


def test_every_repetition_pauses_and_pauses_grow(rig: Rig) -> None:
    """Whatever librdkafka calls retriable, also where it answers at once."""
    rig.answers = {"offsets": [failure(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True)] * 6}
    rig.fill()

    rig.commit()

    assert len(rig.pauses) >= 6
    assert sum(rig.pauses) > 1.0


def test_a_call_that_never_succeeds_is_given_up(rig: Rig) -> None:
    """After the deadline; with pauses in between, these are few calls."""
    rig.answers = {"commit": [failure(KafkaError._TIMED_OUT, retriable=True)] * 1_000}
    rig.fill()

    with pytest.raises(TransactionUncertain, match="_TIMED_OUT"):
        rig.commit()

    assert rig.trace[-1] == "init 2"
    assert len(rig.trace) < 60


def test_what_the_brokers_do_not_support_is_not_tried_again(rig: Rig) -> None:
    """librdkafka calls it retriable, and answers at once: tens of thousands of tries in a few seconds."""
    rig.answers = {"offsets": [failure(KafkaError._UNSUPPORTED_FEATURE, "AddOffsetsToTxn", retriable=True)]}
    rig.fill()

    with pytest.raises(TransactionAborted, match="AddOffsetsToTxn"):
        rig.commit()

    assert rig.trace[-2:] == ["offsets 1", "abort 1"]


class TestFences:
    """Another epoch of the id than ours: somebody else's, or Kafka's own."""

    @pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH])
    def test_out_of_a_clear_sky_it_is_another_process(self, rig: Rig, code: int) -> None:
        """The transaction is young, and no broker is in trouble."""
        rig.answers = {"offsets": [failure(code, fatal=True)]}
        rig.fill()

        with pytest.raises(Fatal) as told:
            rig.commit()

        assert told.value.code == ExitCode.FENCED

    def test_a_fatal_error_comes_up_in_every_poll(self, rig: Rig) -> None:
        """It is in nobody's way: not in that of the loop that fills, nor of what ends the transaction."""
        fenced = failure(KafkaError._FENCED, fatal=True)
        rig.answers = {"poll": [fenced], "offsets": [fenced]}
        rig.fill()
        rig.producer.release_delivered()

        with pytest.raises(Fatal):
            rig.commit()

    def test_a_transaction_that_timed_out_was_ended_by_kafka(self, rig: Rig) -> None:
        """The worker waited too long for something else; it goes on."""
        rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)]}
        rig.fill()
        rig.now += TIMEOUT

        with pytest.raises(TransactionAborted):
            rig.commit()

        assert rig.trace[-1] == "init 2"

    def test_after_a_failover_the_id_is_registered_anew(self, rig: Rig) -> None:
        """librdkafka told that it lost a broker."""
        rig.answers = {"commit": [failure(KafkaError.INVALID_PRODUCER_EPOCH, fatal=True)]}
        rig.fill()
        rig.clients[-1].lost_a_broker(KafkaError(KafkaError._TRANSPORT))

        with pytest.raises(TransactionUncertain):
            rig.commit()

        assert rig.trace[-1] == "init 2"

    def test_a_frozen_process_was_replaced(self, rig: Rig) -> None:
        """Others have its partitions and, under a stable id, its place."""
        rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)]}
        rig.fill()
        rig.now += TIMEOUT
        rig.stood_still = True

        with pytest.raises(Fatal) as told:
            rig.commit()

        assert told.value.code == ExitCode.FENCED

    def test_a_frozen_process_was_replaced_whatever_fails_first(self, rig: Rig) -> None:
        """Its records timed out while it stood still; that it was replaced shows only in the roll-back."""
        rig.answers = {
            "offsets": [failure(KafkaError._TIMED_OUT)],
            "abort": [failure(KafkaError._FENCED, fatal=True)],
        }
        rig.fill()
        rig.now += TIMEOUT
        rig.stood_still = True

        with pytest.raises(Fatal) as told:
            rig.commit()

        assert told.value.code == ExitCode.FENCED

    def test_one_that_comes_again_and_again_is_another_process(self, rig: Rig) -> None:
        """Two that register in turn would go on for ever."""
        rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)] * 10}

        for _ in range(transactions.FENCES - 1):
            rig.fill()
            rig.now += TIMEOUT
            with pytest.raises(TransactionAborted):
                rig.commit()
        rig.fill()
        rig.now += TIMEOUT
        with pytest.raises(Fatal):
            rig.commit()


class TestRegistration:
    """The id is registered however long it takes."""

    def test_a_missing_right_is_waited_for(self, monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
        """librdkafka calls it fatal, so each try has a client of its own; it is a problem meanwhile."""
        problems: list[str] = []
        code = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        rig.answers = {"init": [failure(code, fatal=True)] * 3}

        def keep_trying() -> bool:
            problems.extend(problem.text for problem in rig.producer.problems())
            return True

        rig.producer.open(keep_trying)

        assert rig.trace == ["init 2", "init 3", "init 4", "init 5"]
        assert "this user may not use the transactional.id" in problems[-1]
        assert list(rig.producer.problems()) == []

    def test_a_coordinator_that_is_away_is_asked_with_growing_pauses(self, rig: Rig) -> None:
        """The client stays the same."""
        rig.answers = {"init": [failure(KafkaError._TIMED_OUT, retriable=True)] * 4}

        rig.producer.open()

        assert rig.trace == ["init 2"] * 5
        assert 3.5 <= sum(rig.pauses) <= 8.0


def test_a_topic_that_takes_less_halves_the_limit(rig: Rig) -> None:
    """The records are made again under the new limit."""
    rig.answers = {"commit": [failure(KafkaError.MSG_SIZE_TOO_LARGE)]}
    before = rig.producer.limit
    rig.fill()

    with pytest.raises(RecordTooLarge):
        rig.commit()

    assert rig.producer.limit == before // 2
    assert rig.trace[-2:] == ["abort 1", "init 2"]


def test_a_full_queue_says_how_many_records_it_took(rig: Rig) -> None:
    """The rest is handed in again, as it was; the transaction is not broken."""
    rig.producer.begin()
    rig.clients[0].room = 2
    records: list[dict[str, Any]] = [{"value": b"v", "key": None} for _ in range(5)]

    with pytest.raises(QueueFull) as full:
        rig.producer.produce_batch("out", records)

    assert full.value.queued == 2
    assert records == [{"value": b"v", "key": None}] * 5
    rig.commit()


def test_a_queue_that_refuses_for_another_reason_is_not_waited_for(rig: Rig) -> None:
    """Records that it would never take are no matter of room."""
    rig.producer.begin()
    rig.clients[0].room, rig.clients[0].why = 2, KafkaError._STATE
    records: list[dict[str, Any]] = [{"value": b"v", "key": None} for _ in range(5)]

    with pytest.raises(NotQueued) as failed:
        rig.producer.produce_batch("out", records)

    assert not isinstance(failed.value, QueueFull)


def test_what_a_topic_refuses_is_told_with_its_name_and_what_to_do(rig: Rig) -> None:
    """librdkafka's own text names neither the topic nor the right that is missing."""
    rig.producer.begin()
    rig.clients[0].room, rig.clients[0].why = 2, KafkaError.TOPIC_AUTHORIZATION_FAILED
    records: list[dict[str, Any]] = [{"value": b"v", "key": None} for _ in range(5)]

    with pytest.raises(NotQueued, match=r"may not write \(WRITE\) to out; grant it"):
        rig.producer.produce_batch("out", records)

    rig.answers["produce"] = [failure(KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    with pytest.raises(NotQueued, match=r"may not write \(WRITE\) to out; grant it"):
        rig.producer.produce("out", key=None, value=b"v", headers=[])


def test_deliveries_that_failed_are_told_with_what_is_wrong_with_their_topics(rig: Rig) -> None:
    """A commit says only that some failed (_INCONSISTENT); the brokers say why."""
    rig.answers["offsets"] = [failure(KafkaError._INCONSISTENT, "5 message(s) failed delivery")]
    rig.wrong["out"] = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    rig.fill()
    with pytest.raises(TransactionAborted, match="topic out: Broker: Topic authorization failed"):
        rig.commit()


def test_a_record_is_not_waited_for_where_the_caller_cannot(rig: Rig) -> None:
    """The event loop looks again later."""
    rig.producer.begin()
    rig.answers["produce"] = [BufferError("full")]

    with pytest.raises(QueueFull):
        rig.producer.produce("out", key=None, value=b"v", headers=[], wait=0.0)


def test_the_queue_has_room_for_the_largest_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never fits would be waited for in vain."""
    rig = Rig(monkeypatch)
    rig.producer._properties["queue.buffering.max.kbytes"] = 1_024
    rig.producer.limit = 900_000
    rig.producer.open()
    assert rig.properties["queue.buffering.max.kbytes"] == 1_024

    rig.producer.limit = 5_000_000
    rig.producer.open()
    assert rig.properties["queue.buffering.max.kbytes"] * 1024 >= 5_000_000
