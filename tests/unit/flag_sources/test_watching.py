import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.document import Document
from flagstream.flag_sources.kept import KeptFlags, utc_now
from flagstream.flag_sources.merging import merged
from flagstream.flag_sources.watching import STAY, WAITS, FlagWatch, report_flags
from flagstream.flags import FlagFileError, FlagSet, parse_flags
from flagstream.operate.metrics import REGISTRY


@dataclass
class Shelf:
    """Stands for a place whose content tests set; with None it does not answer."""

    text: str | None

    def fetch(self, *, unconditional: bool) -> Document | None:
        if self.text is None:
            raise OSError("no answer")
        return Document(self.text.encode(), "yaml")


def flag(name: str, value: object = 1) -> str:
    return f"{name}: {{variations: {{x: {value}}}}}"


def flags(text: str) -> FlagSet:
    return parse_flags(text, "yaml", utc_now())


def watch(cache: FlagCache | None = None, **shelves: Shelf) -> FlagWatch:
    return FlagWatch([KeptFlags(name, shelf) for name, shelf in shelves.items()], 10, lambda _: None, cache)


def test_the_later_source_wins_flag_by_flag() -> None:
    """GO Feature Flag's rule: a flag is taken whole from the last source that has it."""
    both = merged([flags(f"{flag('a')}\n{flag('b')}"), flags(flag("b", 2))])

    assert {name: one.variations["x"] for name, one in both.items()} == {"a": 1, "b": 2}


def test_a_flag_that_is_invalid_in_the_last_source_is_invalid() -> None:
    """What an earlier source says of it is no longer meant; a later one mends it."""
    assert list(merged([flags(flag("a")), flags("a: {}")]).invalid) == ["a"]
    assert list(merged([flags("a: {}"), flags(flag("a"))])) == ["a"]


def test_an_unreadable_entry_does_not_take_back_that_a_flag_is_untracked() -> None:
    """An earlier source says that its events are not to be exported; a later one is read for it only if it
    can be read."""
    kept = flags("a: {variations: {x: 1}, trackEvents: false}")

    both = merged([kept, flags(f"a: {{variations: []}}\n{flag('b')}")])
    assert not both["a"].track
    assert list(both.invalid) == ["a"]
    assert merged([kept, flags(flag("a"))])["a"].track


def test_a_flag_that_cannot_be_read_is_a_warning() -> None:
    """Its events may be exported; a gauge counts such flags until they are mended."""
    misspelt = "secret: {trackEvents: false, variation: {x: 1}}"
    with capture_logs() as logs:
        report_flags(flags(f"{flag('a')}\n{misspelt}"))

    assert REGISTRY.get_sample_value("flagstream_invalid_flags") == 1
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("info", "flags_loaded"),
        ("warning", "flags_invalid"),
    ]
    assert logs[1]["invalid"] == {"secret": "has no variations"}

    with capture_logs() as logs:
        report_flags(flags(flag("a")))

    assert REGISTRY.get_sample_value("flagstream_invalid_flags") == 0
    assert [line["event"] for line in logs] == ["flags_loaded"]


def test_many_invalid_flags_are_one_short_line() -> None:
    """The text of others has no bound: a few flags are named, and how many there are."""
    with capture_logs() as logs:
        report_flags(flags("\n".join([flag("good"), *(f"{'x' * 1_000}{number}: 5" for number in range(50))])))

    assert logs[1]["count"] == 50
    assert len(str(logs[1])) < 10_000


def test_the_start_names_every_source_that_fails() -> None:
    """It raises until all have been read; an answer then is enough."""
    one, two = Shelf(None), Shelf(None)
    start = watch(one=one, two=two)
    with pytest.raises(FlagFileError, match=r"no answer; flags: no answer"):
        start.load()
    one.text = flag("a")
    with pytest.raises(FlagFileError):
        start.load()
    two.text = flag("b")
    assert set(start.load()) == {"a", "b"}


