"""People learn about a consumer once in the log, and in /health."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Partition, Position
from flagstream.kafka.assignment import Assignment
from flagstream.kafka.consumer import ConsumerThread
from flagstream.kafka.consumer_settings import Pulse
from flagstream.kafka.progress import Progress
from flagstream.kafka.rejoining import Rejoining
from flagstream.kafka.source import IDLE_SECONDS, SILENT_SECONDS, ChunkSource
from flagstream.memory import Weight
from flagstream.operate.health import Problem


@dataclass
class Reports:
    """What librdkafka has reported."""

    problem: str = ""
    member: bool = True


@dataclass
class Thread:
    """The consumer's thread, as its source sees it."""

    pulse: Pulse = field(default_factory=lambda: Pulse(0.0, 0.0))
    running: bool = True
    reports: Reports = field(default_factory=Reports)
    rejoining: Rejoining = field(default_factory=Rejoining)
    progress: Progress = field(default_factory=lambda: Progress("archive", "t"))
    assignment: Assignment = field(default_factory=lambda: Assignment("t", 1, lambda weight: Weight()))

    def __post_init__(self) -> None:
        self.assignment.hold(Partition("t", 0), Position(1, 0))


class Rig:
    """A source with a clock that the test moves, and a thread that polls all the while unless it is
    ``stuck``.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.thread = Thread()
        unused = cast(Any, None)
        self.source = ChunkSource(
            "archive",
            properties={"group.id": "g"},
            topic="t",
            channel=unused,
            stage=unused,
            start="beginning",
            session_timeout=45.0,
            fail=unused,
            clock=lambda: self.now,
        )
        self.source._thread = cast(ConsumerThread, self.thread)

    @property
    def problems(self) -> list[Problem]:
        """Return what the source finds wrong now."""
        return list(self.source.problems())

    def passed(self, seconds: float, *, stuck: bool = False) -> list[str]:
        """Return the events that are logged while this time passes, with a look every second."""
        with capture_logs() as lines:
            for _ in range(int(seconds)):
                self.now += 1
                self.thread.pulse.polled_at = self.thread.pulse.polled_at if stuck else self.now
                self.source.log_if_idle_or_silent()
        return [line["event"] for line in lines]


def test_a_consumer_that_works_is_not_reported() -> None:
    """A consumer that polls and holds partitions has no problem and logs nothing."""
    rig = Rig()

    assert rig.passed(600) == []
    assert rig.problems == []


@pytest.mark.parametrize("member", [False, True])
def test_a_consumer_without_partitions_says_once_what_it_waits_for(member: bool) -> None:
    """A consumer without partitions logs the reason after five seconds, and again after it has held some. A
    member is ready, as others hold the partitions; any other consumer has a problem.
    """
    rig = Rig()
    held, rig.thread.assignment.positions = rig.thread.assignment.positions, {}
    rig.thread.reports.member = member

    assert rig.passed(IDLE_SECONDS) == []
    with capture_logs() as lines:
        rig.now += 1
        rig.thread.pulse.polled_at = rig.now
        rig.source.log_if_idle_or_silent()
    assert rig.passed(60) == []
    rig.thread.assignment.positions = held
    rig.passed(1)
    rig.thread.assignment.positions = {}
    assert rig.passed(60) == ["holds_no_partitions"]

    [line] = lines
    assert line["reason"].startswith("other members" if member else "waits for the group")
    assert "45 s" in line["reason"]
    assert ("waits for the group" in str(rig.problems)) == (not member)
    assert rig.source.joined is member


def test_while_kafka_is_away_that_is_what_is_reported() -> None:
    """While no broker answers only that is reported, and not what follows from it."""
    rig = Rig()
    rig.thread.assignment.positions = {}
    rig.thread.reports = Reports("no broker answers", member=False)

    assert rig.passed(60) == []
    assert rig.problems == [Problem("kafka", "no broker answers")]
    rig.thread.reports.problem = ""
    assert rig.passed(60) == ["holds_no_partitions"]


def test_a_consumer_that_does_not_poll_is_logged_once() -> None:
    """A silent consumer is logged once, and again after it has polled in between."""
    rig = Rig()

    assert rig.passed(SILENT_SECONDS, stuck=True) == []
    assert rig.passed(60, stuck=True) == ["consumer_silent"]
    assert "has not polled for 70 s" in str(rig.problems)
    assert rig.passed(10) == []
    assert rig.passed(60, stuck=True) == ["consumer_silent"]


def test_a_consumer_that_has_not_begun_or_has_ended_is_not_reported() -> None:
    """Before the start the stage reports what it waits for, and at the end nothing is held."""
    rig = Rig()
    rig.thread.running = False
    rig.thread.assignment.positions = {}

    assert rig.passed(600) == []
    assert rig.problems == []


def test_commits_that_always_fail_are_a_problem() -> None:
    """A failed commit makes the consumer leave the group and join it again. Once is normal; twice in a row is
    a problem.
    """
    rig = Rig()
    rig.thread.rejoining.count, rig.thread.rejoining.reason = 1, "GROUP_AUTHORIZATION_FAILED"
    assert rig.problems == []

    rig.thread.rejoining.count = 2
    [problem] = rig.problems
    assert problem.kind == "group"
    assert "GROUP_AUTHORIZATION_FAILED" in problem.text


def test_a_lag_that_grows_for_a_known_reason_is_not_reported_as_one() -> None:
    """More workers do not help while transactions fail, so a growing lag is logged only when nothing else is
    wrong.
    """
    rig = Rig()
    rig.source._thread.progress.growing = lambda: (10.0, 70.0)  # type: ignore[method-assign]

    with capture_logs() as lines:
        rig.source.log_if_idle_or_silent(["transaction"])
        assert lines == []
        rig.source.log_if_idle_or_silent(["lag_grows"])
        rig.source.log_if_idle_or_silent([])

    assert [line["event"] for line in lines] == ["lag_grows"]
