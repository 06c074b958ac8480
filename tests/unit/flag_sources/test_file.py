import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flagstream.flag_sources import FlagSource
from flagstream.flag_sources.file import FileLocation
from flagstream.flag_sources.kept import KeptFlags
from flagstream.flags import FlagFileError

A = "a: {variations: {x: 1}}"
B = "b: {variations: {x: 1}}"
BROKEN = "a: ["
SCHEDULED = """
a:
  variations: {x: 1}
  scheduledRollout: [{date: 2025-01-01T01:00:00Z, trackEvents: false}]
"""


@dataclass
class Clock:
    now: datetime = datetime(2025, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def settled() -> float:
    """A time at which whatever a test wrote is old."""
    return time.time() + 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.yaml"
    path.write_text(A)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(path: Path, clock: Clock) -> FlagSource:
    return KeptFlags(str(path), FileLocation(path, clock=settled), clock)


def test_load_gives_the_flags_every_time(source: FlagSource) -> None:
    """load is the start: it answers whether or not the file has changed."""
    assert list(source.load()) == ["a"]
    assert list(source.load()) == ["a"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.yaml", A),
        ("f.yml", A),
        ("f.JSON", '{"a": {"variations": {"x": 1}}}'),
        ("f.toml", "a = {variations = {x = 1}}"),
        ("flags", A),
    ],
)
def test_the_suffix_tells_the_format(tmp_path: Path, name: str, text: str) -> None:
    """Without a format the suffix counts, and a file without one is YAML."""
    (tmp_path / name).write_text(text)

    assert list(KeptFlags(name, FileLocation(tmp_path / name, clock=settled)).load()) == ["a"]


def test_a_given_format_beats_the_suffix(path: Path) -> None:
    """A format that is set holds whatever the file is called."""
    path.write_text("a = {variations = {x = 1}}")

    assert list(KeptFlags("flags", FileLocation(path, "toml", clock=settled)).load()) == ["a"]


def test_an_unchanged_file_is_no_news(source: FlagSource) -> None:
    """poll is silent for as long as the file stays."""
    source.load()

    assert source.poll() is None


def test_a_changed_file_is_new_flags(source: FlagSource, path: Path) -> None:
    """A rewritten file is read once."""
    source.load()
    path.write_text(B + "\n")

    assert list(source.poll() or ()) == ["b"]
    assert source.poll() is None


def test_a_replaced_file_of_same_size_and_time_is_seen(source: FlagSource, path: Path) -> None:
    """A file that is renamed into place is another one, whatever its size and time."""
    source.load()
    status = path.stat()
    other = path.with_name("other")
    other.write_text(B)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)

    assert list(source.poll() or ()) == ["b"]


def test_a_touched_file_is_no_news(source: FlagSource, path: Path) -> None:
    """A new time on the same content changes nothing."""
    source.load()
    os.utime(path, ns=(1, 1))

    assert source.poll() is None


def test_a_broken_file_is_told_once_and_its_repair_is_seen(source: FlagSource, path: Path) -> None:
    """Poll raises for a new broken file, naming it once, and then gives the repaired flags."""
    source.load()
    path.write_text(BROKEN)
    with pytest.raises(FlagFileError, match=r"flags\.yaml"):
        source.poll()
    assert source.poll() is None
    os.utime(path, ns=(1, 1))
    assert source.poll() is None

    path.write_text(A)
    assert list(source.poll() or ()) == ["a"]


def test_a_file_that_breaks_differently_is_told_again(source: FlagSource, path: Path) -> None:
    """Another mistake is news to whoever is mending the file."""
    source.load()
    path.write_text(BROKEN)
    with pytest.raises(FlagFileError):
        source.poll()
    path.write_text("- a")
    with pytest.raises(FlagFileError, match="not a map"):
        source.poll()


def test_a_missing_file_is_told_once_and_its_return_is_seen(source: FlagSource, path: Path) -> None:
    """A file that goes is an OSError once; the very same file coming back is flags again."""
    source.load()
    away = path.with_name("away")
    path.rename(away)
    with pytest.raises(OSError):
        source.poll()
    assert source.poll() is None

    away.rename(path)
    assert list(source.poll() or ()) == ["a"]
    assert source.poll() is None


def test_load_raises_at_every_call_and_poll_sees_the_repair(source: FlagSource, path: Path) -> None:
    """At the start there are no flags to keep: load says so each time, and poll brings the first."""
    path.write_text(BROKEN)
    for _ in range(2):
        with pytest.raises(FlagFileError):
            source.load()
    assert source.poll() is None

    path.write_text(A)
    assert list(source.poll() or ()) == ["a"]