def test_the_cache_stands_in_at_the_start(tmp_path: Path) -> None:
    """A source that does not answer has the flags of the earlier run; a source never seen does not."""
    cache = FlagCache(tmp_path / "deep" / "flags.cache")
    watch(cache, one=Shelf(flag("a")), two=Shelf(flag("b"))).load()

    assert set(watch(cache, one=Shelf(None), two=Shelf(flag("c"))).load()) == {"a", "c"}
    assert [path.name for path in cache.path.parent.iterdir()] == ["flags.cache"]
    with pytest.raises(FlagFileError):
        watch(cache, three=Shelf(None)).load()


def test_a_broken_cache_is_no_cache(tmp_path: Path) -> None:
    """The worker waits for the source, as it would without one. That is one line in the log, however often
    it tries.
    """
    cache = FlagCache(tmp_path / "flags.cache")
    cache.path.write_text("{")
    watching = watch(cache, one=Shelf(None))
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(FlagFileError):
                watching.load()
    assert [line["event"] for line in logs] == ["flags_cache_unusable"]


class Ended(Exception):
    """Ends a watch that would go on for ever."""


def test_a_source_that_fails_keeps_its_flags_and_stops_no_other() -> None:
    """Each is polled by itself, a tenth of the interval early or late."""
    one, two = Shelf(flag("a")), Shelf(flag("b"))
    used: list[FlagSet] = []
    slept: list[float] = []
    in_use = asyncio.Event()
    chances: Iterator[float] = iter([0.0, 0.5, 1.0, 1.0])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 3:
            raise Ended
        if len(slept) > 2:  # the other one's thread may be slower
            await in_use.wait()

    def use(flags: FlagSet) -> None:
        used.append(flags)
        in_use.set()

    watching = FlagWatch(
        [KeptFlags("one", one), KeptFlags("two", two)],
        10,
        use,
        chance=lambda: next(chances),
        sleep=sleep,
    )
    watching.load()
    one.text, two.text = None, flag("c")
    with pytest.raises(Ended):
        asyncio.run(watching.run())

    assert [set(one) for one in used] == [{"a", "c"}]
    assert slept == pytest.approx([9, 10, 11, 11])


def test_flags_that_cannot_be_taken_into_use_end_nothing() -> None:
    """Whatever the callback raises, the flags before stay, log and gauge say so, and the next ones come."""
    one = Shelf(flag("a"))
    used: list[FlagSet] = []
    rounds: Iterator[str] = iter([flag("bad"), flag("b")])

    def use(flags: FlagSet) -> None:
        if "bad" in flags:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
        used.append(flags)

    failing: list[float | None] = []
    problems: list[list[str]] = []

    async def sleep(seconds: float) -> None:
        failing.append(REGISTRY.get_sample_value("flagstream_failing_flag_sources", {"source": "one"}))
        problems.append([problem.kind for problem in watching.problems()])
        one.text = next(rounds, None)
        if one.text is None:
            raise Ended

    watching = FlagWatch([KeptFlags("one", one)], 10, use, sleep=sleep)
    watching.begin()
    with capture_logs() as logs, pytest.raises(Ended):
        asyncio.run(watching.run())

    assert [set(one) for one in used] == [{"a"}, {"b"}]
    assert [line["event"] for line in logs] == ["flags_not_used"]
    assert failing == [0, 1, 0]
    assert problems == [[], ["flags"], []]


def test_a_start_with_flags_that_cannot_be_used_waits_for_others() -> None:
    """It raises what the start waits on, and reads the source again at the next call."""
    one = Shelf(flag("bad"))
    used: list[FlagSet] = []

    def use(flags: FlagSet) -> None:
        if "bad" in flags:
            raise ValueError("no")
        used.append(flags)

    watching = FlagWatch([KeptFlags("one", one)], 10, use)
    with pytest.raises(FlagFileError, match="cannot be taken into use: ValueError: no"):
        watching.begin()
    one.text = flag("a")
    watching.begin()

    assert [set(one) for one in used] == [{"a"}]


def test_sources_that_differ_in_what_is_exported_are_a_warning() -> None:
    """Once, until it changes: the last one counts for all, which is wrong for flag sets of their own."""
    shop, blog = Shelf(flag("a") + "\n" + flag("b")), Shelf("a: {variations: {x: 1}, trackEvents: false}")
    watching = watch(shop=shop, blog=blog)
    with capture_logs() as logs:
        found = watching.load()
        watching.load()

    assert not found["a"].track
    (line,) = [line for line in logs if line["event"] == "flag_sources_contradict"]
    assert line["flags"] == {"a": "exported by shop; not exported by blog"}
    assert line["log_level"] == "warning"


