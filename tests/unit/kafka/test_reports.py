"""What becomes of librdkafka's errors and statistics. The ones here are like those seen when brokers were
stopped and frozen, and topics deleted.
"""

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from flagstream.chunk import Partition
from flagstream.kafka.reports import REMIND_SECONDS, Reports

TOPIC = "events"
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)
NO_TOPIC = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
NO_GROUP = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
FORBIDDEN = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

WELL: dict[str, Any] = {
    "broker": "UP",
    "coordinator": "UP",
    "answered": 0.3,
    "group": "up",
    "join": "steady",
    "leader": 1,
    "unknown": False,
    "rebalanced": 900.0,
}
"""Times in seconds ago."""
FROZEN = {"broker": "APIVERSION_QUERY", "coordinator": "APIVERSION_QUERY", "answered": None}
GONE = {"leader": -1, "unknown": True}
"""A topic that was deleted; all else is well."""


class Kafka:
    """Reports, and a client that was made when the clock showed 100."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reports = Reports("archive", TOPIC, lambda: self.now, group="flagstream.sink.archive")
        self.positions = {Partition(TOPIC, 0): 7}

    def after(self, seconds: float, late: float = 0.0, **facts: Any) -> str:
        """Report statistics after ``seconds`` that wait for ``late`` more. Returns the problem that is
        left.
        """
        self.now += seconds
        text = statistics(self.now - 100.0, **facts)
        self.now += late
        self.reports.statistics(text, self.positions)
        return self.reports.problem


def statistics(age: float, **facts: Any) -> str:
    said = WELL | facts
    idle = -1 if said["answered"] is None else round(said["answered"] * 1e6)
    found = {"ls_offset": 9, "hi_offset": 9, "fetchq_cnt": 0, "next_offset": 9}
    return json.dumps(
        {
            "age": round(age * 1e6),
            "brokers": {
                "a:9092/1": {"nodeid": 1, "state": said["broker"], "rxidle": idle},
                "GroupCoordinator": {"nodeid": -1, "state": said["coordinator"], "rxidle": idle},
            },
            "cgrp": {
                "state": said["group"],
                "join_state": said["join"],
                "rebalance_age": round(said["rebalanced"] * 1e3),
            },
            "topics": {
                TOPIC: {
                    "partitions": {
                        "0": found | {"broker": said["leader"], "leader": 1, "unknown": said["unknown"]},
                        "-1": found | {"broker": -1, "leader": -1, "unknown": False},
                    }
                }
            },
        }
    )


def test_a_broker_that_answers_again_has_recovered() -> None:
    """Connections that are up, a known leader of the partition, and an answer since the error prove a
    recovery.
    """
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(DOWN)

    assert "no broker answers" in kafka.reports.problem
    assert kafka.after(5) == ""


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(FROZEN | {"group": "query-coord", "leader": -1}, id="frozen"),
        pytest.param({"answered": 12.0}, id="no answer since, though no connection has ended yet"),
        pytest.param({"group": "query-coord"}, id="no coordinator"),
        pytest.param({"leader": -1}, id="a partition without a leader"),
        pytest.param({"broker": "APIVERSION_QUERY"}, id="the leader does not answer, others do"),
    ],
)
def test_a_member_whose_session_has_not_ended_yet_proves_nothing(facts: dict[str, Any]) -> None:
    """librdkafka calls a member ``steady`` until its session has ended, so that alone proves nothing."""
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(DOWN)

    assert kafka.after(5, **facts) != ""
    assert kafka.after(5) == ""


def test_to_wait_for_a_dead_member_is_no_error() -> None:
    """While the group waits for the session of a dead member, a broker that answers again has recovered."""
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(DOWN)
    kafka.positions = {}

    assert kafka.after(5, join="wait-join") == ""


def test_statistics_that_waited_prove_nothing() -> None:
    """While the thread hangs in a call librdkafka goes on collecting, so the first statistics afterwards are
    older than the error.
    """
    kafka = Kafka()
    kafka.after(5)
    kafka.after(5, late=20)
    kafka.reports.error(DOWN)
    kafka.now += 1
    kafka.reports.statistics(statistics(15), kafka.positions)
    assert kafka.reports.problem != ""

    assert kafka.after(5) == ""


def test_a_deleted_topic_is_not_well_until_it_is_back() -> None:
    """librdkafka reports a deleted topic once. After its partitions were taken away only a new assignment
    proves that it is back.
    """
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(NO_TOPIC)

    assert kafka.after(5, **GONE) != ""
    held, kafka.positions = kafka.positions, {}
    assert kafka.after(5, **GONE, rebalanced=1.0) != ""
    assert kafka.after(600) != ""
    kafka.positions = held
    assert kafka.after(5) == ""


def test_what_is_forbidden_is_over_when_records_come_or_the_group_gave_partitions_again() -> None:
    """librdkafka reports a missing right once and then tries again silently: records, or a new assignment,
    prove that it was granted.
    """
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(FORBIDDEN)
    assert kafka.after(5) != ""
    kafka.positions = {Partition(TOPIC, 0): 8}
    assert kafka.after(5) == ""

    kafka.reports.error(FORBIDDEN)
    assert kafka.after(5) != ""
    assert kafka.after(5, rebalanced=2.0) == ""


def test_a_group_that_may_not_be_used_is_over_when_it_is_joined() -> None:
    """Brokers answer all the while; only membership proves that the right to use the group was granted."""
    kafka = Kafka()
    kafka.after(5)
    kafka.positions = {}
    kafka.reports.error(NO_GROUP)

    assert kafka.after(5, join="init") != ""
    assert kafka.after(5) == ""


def test_one_error_may_be_over_and_another_not() -> None:
    """Each error has a proof of its own."""
    kafka = Kafka()
    kafka.after(5)
    kafka.reports.error(NO_TOPIC)
    kafka.now += 1
    kafka.reports.error(DOWN)
    kafka.positions = {}

    assert "no broker answers" in kafka.reports.problem
    assert "the topic events does not exist" in kafka.after(5, **GONE)


def test_the_log_has_an_error_once_a_minute_and_its_end() -> None:
    """An error is logged once a minute however often it comes and goes, and its end only if the error was
    logged.
    """
    kafka = Kafka()
    kafka.after(5)
    with capture_logs() as lines:
        for _ in range(4):
            kafka.reports.error(DOWN)
            kafka.after(5)
    assert [line["event"] for line in lines] == ["kafka_error", "kafka_recovered"]

    kafka.now += REMIND_SECONDS
    with capture_logs() as lines:
        kafka.reports.error(DOWN)
        kafka.reports.error(DOWN)
        kafka.after(5)
    assert [line["event"] for line in lines] == ["kafka_error", "kafka_recovered"]


def test_a_member_is_who_was_steady_once() -> None:
    """A consumer that was steady once is a member, even without partitions or while it joins again."""
    kafka = Kafka()
    kafka.positions = {}

    kafka.after(5, join="wait-join")
    assert not kafka.reports.member
    kafka.after(5)
    kafka.after(5, join="wait-join")
    assert kafka.reports.member


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, TOPIC),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TOPIC),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "flagstream.sink.archive"),
    ],
)
def test_what_a_person_has_to_act_on_is_named(code: int, name: str) -> None:
    """A hint names the topic or group to which a right is missing, as the page knows only a sink's name."""
    kafka = Kafka()

    with capture_logs() as lines:
        kafka.reports.error(KafkaError(code))

    assert name in kafka.reports.problem
    assert name in lines[0]["hint"]
