"""How people write durations, sizes and start positions, and the types that settings use for them."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

MIB = 1024**2

_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": MIB, "GiB": 1024**3}


LONGEST = 3650 * 86400.0
"""Most seconds, ten years: nobody means longer, and beyond 292 years the timers of threads overflow."""
LONGEST_BARE = 3600.0
"""Most seconds without a unit: a larger number probably means milliseconds, the unit of other programs."""
SMALLEST_BARE = 1024
"""Fewest bytes without a unit: a smaller number probably means megabytes or kilobytes."""


@dataclass(frozen=True, slots=True)
class Written:
    """How a type is written in the configuration: its name, and a value of it as a user would write it."""

    kind: str
    text: Callable[[object], str]


def wrong(message: str) -> PydanticCustomError:
    """Return the error for an unacceptable value; ``message`` says what was found and what would be right."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


def _quantity(value: object, units: Mapping[str, float]) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) and value >= 0 else None
    if not isinstance(value, str) or not (match := _NUMBER_AND_UNIT.fullmatch(value.strip())):
        return None
    number, unit = match.groups()
    found = float(number) * units[unit] if unit in units else math.inf
    return found if math.isfinite(found) else None


def parse_seconds(value: object) -> float:
    """Return seconds from ``"200ms"``, ``"60s"``, ``"5m"``, ``"1h"``, ``"1d"`` or a number of seconds."""
    seconds = _quantity(value, _SECONDS | {"": 1.0})
    if seconds is None:
        raise wrong(f"{shown(value)} is not a duration; write 60s, 5m or 1h")
    if seconds > LONGEST:
        raise wrong(f"{shown(value)} is more than ten years; write at most {LONGEST / 86400:g}d")
    if seconds > LONGEST_BARE and is_bare(value):
        raise wrong(
            f"{shown(value)} without a unit is seconds, {seconds / 3600:.1f} hours; write "
            f"{format_seconds(seconds / 1000)} if milliseconds are meant, else {format_seconds(seconds)}"
        )
    return seconds


def is_bare(value: object) -> bool:
    """Return whether a duration or a size is a number without a unit, even as text (environment
    variables).
    """
    return isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(r"[0-9.]+", value.strip()) is not None
    )


def bare_size_problem(value: object) -> str | None:
    """Return why ``value``, a size as it is written, is probably not in bytes; None if it is."""
    if not is_bare(value) or isinstance(value, bool) or float(str(value)) >= SMALLEST_BARE:
        return None
    count = str(value).strip()
    return f'{shown(value)} without a unit is bytes; write "{count}MiB", or "{count}B" if bytes are meant'


def parse_bytes(value: object) -> int:
    """Return bytes from ``"64MiB"``, ``"1MB"``, ``"100kB"`` or a number of bytes."""
    count = _quantity(value, _BYTES | {"": 1})
    if count is None or count != int(count):
        raise wrong(f"{shown(value)} is not a size; write 64MiB, 1MB or a number of bytes")
    return int(count)


def parse_start(value: object) -> object:
    """Return ``"beginning"``, ``"latest"`` or a time with its zone, from text or TOML's own date-time."""
    if value in ("beginning", "latest"):
        return value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise wrong(f"{shown(value)} is not a start; {_START}") from None
    if not isinstance(value, datetime):
        raise wrong(f"{shown(value)} is not a start; {_START}")
    if value.tzinfo is None:
        raise wrong(f'{shown(value)} has no time zone; write "{value.isoformat()}Z" for UTC')
    return value


_START = 'write "beginning", "latest" or a time such as "2026-01-31T00:00:00Z"'


def parse_count(value: object) -> object:
    """Refuse ``true`` for a number: pydantic would read it as 1."""
    if isinstance(value, bool):
        raise wrong(f"{shown(value)} is not a number")
    return value


def visible(text: str) -> str:
    """Return ``text`` on one line, with control characters as Python writes them."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def shown(value: object) -> str:
    """Return a found value as TOML writes it, cut to fit in a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = visible(text)
    return text if len(text) <= 60 else text[:56] + " ..."


def _largest_unit(value: float, units: Mapping[str, float]) -> str:
    for unit, size in sorted(units.items(), key=lambda item: -item[1]):
        if value >= size and (value / size).is_integer():
            return f"{int(value / size)}{unit}"
    return str(value)


def format_seconds(seconds: float) -> str:
    """Return ``60.0`` as ``"60s"``, ``0.2`` as ``"200ms"``."""
    if seconds >= 1 and float(seconds).is_integer():
        return f"{int(seconds)}s"
    return f"{round(seconds * 1000)}ms"


def format_bytes(count: int) -> str:
    """Return ``67108864`` as ``"64MiB"``."""
    return _largest_unit(float(count), {unit: _BYTES[unit] for unit in ("B", "KiB", "MiB", "GiB")})


Seconds = Annotated[
    float, BeforeValidator(parse_seconds), Written("duration", lambda v: f'"{format_seconds(float(str(v)))}"')
]
"""A duration: seconds in the program, ``"200ms"``, ``"60s"``, ``"5m"``, ``"1h"`` in the configuration."""

Bytes = Annotated[
    int, BeforeValidator(parse_bytes), Written("size", lambda v: f'"{format_bytes(int(str(v)))}"')
]
"""A size in bytes, in the configuration ``"64MiB"`` (1024) or ``"64MB"`` (1000)."""


def _one_line(text: str) -> str:
    if unfit := control_character(text):
        raise wrong(f"holds {unfit}; write it on one line")
    return text


def control_character(text: str) -> str | None:
    """Return the first control character in ``text``, in words; None if there is none. It quotes nothing
    else.
    """
    for position, character in enumerate(text):
        if unicodedata.category(character) == "Cc":
            what = "a line break" if character in "\r\n" else f"a control character (U+{ord(character):04X})"
            return what + (" at its end" if not text[position:].strip(character + "\r\n") else "")
    return None


Line = Annotated[str, AfterValidator(_one_line)]
"""A text without line breaks and other control characters: names, addresses, ids."""

Count = Annotated[int, BeforeValidator(parse_count), Written("number", str)]
"""A whole number."""

Start = Annotated[
    Literal["beginning", "latest"] | datetime,
    BeforeValidator(parse_start),
    Written("start", lambda v: f'"{v}"'),
]
"""Where to begin reading a partition for which the group has no offset; a datetime always has its zone."""


def _topic_name(name: str) -> str:
    # Kafka's own rule
    if not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", name):
        raise wrong(f'{shown(name)} is not a topic name; use up to 249 letters, digits, ".", "_" and "-"')
    return name


TopicName = Annotated[str, AfterValidator(_topic_name)]