def test_sources_that_agree_are_no_warning() -> None:
    """The same flag in two of them is GO Feature Flag's way to override one."""
    with capture_logs() as logs:
        watch(one=Shelf(flag("a")), two=Shelf(flag("a", 2))).load()

    assert [line for line in logs if line["event"] == "flag_sources_contradict"] == []


@dataclass
class Broken(Shelf):
    """A place whose client library raises what nobody foresaw, with a secret in its text."""

    def fetch(self, *, unconditional: bool) -> Document | None:
        if self.text is None:
            raise RuntimeError("header 'hunter2'")
        return super().fetch(unconditional=unconditional)


def test_an_error_that_nobody_foresaw_is_its_sources_failure(tmp_path: Path) -> None:
    """At the start it is waited out, or the cache stands in; then it is one problem and one line in the log,
    without the words of the library, until the source answers."""
    cache = FlagCache(tmp_path / "flags.cache")
    watch(cache, one=Shelf(flag("a"))).load()
    with pytest.raises(FlagFileError, match="RuntimeError") as caught:
        watch(one=Broken(None)).begin()
    assert "hunter2" not in str(caught.value)

    one = Broken(None)
    rounds = iter([None, None, flag("b")])
    problems: list[list[str]] = []

    async def sleep(seconds: float) -> None:
        problems.append([problem.text for problem in watching.problems()])
        try:
            one.text = next(rounds)
        except StopIteration:
            raise Ended from None

    watching = FlagWatch([KeptFlags("one", one)], 10, lambda _: None, cache, sleep=sleep)
    watching.begin()
    with capture_logs() as logs, pytest.raises(Ended):
        asyncio.run(watching.run())

    assert [len(each) for each in problems] == [1, 1, 1, 0]
    assert "hunter2" not in str(problems)
    assert not logs


def test_a_file_in_utf_16_is_kept_in_the_cache(tmp_path: Path) -> None:
    """It is there as text, so that a later start can read it."""
    cache = FlagCache(tmp_path / "flags.cache")
    cache.write({"one": Document(flag("é").encode("utf-16"), "yaml")})

    assert list(watch(cache, one=Shelf(None)).load()) == ["é"]


class Silent(Shelf):
    """A place on a file system whose server is away: it does not answer until it is ``back``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.asked, self.back = threading.Event(), threading.Event()

    def fetch(self, *, unconditional: bool) -> Document | None:
        self.asked.set()
        assert self.back.wait(30)
        return super().fetch(unconditional=unconditional)


@pytest.mark.parametrize("started", [False, True])
def test_a_source_that_does_not_answer_is_told(started: bool) -> None:
    """The source is named once in the log, at the start, which waits for it, and later, until it answers."""
    now = 0.0
    place = Silent(flag("a"))
    watch = FlagWatch([KeptFlags("there", place)], 0.01, lambda _: None, clock=lambda: now)
    failing = partial(REGISTRY.get_sample_value, "flagstream_failing_flag_sources", {"source": "there"})

    async def main() -> None:
        nonlocal now
        if started:
            place.back.set()
            watch.begin()
            place.back.clear()
            place.asked.clear()
        work = asyncio.create_task(watch.run() if started else asyncio.to_thread(watch.begin))
        await asyncio.to_thread(place.asked.wait)
        now = 29.0
        watch.look()
        assert list(watch.problems()) == []
        now = 31.0
        with capture_logs() as lines:
            watch.look()
            watch.look()
        [problem] = watch.problems()
        hint = STAY if started else WAITS
        assert problem.text == f"there: no answer for 31 s; {hint}"
        assert [(line["event"], line["hint"]) for line in lines] == [("flags_unreadable", hint)]
        assert failing() == 1
        place.back.set()
        while list(watch.problems()) or failing():  # noqa: ASYNC110  # the watch sets no event
            await asyncio.sleep(0)
        work.cancel()

    asyncio.run(main())
