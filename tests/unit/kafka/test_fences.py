"""Whether an error that says "fenced" shows another process, or only that Kafka ended the transaction."""

import pytest
from confluent_kafka import KafkaError

from flagstream.errors import ExitCode, Fatal, TransactionAborted, TransactionUncertain
from flagstream.kafka.fences import FENCES, FENCES_SECONDS, TROUBLE_SECONDS
from tests.unit.kafka.transaction_rig import TIMEOUT, Rig, failure


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


@pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH])
def test_out_of_a_clear_sky_it_is_another_process(rig: Rig, code: int) -> None:
    """The transaction is young, and no broker is in trouble."""
    rig.answers = {"offsets": [failure(code, fatal=True)]}
    rig.fill()

    with pytest.raises(Fatal) as told:
        rig.commit()

    assert told.value.code == ExitCode.FENCED


def test_a_fatal_error_comes_up_in_every_poll(rig: Rig) -> None:
    """It is in nobody's way: not in that of the loop that fills, nor of what ends the transaction."""
    fenced = failure(KafkaError._FENCED, fatal=True)
    rig.answers = {"poll": [fenced], "offsets": [fenced]}
    rig.fill()
    rig.producer.release_delivered()

    with pytest.raises(Fatal):
        rig.commit()


def test_a_transaction_that_timed_out_was_ended_by_kafka(rig: Rig) -> None:
    """The worker waited too long for something else; it goes on."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)]}
    rig.fill()
    rig.now += TIMEOUT

    with pytest.raises(TransactionAborted):
        rig.commit()

    assert rig.trace[-1] == "init 2"


def test_after_a_failover_the_id_is_registered_anew(rig: Rig) -> None:
    """librdkafka reports that it lost a broker."""
    rig.answers = {"commit": [failure(KafkaError.INVALID_PRODUCER_EPOCH, fatal=True)]}
    rig.fill()
    rig.clients[-1].lost_a_broker(KafkaError(KafkaError._TRANSPORT))

    with pytest.raises(TransactionUncertain):
        rig.commit()

    assert rig.trace[-1] == "init 2"


def test_a_frozen_process_was_replaced(rig: Rig) -> None:
    """Others have its partitions and, under a stable id, its place."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)]}
    rig.fill()
    rig.now += TIMEOUT
    rig.stood_still = True

    with pytest.raises(Fatal) as told:
        rig.commit()

    assert told.value.code == ExitCode.FENCED


def test_a_frozen_process_was_replaced_whatever_fails_first(rig: Rig) -> None:
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


def test_one_that_comes_again_and_again_is_another_process(rig: Rig) -> None:
    """Two that register in turn would go on for ever."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)] * 10}

    for _ in range(FENCES - 1):
        rig.fill()
        rig.now += TIMEOUT
        with pytest.raises(TransactionAborted):
            rig.commit()
    rig.fill()
    rig.now += TIMEOUT
    with pytest.raises(Fatal):
        rig.commit()


def test_trouble_with_the_brokers_explains_a_fence_for_a_while_only(rig: Rig) -> None:
    """Failovers come in series, so a minute counts as one; later, a fence shows another process."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)] * 2}
    rig.clients[-1].lost_a_broker(KafkaError(KafkaError._TRANSPORT))
    rig.now += TROUBLE_SECONDS - 1
    rig.fill()
    with pytest.raises(TransactionAborted):
        rig.commit()

    rig.now += TROUBLE_SECONDS + 1
    rig.fill()
    with pytest.raises(Fatal):
        rig.commit()


def test_fences_that_come_seldom_are_no_other_process(rig: Rig) -> None:
    """Each has its explanation, and the earlier ones are forgotten."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)] * 10}

    for _ in range(10):
        rig.now += FENCES_SECONDS / (FENCES - 1) + 1
        rig.fill()
        rig.now += TIMEOUT
        with pytest.raises(TransactionAborted):
            rig.commit()


def test_a_broker_that_was_lost_just_now_is_heard_of_before_a_fence_is_judged(rig: Rig) -> None:
    """librdkafka reports lost brokers only in a poll."""
    rig.answers = {"offsets": [failure(KafkaError._FENCED, fatal=True)]}
    rig.fill()
    client = rig.clients[-1]
    client.on_poll = lambda: client.lost_a_broker(KafkaError(KafkaError._TRANSPORT))

    with pytest.raises(TransactionAborted):
        rig.commit()
