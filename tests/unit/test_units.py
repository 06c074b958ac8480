"""Durations, sizes and start positions as people write them."""

from datetime import UTC, datetime

import pytest
from pydantic_core import PydanticCustomError

from flagstream.units import MIB, format_bytes, format_seconds, parse_bytes, parse_seconds, parse_start, shown


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.2, "200ms"),
        (60.0, "60s"),
        (300.0, "5m"),
        (3600.0, "1h"),
        (86400.0, "1d"),
        (1.5, "1.5s"),
        (7.0, 7),
        (0.25, 0.25),
    ],
)
def test_durations_are_written_with_a_unit_or_as_seconds(seconds: float, written: object) -> None:
    """A text with a unit, or a bare number, is seconds in the program."""
    assert seconds == parse_seconds(written)


def test_what_no_timer_can_wait_for_is_refused() -> None:
    """A time is refused also where the number is too large for a float."""
    assert parse_seconds("3650d") == 3650 * 86400
    with pytest.raises(PydanticCustomError, match="is more than ten years; write at most 3650d"):
        parse_seconds("3651d")
    with pytest.raises(PydanticCustomError, match="is not a duration"):
        parse_seconds("9" * 400 + "s")
    with pytest.raises(PydanticCustomError, match="is not a size"):
        parse_bytes("9" * 400)


@pytest.mark.parametrize("written", ["60x", "", "s", "-5s", "1 hour", True, -1, float("nan"), None, [1]])
def test_what_is_no_duration_is_refused_with_what_was_found(written: object) -> None:
    """The message shows the value and three ways that are right."""
    with pytest.raises(PydanticCustomError, match="is not a duration; write 60s, 5m or 1h"):
        parse_seconds(written)


@pytest.mark.parametrize(
    ("count", "written"),
    [(64 * MIB, "64MiB"), (1_000_000, "1MB"), (1536, "1.5KiB"), (512, 512), (0, "0"), (2 * 1024**3, "2 GiB")],
)
def test_sizes_are_written_with_a_unit_or_as_bytes(count: int, written: object) -> None:
    """KiB, MiB and GiB are powers of 1024; kB, MB and GB of 1000."""
    assert count == parse_bytes(written)


@pytest.mark.parametrize("written", ["64M", "1.3B", "many", True, 1.5, -1])
def test_what_is_no_size_is_refused(written: object) -> None:
    """A fraction of a byte is refused, and a unit that leaves open which one is meant."""
    with pytest.raises(PydanticCustomError, match="is not a size"):
        parse_bytes(written)


def test_a_start_is_a_word_or_a_time_with_its_zone() -> None:
    """TOML's own date-times are taken too."""
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    assert ["beginning", "latest", moment, moment] == [
        parse_start(start) for start in ("beginning", "latest", "2026-01-31T00:00:00Z", moment)
    ]


def test_a_time_without_zone_is_refused_with_the_same_time_in_utc() -> None:
    """It would mean another position on each machine."""
    with pytest.raises(PydanticCustomError, match='no time zone; write "2026-01-31T00:00:00Z"'):
        parse_start("2026-01-31T00:00:00")


@pytest.mark.parametrize("written", ["yesterday", 5, None])
def test_what_is_no_start_is_refused(written: object) -> None:
    """The message names the two words and an example of a time."""
    with pytest.raises(PydanticCustomError, match='is not a start; write "beginning", "latest" or a time'):
        parse_start(written)


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("60s", 60.0), ("1500ms", 1.5), ("0ms", 0.0)])
def test_durations_are_shown_as_they_are_written(text: str, seconds: float) -> None:
    """What the reference prints can be put into the file."""
    assert text == format_seconds(seconds)
    assert seconds == parse_seconds(text)


@pytest.mark.parametrize(("text", "count"), [("64MiB", 64 * MIB), ("1000B", 1000), ("3GiB", 3 * 1024**3)])
def test_sizes_are_shown_as_they_are_written(text: str, count: int) -> None:
    """What the reference prints can be put into the file."""
    assert text == format_bytes(count)
    assert count == parse_bytes(text)


def test_a_long_value_is_cut_in_messages() -> None:
    """A problem is one line, however long the value is and whatever line breaks it holds."""
    line = shown("a\nb" * 100)
    assert "\n" not in line
    assert len(line) <= 60
