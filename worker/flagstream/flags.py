"""Flags, as far as an event's enrichment needs them, read from GO Feature Flag's files (current and old
format).

The worker evaluates no flags: it ignores rules, percentages, bucketing and experimentation, and does not
refuse a flag for a mistake in them. If a flag file is ambiguous, the reading counts that loses no event.
There is one exception: if a file readably says that a flag's events are not exported, they are not.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, Final, TypeVar

from flagstream.flag_files import FlagFileError, FlagFormat, parse_document

__all__ = ["Flag", "FlagFileError", "FlagFormat", "FlagSet", "build_flags", "parse_flags"]


@dataclass(frozen=True, slots=True)
class Flag:
    """Describes a flag at one moment, scheduled steps applied. `version` is "" if the flag has none,
    otherwise the text as it is written: 1.10 is "1.10". `variations` are values by name, with the types that
    the file gives them.
    """

    track: bool
    disabled: bool
    version: str
    variations: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FlagSet(Mapping[str, Flag]):
    """Holds flags by name.

    `invalid` says what is wrong with flags, by name. A flag that is only in `invalid` is unknown to the
    worker: its events are exported. A flag in both maps is used as far as it can be read: a scheduled step
    was left out, or the flag is invalid and readably says `trackEvents: false`, which holds all the same.
    `next_change` is the time at which a scheduled step next changes a flag, so that the set must be built
    again; None if never.
    """

    flags: Mapping[str, Flag] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    next_change: datetime | None = None

    def __getitem__(self, name: str) -> Flag:
        return self.flags[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.flags)

    def __len__(self) -> int:
        return len(self.flags)


def parse_flags(text: bytes | str, format: FlagFormat, now: datetime) -> FlagSet:
    """Return the flags of a file as they are at `now` (with a time zone). Raises `FlagFileError`."""
    return build_flags(parse_document(text, format), now)


def build_flags(document: Mapping[str, Any], now: datetime) -> FlagSet:
    """Return the flags described in a parsed file, as they are at `now`. Invalid ones are dropped one by one.

    Raises `FlagFileError` for a document that has entries but no flag: the error that a server sends in place
    of the file is often such a map.
    """
    flags: dict[str, Flag] = {}
    invalid: dict[str, str] = {}
    changes: list[datetime] = []
    for name, description in document.items():
        flag, faults, later = _flag(description, now)
        if flag is not None:
            flags[name] = flag
        if faults:
            invalid[name] = "; ".join(faults)
        changes += later
    if invalid and not flags and not _holds_flags(document):
        shown = "; ".join(f"{name[:_SHOWN]}: {why}" for name, why in islice(invalid.items(), 3))
        raise FlagFileError(f"none of its entries ({len(invalid)}) is a flag: {shown}")
    return FlagSet(flags, invalid, min(changes, default=None))


_SHOWN: Final = 80
"""Characters of a name that an error shows: a file that is not a flag file may hold anything."""

_OF_FLAGS: Final = frozenset(
    {"variations", "defaultRule", "targeting", "trackEvents", "scheduledRollout", "bucketingKey"}
    | {"experimentation", "percentage", "rollout", "true", "false"}
)
"""Fields by which an invalid flag is recognised. Fields of other documents are not among them: Kubernetes
answers an error with `metadata`, others with `version`.
"""


def _holds_flags(document: Mapping[str, Any]) -> bool:
    """Return whether any entry, though invalid, was meant as a flag. An empty map counts only if all are
    empty.
    """
    fields = [entry.keys() if isinstance(entry, dict) else None for entry in document.values()]
    return any(names and names & _OF_FLAGS for names in fields) or all(names == set() for names in fields)


# --- one flag


T = TypeVar("T")


class _Unreadable(Exception):
    pass


def _flag(description: object, now: datetime) -> tuple[Flag | None, list[str], list[datetime]]:
    """Return the flag at `now`, what is wrong with it, and the dates of its future steps.

    For an invalid flag the first is None, unless it readably says that its events are not exported: then it
    is a flag that says only that.
    """
    if not isinstance(description, dict):
        return None, ["the flag is not a map"], []
    faults: list[str] = []
    later: list[datetime] = []
    withheld = _says_untracked(description) or False
    settings = _or_fault(_settings, description, faults)
    steps = _or_fault(_steps, description, faults)
    if steps is None:
        settings, steps = None, ()
    for number, step in enumerate(steps, 1):
        try:
            due = _date(_table(step, "the step").get("date"))
            if due > now:
                later.append(due)
                continue
            said = _says_untracked(_table(step, "the step"))
            withheld = withheld or said is True  # even if the rest of the step cannot be read
            change = _settings(_table(step, "the step"))
        except _Unreadable as error:
            faults.append(f"scheduled step {number} is passed over: {error}")
            continue
        if said is not None:
            withheld = said
        if settings is not None:
            change["variations"] = {**settings["variations"], **change["variations"]}
            settings |= {name: value for name, value in change.items() if value is not None}
    if settings is not None and (fault := _lacks_variations(settings["variations"])):
        settings = None
        faults.append(fault)
    if settings is None:
        return (Flag(False, False, "", {}) if withheld else None), faults, later
    flag = Flag(
        track=not withheld,
        disabled=settings["disable"] is True,
        version=settings["version"] or "",
        variations=settings["variations"],
    )
    return flag, faults, later


def _or_fault(
    read: Callable[[Mapping[str, Any]], T], table: Mapping[str, Any], faults: list[str]
) -> T | None:
    try:
        return read(table)
    except _Unreadable as error:
        faults.append(str(error))
        return None


def _lacks_variations(variations: Mapping[str, object]) -> str | None:
    if not variations:
        return "has no variations"
    empty = [name for name, value in variations.items() if value is None]
    return f"variation {empty[0]!r} has no value" if empty else None


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a flag or of a scheduled step; None for a setting that is not given."""
    _bool(table, "trackEvents")  # its meaning is that of _says_untracked
    return {
        "variations": _variations(table),
        "disable": _bool(table, "disable"),
        "version": _version(table.get("version")),
    }


