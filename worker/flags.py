"""Flags, as far as an event's enrichment needs them, read from GO Feature Flag's files (current and old
format).

The worker evaluates no flag: rules, percentages, bucketing and experimentation are not looked at, and a flag
is not refused for a mistake in them. Where a flag file leaves room for doubt, the reading that loses no event
is taken.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import yaml

from worker.errors import FlagstreamError

FlagFormat = Literal["yaml", "json", "toml"]


class FlagFileError(FlagstreamError):
    """A flag file that does not parse. Nothing of it is used; who has older flags keeps them."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag at one moment, scheduled steps applied. `version` is "" where the flag has none, and else the
    text as it is written: 1.10 is "1.10". `variations` are values by name, with the types that the file gives
    them."""

    track: bool
    disabled: bool
    version: str
    variations: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FlagSet(Mapping[str, Flag]):
    """Flags by name.

    `invalid` holds the flags that were dropped, with the reason. To the worker they are unknown: their
    events are exported, also where they say `trackEvents: false`. `next_change` is when a scheduled step next
    changes a flag, so that the set must be built anew; None if never.
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
    """The flags of a file as they are at `now` (with a time zone). Raises `FlagFileError`."""
    return build_flags(parse_document(text, format), now)


def parse_document(text: bytes | str, format: FlagFormat) -> Mapping[str, Any]:
    """What a flag file says, flag name to description. Keys are text as written, and so is a number's `text`.

    A file without any content is refused: it is what a reader sees of a file that is just being written, and
    taking it for "no flags" would export what must not be. `{}` is an empty set of flags. Raises
    `FlagFileError`.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        if not text.strip():
            raise FlagFileError("the file is empty; write {} where no flags are meant")
        document = _PARSERS[format](text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        # PyYAML says where in its own words for a text without a file; who calls us names the file.
        reason = _PLACE.sub(" at ", str(error)).replace("\n", "; ")
        raise FlagFileError(f"not readable as {format}: {reason}") from error
    if not isinstance(document, dict):
        raise FlagFileError("not a map of flag names to flags")
    return document


def build_flags(document: Mapping[str, Any], now: datetime) -> FlagSet:
    """The flags described in a parsed file, as they are at `now`. Invalid ones are dropped one by one."""
    flags, invalid, changes = {}, {}, []
    for name, description in document.items():
        try:
            flags[name], later = _flag(description, now)
        except _InvalidFlag as error:
            invalid[name] = str(error)
        else:
            changes += later
    return FlagSet(flags, invalid, min(changes, default=None))


# --- one flag


class _InvalidFlag(Exception):
    pass


def _flag(description: object, now: datetime) -> tuple[Flag, list[datetime]]:
    """The flag at `now`, and the dates of its steps still to come."""
    settings = _settings(_table(description, "the flag"))
    later = []
    for step in _steps(_table(description, "the flag")):
        date = _date(step.get("date"))
        if date > now:
            later.append(date)
            continue
        change = _settings(step)
        change["variations"] = {**settings["variations"], **change["variations"]}
        settings |= {name: value for name, value in change.items() if value is not None}
    variations = settings["variations"]
    if not variations:
        raise _InvalidFlag("has no variations")
    if empty := [name for name, value in variations.items() if value is None]:
        raise _InvalidFlag(f"variation {empty[0]!r} has no value")
    flag = Flag(
        track=settings["trackEvents"] is not False,
        disabled=settings["disable"] is True,
        version=settings["version"] or "",
        variations=variations,
    )
    return flag, later


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """What a flag or a scheduled step sets; None where it is silent."""
    return {
        "variations": _variations(table),
        "trackEvents": _bool(table, "trackEvents"),
        "disable": _bool(table, "disable"),
        "version": _version(table.get("version")),
    }


def _variations(table: Mapping[str, Any]) -> dict[str, object]:
    if table.get("variations") is not None:
        return dict(_table(table["variations"], "variations"))
    return {name.capitalize(): table[name] for name in ("true", "false", "default") if name in table}


def _steps(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = table.get("scheduledRollout")
    if steps is None:
        rollout = _table(table.get("rollout") or {}, "rollout")
        steps = _table(rollout.get("scheduled") or {}, "rollout.scheduled").get("steps")
    if not isinstance(steps, list | None):
        raise _InvalidFlag("its scheduled steps are not a list")
    return [_table(step, "a scheduled step") for step in steps or ()]


def _table(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _InvalidFlag(f"{what} is not a map")
    return value


# YAML 1.1 words, which Go's yaml package takes for booleans only where a boolean is expected.
_WORDS: Final = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}


def _bool(table: Mapping[str, Any], name: str) -> bool | None:
    value = table.get(name)
    if isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if not isinstance(value, bool | None):
        raise _InvalidFlag(f"{name} is neither true nor false")
    return value


def _version(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(getattr(value, "text", value))
    raise _InvalidFlag("version is neither text nor a number")


def _date(value: object) -> datetime:
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise _InvalidFlag(f"a scheduled step has no readable date, but {value!r}") from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


# --- the three formats


class _Int(int):
    text: str


class _Float(float):
    text: str


def _float(text: str) -> _Float:
    number = _Float(text)
    number.text = text
    return number


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _json(text: str) -> object:
    return json.loads(text, parse_float=_float, parse_constant=_refuse_constant)


def _toml(text: str) -> object:
    return tomllib.loads(text, parse_float=_float)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Go's yaml package reads it, where PyYAML differs: keys are text as written (`true:`, `on:`),
    only true and false are booleans (`on` and `yes` are text), dates are text, 1e3 is a number, 1:30 is
    none."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to set it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is not text", node.start_mark)
        if len(set(keys)) < len(keys):
            double = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {double!r} is there twice", node.start_mark
            )
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_int(self, node: yaml.ScalarNode) -> _Int:
        number = _Int(self.construct_yaml_int(node))
        number.text = node.value
        return number

    def construct_float(self, node: yaml.ScalarNode) -> _Float:
        number = _Float(self.construct_yaml_float(node))
        number.text = node.value
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0[0-7_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


# libyaml's composer recurses in C without a check: 50,000 open brackets end the process. Its parser does not
# recurse.
_MAX_YAML_DEPTH: Final = 100


def _yaml(text: str) -> object:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_YAML_DEPTH:
            raise ValueError("nested too deeply")
    loader = _Loader(text)
    try:
        # Built in one go, so that an alias to something around itself is an error and not an endless value.
        node = loader.get_single_node()
        return node and loader.construct_object(node, deep=True)
    except (KeyError, AttributeError, TypeError) as error:  # PyYAML's answer to `!!bool x` and its like
        raise ValueError(f"a value does not fit its tag: {error}") from error
    finally:
        loader.dispose()


_PLACE: Final = re.compile(r'\s+in "<[a-z ]+>", ')

_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {"yaml": _yaml, "json": _json, "toml": _toml}
