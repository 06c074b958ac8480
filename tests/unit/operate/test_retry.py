"""The pauses between tries, and the loop of a call that waits."""

import asyncio
from collections.abc import Iterator

import pytest

from flagstream.operate.retry import Backoff, retry_until_ready


def longest(low: float, high: float) -> float:
    return high


def test_the_pause_doubles_up_to_a_limit() -> None:
    """Pauses grow so that something that stays broken is asked rarely, but never less than the limit says."""
    backoff = Backoff(0.5, 3.0, chance=longest)

    assert [backoff.next_pause() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.turns == 5


def test_success_begins_with_the_shortest_pause_again() -> None:
    """After a reset the first pause is the first one again."""
    backoff = Backoff(0.5, 3.0, chance=longest)
    backoff.next_pause()
    backoff.next_pause()

    backoff.reset()

    assert backoff.turns == 0
    assert backoff.next_pause() == 0.5


def test_what_the_other_side_asked_for_is_the_least() -> None:
    """A Retry-After is waited for even where the own pause is shorter, and does not shorten a longer one."""
    backoff = Backoff(1.0, 60.0, chance=longest)

    assert backoff.next_pause(at_least=30.0) == 30.0
    assert backoff.next_pause(at_least=0.1) == 2.0


def test_a_fleet_does_not_knock_at_the_same_moment() -> None:
    """A pause is between a half of its length and the whole."""
    pauses = {Backoff(8.0, 8.0).next_pause() for _ in range(100)}

    assert len(pauses) > 1
    assert all(4.0 <= pause <= 8.0 for pause in pauses)


def test_a_call_is_tried_again_until_it_returns() -> None:
    """Each passing error is reported before the next try; the answer of the first success is returned."""
    outcomes: Iterator[Exception | str] = iter([OSError("first"), OSError("second"), "ready"])
    reported: list[str] = []

    def ask() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def failed(error: OSError) -> None:
        reported.append(str(error))

    assert asyncio.run(retry_until_ready(ask, (OSError,), failed, Backoff(0.0, 0.0))) == "ready"
    assert reported == ["first", "second"]


def test_another_error_ends_the_tries() -> None:
    """What no waiting mends is raised at once, and is not reported as passing."""

    def ask() -> str:
        raise ValueError("for good")

    def failed(error: OSError) -> None:
        raise AssertionError(error)

    with pytest.raises(ValueError, match="for good"):
        asyncio.run(retry_until_ready(ask, (OSError,), failed, Backoff(0.0, 0.0)))
