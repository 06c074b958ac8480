"""The transactional producer over a recorded client: what each error of librdkafka makes of it."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagstream.chunk import Partition
from flagstream.errors import TransactionAborted, TransactionUncertain
from flagstream.kafka.transaction_calls import Hangs
from flagstream.kafka.transactions import NotQueued, QueueFull, TransactionRefused
from tests.unit.kafka.transaction_rig import Rig, failure


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


# ── what reaches the client ─────────────────────────────────────────────────────────────────────────────


def test_offsets_travel_with_their_metadata(rig: Rig) -> None:
    """The metadata of every partition is committed beside its offset, under the group metadata handed in."""
    group = object()
    rig.fill()
    rig.producer.commit({Partition("ingest", 0): (5, "five"), Partition("ingest", 7): (9, "")}, group)

    assert ("group", group) in rig.sent
    assert ("offsets", [("ingest", 0, 5, "five"), ("ingest", 7, 9, "")]) in rig.sent


def test_a_record_keeps_what_it_has(rig: Rig) -> None:
    """Key, value, headers and time reach the client as they are."""
    rig.producer.begin()
    rig.producer.produce("out", key=b"k", value=b"v", headers=[("h", b"1")], timestamp=7)

    assert rig.sent == [("record", ("out", b"v", b"k", [("h", b"1")], 7))]


# ── calls that hang or fail ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("call", "expected"),
    [("offsets", TransactionAborted), ("commit", TransactionUncertain)],
)
def test_a_call_that_does_not_return_costs_the_client(
    rig: Rig, call: str, expected: type[TransactionAborted]
) -> None:
    """A new client takes the id. Only a commit may have been carried out all the same; before it was sent,
    nothing can be committed."""
    rig.answers = {call: [Hangs()]}
    rig.fill()

    with pytest.raises(TransactionAborted) as raised:
        rig.commit()

    assert type(raised.value) is expected
    assert rig.trace[-2:] == [f"{call} 1", "init 2"]
    rig.fill()
    rig.commit()
    assert rig.trace[-1] == "commit 2"


def test_an_abort_that_does_not_return_costs_the_client(rig: Rig) -> None:
    """Registering the id again aborts the transaction."""
    rig.answers = {"abort": [Hangs()]}
    rig.fill()

    with pytest.raises(TransactionAborted) as raised:
        rig.producer.abort()

    assert type(raised.value) is TransactionAborted
    assert rig.trace[-2:] == ["abort 1", "init 2"]


@pytest.mark.parametrize("call", ["offsets", "commit", "abort"])
def test_a_retriable_error_repeats_the_call_with_the_same_client(rig: Rig, call: str) -> None:
    """The transaction stays as it is meanwhile."""
    rig.answers = {call: [failure(KafkaError.COORDINATOR_NOT_AVAILABLE, retriable=True)] * 3}
    rig.fill()
    if call == "abort":
        rig.producer.abort()
    else:
        rig.commit()

    assert rig.trace.count(f"{call} 1") == 4
    assert "init 2" not in rig.trace


def test_an_error_that_asks_for_an_abort_is_rolled_back_with_the_same_client(rig: Rig) -> None:
    """The outcome is known: nothing was committed. The next transaction needs no registration."""
    rig.answers = {"commit": [failure(KafkaError.CONCURRENT_TRANSACTIONS)]}
    rig.fill()

    with pytest.raises(TransactionAborted) as raised:
        rig.commit()

    assert type(raised.value) is TransactionAborted
    assert rig.trace[-2:] == ["commit 1", "abort 1"]
    rig.fill()
    rig.commit()
    assert rig.trace[-1] == "commit 1"


def test_a_roll_back_that_hangs_leaves_the_outcome_of_a_commit_unknown(rig: Rig) -> None:
    """The commit was sent, and nobody has confirmed that it was rolled back."""
    rig.answers = {"commit": [failure(KafkaError.CONCURRENT_TRANSACTIONS)], "abort": [Hangs()]}
    rig.fill()

    with pytest.raises(TransactionUncertain):
        rig.commit()

    assert rig.trace[-3:] == ["commit 1", "abort 1", "init 2"]


def test_offsets_that_fail_for_good_leave_no_doubt(rig: Rig) -> None:
    """No commit was sent, so nothing can have been committed, whatever state the client is in."""
    rig.answers = {"offsets": [failure(KafkaError.UNKNOWN_PRODUCER_ID, fatal=True)]}
    rig.fill()

    with pytest.raises(TransactionAborted) as raised:
        rig.commit()

    assert type(raised.value) is TransactionAborted
    assert "commit 1" not in rig.trace
    assert rig.trace[-1] == "init 2"


def test_an_abort_after_a_broken_transaction_does_not_ask_twice(rig: Rig) -> None:
    """What broke one transaction says nothing of the next one."""
    rig.answers = {
        "produce": [failure(KafkaError._STATE)],
        "commit": [failure(KafkaError.TOPIC_AUTHORIZATION_FAILED)],
    }
    rig.producer.begin()
    with pytest.raises(NotQueued):
        rig.producer.produce("out", key=None, value=b"v", headers=[])
    with pytest.raises(TransactionRefused):
        rig.producer.abort()
    rig.trace.clear()

    rig.producer.begin()
    rig.producer.abort()
    assert rig.trace == ["begin 1", "abort 1"]


def test_a_call_that_takes_long_is_a_problem(rig: Rig) -> None:
    """The text names the call, the time and the topics, though no error has come yet."""
    seen: list[str] = []

    def slowly() -> None:
        rig.now += 4
        seen.extend(problem.text for problem in rig.producer.problems())

    rig.during = {"commit": slowly}
    rig.fill()
    rig.commit()

    [text] = seen
    assert "commit_transaction goes on for 4 s" in text
    assert "writes to out" in text
    assert list(rig.producer.problems()) == []


# ── looking for records that a topic refuses ────────────────────────────────────────────────────────────


def test_records_that_are_delivered_are_taken(rig: Rig) -> None:
    """They are rolled back all the same."""
    assert rig.producer.takes("out", [{"value": b"good"}, {"value": b"fine"}])
    assert rig.trace == ["begin 1", "produce 1", "produce 1", "abort 1"]


def test_a_record_that_is_refused_for_what_it_is_is_not_taken(rig: Rig) -> None:
    """The delivery report breaks the transaction, and the commit that cannot succeed shows by which error."""
    error = failure(KafkaError.INVALID_RECORD)
    rig.undelivered = {b"bad": error.args[0]}
    rig.answers = {"commit": [error]}

    assert not rig.producer.takes("out", [{"value": b"good"}, {"value": b"bad"}])
    assert rig.trace[-3:] == ["commit 1", "abort 1", "init 2"]


def test_a_topic_that_refuses_whatever_comes_judges_no_record(rig: Rig) -> None:
    """Without the right to write, a search for bad records would find them all."""
    error = failure(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    rig.undelivered = {b"good": error.args[0]}
    rig.answers = {"commit": [error]}

    with pytest.raises(TransactionRefused):
        rig.producer.takes("out", [{"value": b"good"}])


def test_records_without_a_delivery_report_are_not_taken_for_delivered(rig: Rig) -> None:
    """A flush that times out proves nothing."""
    rig.left = 1

    with pytest.raises(TransactionAborted, match="did not answer"):
        rig.producer.takes("out", [{"value": b"good"}])


# ── what the first error is ─────────────────────────────────────────────────────────────────────────────


def test_a_queue_that_is_full_and_broken_is_broken(rig: Rig) -> None:
    """Records after the one that broke the transaction may find no room; to wait for room is in vain."""
    rig.producer.begin()
    rig.clients[0].room = 2
    rig.clients[0].others = {3: KafkaError._STATE}
    records: list[dict[str, Any]] = [{"value": b"v", "key": None} for _ in range(5)]

    with pytest.raises(NotQueued) as failed:
        rig.producer.produce_batch("out", records)

    assert not isinstance(failed.value, QueueFull)


def test_a_fatal_error_is_never_rolled_back(rig: Rig) -> None:
    """The client answers nothing any more, so the id is registered again at once."""
    error = KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, None, True, False, True)
    rig.answers = {"commit": [KafkaException(error)]}
    rig.fill()

    with pytest.raises(TransactionUncertain):
        rig.commit()

    assert rig.trace[-2:] == ["commit 1", "init 2"]


def test_a_commit_that_may_be_repeated_does_not_say_what_broke_a_transaction(rig: Rig) -> None:
    """The attempt is made to learn the error of a delivery; another error says nothing of it."""
    rig.answers = {
        "produce": [failure(KafkaError._STATE)],
        "commit": [failure(KafkaError.COORDINATOR_NOT_AVAILABLE, retriable=True)],
    }
    rig.producer.begin()
    with pytest.raises(NotQueued):
        rig.producer.produce("out", key=None, value=b"v", headers=[])

    rig.producer.abort()
    assert rig.trace[-2:] == ["commit 1", "abort 1"]
    assert "init 2" not in rig.trace
