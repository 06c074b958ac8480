"""Health: what keeps the process from being ready, and which thread hangs."""

import time
from collections.abc import Iterator

from worker.operate.health import ALIVE_SECONDS, Health


def test_a_process_without_problems_is_ready() -> None:
    """No checks, or checks that find nothing, are no problem."""
    health = Health()
    health.checks["enrich"] = lambda: iter(())

    assert health.problems() == {}
    assert health.stuck() == []


def test_problems_are_told_by_component() -> None:
    """What checks find now, and what a component that is starting waits for."""
    health = Health(starting={"enrich": "no flags", "archive": "starting"})
    found = ["disk full"]
    health.checks["archive"] = lambda: iter(found)

    assert health.problems() == {"archive": ["disk full", "starting"], "enrich": ["no flags"]}
    found.clear()
    health.starting.clear()
    assert health.problems() == {}


def test_a_check_may_find_several_problems() -> None:
    """All of them are told, in order."""

    def check() -> Iterator[str]:
        yield "first"
        yield "second"

    assert Health(checks={"enrich": check}).problems() == {"enrich": ["first", "second"]}


def test_a_thread_that_does_not_move_is_stuck() -> None:
    """Only that one, and only after longer than any call to Kafka may take."""
    now = time.monotonic()
    health = Health(
        threads={
            "archive": lambda: now - ALIVE_SECONDS - 1,
            "enrich": lambda: now - ALIVE_SECONDS + 10,
        }
    )

    assert health.stuck() == ["archive"]
