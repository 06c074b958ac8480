"""A place that fails: its failure stays its own, and what it asks is heeded."""

import asyncio
from pathlib import Path

import pytest

from flagstream.flag_sources import NotNow
from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.document import Document
from flagstream.flag_sources.kept import KeptFlags
from flagstream.flag_sources.watching import FlagWatch

GOOD = Document(b"a: {variations: {x: 1}}", "yaml")
CANARY = "hunter2"


class Scripted:
    """A place that does what a test says, call by call; what is raised or given last stays."""

    def __init__(self, *answers: Document | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0

    def fetch(self, *, unconditional: bool) -> Document | None:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


UNFORESEEN = [
    ValueError(f"Invalid header {CANARY}"),
    TypeError(CANARY),
    UnicodeDecodeError("utf-8", b"", 0, 1, CANARY),
]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_whatever_a_place_raises_is_its_failure(error: Exception) -> None:
    """The worker waits for it, and does not quote it; the same one is reported once."""
    source = KeptFlags("one", Scripted(error, error, error, GOOD))

    for call in (source.load, source.load):
        with pytest.raises(OSError, match="one: cannot be read") as caught:
            call()
        assert CANARY not in str(caught.value)
    assert source.poll() is None
    assert source.problem is not None
    assert list(source.poll() or ()) == ["a"]
    assert source.problem is None


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_the_cache_stands_in_for_what_nobody_foresaw(error: Exception, tmp_path: Path) -> None:
    """An unexpected error is treated as a source that does not answer."""
    cache = FlagCache(tmp_path / "flags")
    cache.write({"one": GOOD})

    flags = FlagWatch([KeptFlags("one", Scripted(error))], 10, lambda _: None, cache).load()

    assert list(flags) == ["a"]


def test_a_place_that_asks_to_wait_is_left_alone() -> None:
    """The place is asked neither at the start nor by polls; the flags it gave stay in use, and it is asked
    when its time is over."""
    now = 0.0
    other = Document(b"b: {variations: {x: 1}}", "yaml")
    place = Scripted(GOOD, NotNow("answers 429", 3600), NotNow("answers 429", 60), other)
    source = KeptFlags("one", place, monotonic=lambda: now)
    source.load()

    with pytest.raises(OSError, match="answers 429"):
        source.poll()
    for _ in range(20):
        now += 170
        assert source.poll() is None
        assert source.problem == "answers 429"
    with pytest.raises(OSError, match="answers 429"):
        source.load()
    assert place.calls == 2

    now = 3600
    assert source.poll() is None
    assert place.calls == 3

    now += 60
    assert list(source.poll() or ()) == ["b"]


def test_polls_of_a_watch_go_on(tmp_path: Path) -> None:
    """A source of which nobody foresaw the failure is polled again, and gives its flags."""
    used: list[list[str]] = []
    sleeps = 0

    async def sleep(_: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps > 3:
            raise asyncio.CancelledError

    place = Scripted(GOOD, ValueError(CANARY), Document(b"b: {variations: {x: 1}}", "yaml"))
    watching = FlagWatch([KeptFlags("one", place)], 10, lambda flags: used.append(sorted(flags)), sleep=sleep)
    watching.begin()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watching.run())

    assert used == [["a"], ["b"]]
