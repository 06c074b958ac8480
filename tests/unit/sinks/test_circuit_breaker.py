"""When an endpoint is left alone, and how it is found again."""

import pytest

from flagstream.errors import PartitionStopped, SinkRefused, SinkUnavailable
from flagstream.sinks.webhook.breaker import PROBE_WAIT, CircuitBreaker


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def call(breaker: CircuitBreaker, error: Exception | None = None) -> None:
    """A call of the endpoint that ends like this."""
    with breaker.attempt():
        if error:
            raise error


def fail(breaker: CircuitBreaker, times: int = 1, retry_after: float | None = None) -> None:
    for _ in range(times):
        with pytest.raises(SinkUnavailable, match="down"):
            call(breaker, SinkUnavailable("down", retry_after))


def wait_of(breaker: CircuitBreaker) -> float | None:
    """How long the breaker asks to wait; fails if the call is let through."""
    with pytest.raises(SinkUnavailable, match="receiver is") as error, breaker.attempt():
        pytest.fail("the endpoint was called")
    return error.value.retry_after


def test_opens_after_failures_in_a_row() -> None:
    """The third failure in a row shuts it for all; a success in between starts the count again."""
    clock = Clock()
    breaker = CircuitBreaker(3, 30.0, clock)
    fail(breaker, 2)
    call(breaker)
    fail(breaker, 3)
    assert wait_of(breaker) == 30.0
    clock.now += 10
    assert wait_of(breaker) == 20.0


def test_one_probe_decides() -> None:
    """After the pause one call goes through while the others wait; its success lets all through."""
    clock = Clock()
    breaker = CircuitBreaker(1, 30.0, clock)
    fail(breaker)
    clock.now += 30
    with breaker.attempt():
        assert wait_of(breaker) == PROBE_WAIT
    call(breaker)
    call(breaker)


def test_probe_that_fails_shuts_it_again() -> None:
    """The receiver is left alone for another pause."""
    clock = Clock()
    breaker = CircuitBreaker(3, 30.0, clock)
    fail(breaker, 3)
    clock.now += 30
    fail(breaker)
    assert wait_of(breaker) == 30.0


def test_wait_that_was_asked_for() -> None:
    """An endpoint that says how long to wait is left alone by all for as long, from the first time on."""
    clock = Clock()
    breaker = CircuitBreaker(3, 30.0, clock)
    fail(breaker, retry_after=7.0)
    assert wait_of(breaker) == 7.0
    clock.now += 7
    call(breaker)


def test_whoever_is_held_back_is_told_the_cause() -> None:
    """The last error, not the first; of what was not foreseen only its kind, as its text may hold
    anything."""
    clock = Clock()
    breaker = CircuitBreaker(2, 30.0, clock)
    fail(breaker)
    for error, reported in (
        (
            SinkUnavailable("down: answers 503"),
            "for 30.0 s after 2 failures in a row, the last: down: answers 503",
        ),
        (ValueError("Bearer secret"), "for 30.0 s after 3 failures in a row, the last: ValueError"),
    ):
        with pytest.raises(type(error)):
            call(breaker, error)
        with pytest.raises(SinkUnavailable) as held_back:
            call(breaker)
        assert str(held_back.value) == f"the receiver is left alone {reported}"
        clock.now += 30


@pytest.mark.parametrize("error", [SinkRefused("no"), PartitionStopped("gone")])
def test_refusal_is_a_sign_of_life(error: Exception) -> None:
    """An endpoint that refuses is there: other deliveries are not held up."""
    breaker = CircuitBreaker(2, 30.0, Clock())
    fail(breaker)
    with pytest.raises(type(error)):
        call(breaker, error)
    fail(breaker)
    call(breaker)


def test_unexpected_error_of_a_probe() -> None:
    """Any other exception counts as a failure, and leaves no probe that all would wait for."""
    clock = Clock()
    breaker = CircuitBreaker(1, 30.0, clock)
    with pytest.raises(ZeroDivisionError):
        call(breaker, ZeroDivisionError())
    clock.now += 30
    with pytest.raises(ZeroDivisionError):
        call(breaker, ZeroDivisionError())
    clock.now += 30
    call(breaker)
