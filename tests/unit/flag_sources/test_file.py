import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from worker.flag_sources import FlagSource
from worker.flag_sources.file import FilePlace
from worker.flag_sources.kept import KeptFlags
from worker.flags import FlagFileError

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
    return KeptFlags(str(path), FilePlace(path), clock)


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

    assert list(KeptFlags(name, FilePlace(tmp_path / name)).load()) == ["a"]


def test_a_given_format_beats_the_suffix(path: Path) -> None:
    """A format that is set holds whatever the file is called."""
    path.write_text("a = {variations = {x = 1}}")

    assert list(KeptFlags("flags", FilePlace(path, "toml")).load()) == ["a"]


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
