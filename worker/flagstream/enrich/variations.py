"""Which variation an evaluation gave, found by its value alone."""

from collections.abc import Hashable, Mapping
from typing import Final

import msgspec

MAX_REMEMBERED: Final = 1024
"""Value texts kept for a flag. Evaluations give configured values, so a handful is the rule; the limit is for
a flag whose events carry something else each time."""

MAX_TEXT: Final = 1024
"""Bytes of the longest value text that is kept; so a flag remembers 1 MiB at most."""


class Variations:
    """Holds the variations of one flag, by value. Used by one thread only."""

    def __init__(self, variations: Mapping[str, object]) -> None:
        self._names: dict[Hashable, str] = {}
        for name, value in variations.items():
            key = _key(value)
            self._names[key] = "" if key in self._names else name
        self._remembered: dict[bytes, str] = {}

    def name_of(self, text: bytes) -> str:
        """Return the name of the only variation whose value is the JSON value `text`; "" if there is none, or
        more than one."""
        name = self._remembered.get(text)
        if name is None:
            name = self._find(text)
            if len(text) <= MAX_TEXT:
                if len(self._remembered) >= MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[text] = name
        return name

    def _find(self, text: bytes) -> str:
        try:
            return self._names.get(_key(msgspec.json.decode(text)), "")
        except ValueError:  # a number that no flag file can hold: 1e999
            return ""


def _key(value: object) -> Hashable:
    """Return a key that is equal for equal JSON values only: true is not 1, 1 is 1.0, and the order of a map
    does not count."""
    try:
        return _nested_key(value)
    except RecursionError:
        return object()


def _nested_key(value: object) -> Hashable:
    match value:
        case bool():  # to Python, True == 1
            return "bool", value
        case str() | int() | float() | None:
            return value
        case list():
            return "list", tuple(map(_nested_key, value))
        case dict():
            return "map", frozenset((name, _nested_key(part)) for name, part in value.items())
    return object()  # a date in a TOML file and the like, which no JSON value equals