def test_a_scheduled_step_is_news_when_it_is_due(source: FlagSource, path: Path, clock: Clock) -> None:
    """A step changes flags without a change of the file, once."""
    path.write_text(SCHEDULED)
    assert source.load()["a"].track
    clock.now += timedelta(minutes=59)
    assert source.poll() is None

    clock.now += timedelta(minutes=1)
    flags = source.poll()
    assert flags is not None
    assert not flags["a"].track
    assert source.poll() is None


def test_a_scheduled_step_comes_due_behind_a_broken_file(
    source: FlagSource, path: Path, clock: Clock
) -> None:
    """While the new file is broken the old flags are in force, and so are their scheduled steps."""
    path.write_text(SCHEDULED)
    source.load()
    path.write_text(BROKEN)
    with pytest.raises(FlagFileError):
        source.poll()

    clock.now += timedelta(hours=1)
    flags = source.poll()
    assert flags is not None
    assert not flags["a"].track


class Writing:
    """A file that somebody is writing: ``pieces`` come one at a sleep, and time passes by sleeping only."""

    def __init__(self, path: Path, *pieces: str) -> None:
        self._path = path
        self._pieces = list(pieces)
        self.now = 1_000_000.0
        self.slept: list[float] = []
        self.step()

    def step(self) -> None:
        if self._pieces:
            with self._path.open("a") as file:
                file.write(self._pieces.pop(0))
            os.utime(self._path, (self.now, self.now))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.step()


UNTRACKED = "{variations: {x: 1}, trackEvents: false}"


def test_a_file_that_is_being_written_counts_only_when_two_looks_agree(tmp_path: Path) -> None:
    """Each cut is readable, and each but the last would export an untracked flag's events."""
    path = tmp_path / "flags.yaml"
    writing = Writing(path, f"a: {UNTRACKED}\n", f"b: {UNTRACKED}\n", "c: ", f"{UNTRACKED}\n")
    source = KeptFlags("f", FileLocation(path, clock=writing.clock, sleep=writing.sleep))

    assert list(source.load()) == ["a", "b", "c"]
    assert sum(writing.slept) >= 2


def test_a_changed_file_is_waited_for_as_well(tmp_path: Path) -> None:
    """poll, too, does not take a file for its cut: the flags before stay until the new ones are whole."""
    path = tmp_path / "flags.yaml"
    writing = Writing(path, f"a: {UNTRACKED}\n")
    source = KeptFlags("f", FileLocation(path, clock=writing.clock, sleep=writing.sleep))
    source.load()
    path.write_text("")
    writing._pieces = ["b: {variations: {x: 1},", " trackEvents: false}\n"]
    writing.step()

    flags = source.poll()

    assert flags is not None
    assert not flags["b"].track


def test_a_file_that_never_rests_is_a_failure(tmp_path: Path) -> None:
    """The next poll looks again; the text says how to replace a file."""
    path = tmp_path / "flags.yaml"
    writing = Writing(path, f"a: {UNTRACKED}\n", *["# more\n"] * 50)
    source = KeptFlags("f", FileLocation(path, clock=writing.clock, sleep=writing.sleep))

    with pytest.raises(OSError, match=r"being written.*renaming"):
        source.load()
    writing._pieces.clear()
    assert list(source.load()) == ["a"]


@pytest.mark.parametrize("skew", [-3_600.0, 0.0, 1.5])
def test_a_file_from_another_clock_is_read_after_a_second_look(path: Path, skew: float) -> None:
    """A file system may date a file in the future: two looks that agree are enough, whatever its age."""
    slept: list[float] = []
    now = path.stat().st_mtime + skew
    place = FileLocation(path, clock=lambda: now, sleep=slept.append)

    assert place.fetch(unconditional=True) is not None
    assert len(slept) == 1
    assert 0 < slept[0] <= 2


def test_an_old_file_is_read_at_once(path: Path) -> None:
    """A file at rest costs no second look."""
    slept: list[float] = []
    place = FileLocation(path, clock=settled, sleep=slept.append)

    assert place.fetch(unconditional=True) is not None
    assert slept == []


def test_an_unreadable_file_says_what_told_its_format(tmp_path: Path) -> None:
    """A person who named the file wrongly, or set the wrong format, sees which of the two it was."""
    path = tmp_path / "flags.json"
    path.write_text(A)

    with pytest.raises(FlagFileError, match=r"read as json by the suffix \.json"):
        KeptFlags("f", FileLocation(path, clock=settled)).load()
    with pytest.raises(FlagFileError, match="read as toml by the setting format"):
        KeptFlags("f", FileLocation(path, "toml", clock=settled)).load()


def test_a_pipe_is_no_flag_file(tmp_path: Path) -> None:
    """Opening it would wait for somebody who writes, and the worker would say nothing."""
    path = tmp_path / "flags.yaml"
    os.mkfifo(path)

    with pytest.raises(OSError, match=r"flags\.yaml: is not a regular file"):
        KeptFlags("f", FileLocation(path, clock=settled)).load()