def _says_untracked(table: Mapping[str, Any]) -> bool | None:
    """Return whether a flag or a step says that events are not exported; None if it says nothing readable.

    `trackEvents: "false"` and `trackevents: false` (which Go accepts in JSON and TOML) are meant so: any
    reading of false wins.
    """
    said = {_meaning(value) for name, value in table.items() if _folded(name) == "trackevents"} - {None}
    return None if not said else False in said


def _folded(name: str) -> str:
    return _NOT_OF_A_WORD.sub("", name).lower()


def _meaning(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value == 0:
        return False
    if isinstance(value, str):
        word = _AROUND.sub("", unicodedata.normalize("NFKC", value)).lower()
        return False if _FALSE.fullmatch(word) else _WORDS.get(word)
    return None


_NOT_OF_A_WORD: Final = re.compile(r"[\W_]+")
_AROUND: Final = re.compile(r"^[\W_]+|[\W_]+$")
"""Quotes, commas and white space of every kind: web pages and office programs leave invisible spaces."""
_FALSE: Final = re.compile(r"f(?:a(?:l(?:se?)?)?)?|no?|off?|0+")
"""The words for false, and the remainders of one if a file was cut short."""


def _variations(table: Mapping[str, Any]) -> dict[str, object]:
    if table.get("variations") is not None:
        return dict(_table(table["variations"], "variations"))
    return {name.capitalize(): table[name] for name in ("true", "false", "default") if name in table}


def _steps(table: Mapping[str, Any]) -> Sequence[object]:
    steps = table.get("scheduledRollout")
    if steps is None:
        rollout = _table(table.get("rollout") or {}, "rollout")
        steps = _table(rollout.get("scheduled") or {}, "rollout.scheduled").get("steps")
    if not isinstance(steps, list | None):
        raise _Unreadable("its scheduled steps are not a list")
    return steps or ()


def _table(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Unreadable(f"{what} is not a map")
    return value


# YAML 1.1 words, which Go's yaml package takes for booleans only where a boolean is expected, and the two of
# JSON in quotes, which templates leave there.
_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "y"), True),
    **dict.fromkeys(("false", "no", "off", "n"), False),
}


def _bool(table: Mapping[str, Any], name: str) -> bool | None:
    value = table.get(name)
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    if not isinstance(value, bool | None):
        raise _Unreadable(f"{name} is neither true nor false")
    return value


def _version(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(getattr(value, "text", value))
    raise _Unreadable("version is neither text nor a number")


_GO_DATE: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[Tt ](\d\d?):(\d\d?):(\d\d?)(?:[.,](\d+))? ?(Z|[+-]\d\d:\d\d)?)?"
)
"""The forms of Go's yaml package, in which months, days, hours, minutes and seconds may have one digit."""


def _date(value: object) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):  # TOML has dates without a time
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - UTC comes below
    if value is None:
        raise _Unreadable("it has no date")
    try:
        moment = value if isinstance(value, datetime) else _read_date(value)
    except (ValueError, TypeError):
        raise _Unreadable(f"it has no readable date, but {str(value)[:_SHOWN]!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_date(text: object) -> datetime:
    if not isinstance(text, str):
        raise TypeError
    match = _GO_DATE.fullmatch(text.strip())
    if match is None:
        return datetime.fromisoformat(text.strip())
    *numbers, fraction, zone = match.groups()
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    digits = f"{fraction or ''}000000"[:6]
    moment = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{digits}{zone or ''}"
    return datetime.fromisoformat(moment)
