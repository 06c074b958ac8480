"""Sources of flags that were asked and do not answer."""

import pytest

from flagstream.flag_sources.unanswered import HANGS_SECONDS, Unanswered


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_source_hangs_once_it_has_been_silent_for_long() -> None:
    """It is asked in a thread; meanwhile others see how long it has been silent."""
    clock = Clock()
    unanswered = Unanswered(clock)
    seen: list[dict[str, float]] = []

    def question() -> str:
        clock.now += HANGS_SECONDS - 1
        seen.append(unanswered.hanging())
        clock.now += 1
        seen.append(unanswered.hanging())
        return "flags"

    assert unanswered.ask("a", question) == "flags"
    assert seen == [{}, {"a": HANGS_SECONDS}]
    assert unanswered.hanging() == {}


def test_a_source_that_fails_is_not_silent() -> None:
    """The error is its answer."""
    clock = Clock()
    unanswered = Unanswered(clock)

    def question() -> str:
        raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        unanswered.ask("a", question)
    clock.now += HANGS_SECONDS
    assert unanswered.hanging() == {}


def test_each_silence_is_new_once() -> None:
    """A source that has answered since and hangs again is new again."""
    clock = Clock()
    unanswered = Unanswered(clock)
    found: list[set[str]] = []

    def question() -> None:
        clock.now += HANGS_SECONDS
        found.extend([unanswered.newly_hanging(), unanswered.newly_hanging()])

    for _ in range(2):
        unanswered.ask("a", question)
        found.append(unanswered.newly_hanging())
    assert found == [{"a"}, set(), set(), {"a"}, set(), set()]
