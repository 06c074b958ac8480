"""How a client gets hold of a transactional.id, however long that takes, and which properties it has."""

import pytest
from confluent_kafka import KafkaError

from flagstream.errors import TransactionAborted
from flagstream.kafka.transaction_calls import Hangs
from flagstream.kafka.transactions import RecordTooLarge
from flagstream.record_limits import SMALLEST_LIMIT
from tests.unit.kafka.transaction_rig import Rig, failure


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_missing_right_is_waited_for(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
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


def test_a_coordinator_that_is_away_is_asked_with_growing_pauses(rig: Rig) -> None:
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


def test_the_queue_has_room_for_the_largest_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never fits would be waited for in vain."""
    rig = Rig(monkeypatch)
    rig.producer._registration._properties["queue.buffering.max.kbytes"] = 1_024
    rig.producer.limit = 900_000
    rig.producer.open()
    assert rig.properties["queue.buffering.max.kbytes"] == 1_024

    rig.producer.limit = 5_000_000
    rig.producer.open()
    assert rig.properties["queue.buffering.max.kbytes"] * 1024 >= 5_000_000


def test_a_registration_that_hangs_is_tried_with_another_client(rig: Rig) -> None:
    """The call may never return, and its client with it."""
    rig.answers = {"init": [Hangs(), Hangs()]}
    rig.producer.open()

    assert rig.trace == ["init 2", "init 3", "init 4"]


def test_a_version_without_transactions_is_asked_with_another_client(rig: Rig) -> None:
    """librdkafka calls the error retriable; the same client would never answer otherwise."""
    rig.answers = {"init": [failure(KafkaError.UNSUPPORTED_VERSION, retriable=True)]}
    rig.producer.open()

    assert rig.trace == ["init 2", "init 3"]


def test_a_process_that_ends_waits_for_no_coordinator(rig: Rig) -> None:
    """The pauses end as soon as nobody wants the registration any more."""
    rig.answers = {"init": [failure(KafkaError._TIMED_OUT, retriable=True)] * 1_000}
    looks = iter([True] * 4)
    rig.producer.open(lambda: next(looks, False))

    assert len(rig.trace) <= 4
    assert sum(rig.pauses) < 4


def test_the_limit_is_never_too_low_for_the_headers_of_a_dead_letter(rig: Rig) -> None:
    """Halving ends there; a topic that takes less refuses the transaction."""
    rig.producer.limit = SMALLEST_LIMIT + 1
    rig.answers = {"commit": [failure(KafkaError.MSG_SIZE_TOO_LARGE)] * 2}
    rig.fill()
    with pytest.raises(RecordTooLarge):
        rig.commit()
    assert rig.producer.limit == SMALLEST_LIMIT

    rig.fill()
    with pytest.raises(TransactionAborted) as raised:
        rig.commit()
    assert not isinstance(raised.value, RecordTooLarge)
    assert rig.producer.limit == SMALLEST_LIMIT


def test_the_client_knows_the_limit(rig: Rig) -> None:
    """librdkafka itself refuses what is larger."""
    rig.producer.limit = 5_000
    rig.producer.open()

    assert rig.properties["message.max.bytes"] == 5_000
