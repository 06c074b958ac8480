"""Finds out whether two templates can give the same name. Then two sinks in one place would take each other's
objects for their own.

A name is a row of symbols: a given character, or one of a kind, once or several times. Two rows share a name
if one can walk through both side by side. The walk remembers nothing (such as a partition that occurs twice),
so templates that differ here differ for certain.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from flagstream.sinks.objects.layouts import ESCAPED
from flagstream.sinks.objects.names import (
    EVENT_FIELDS,
    EXTENSIONS,
    FORMATS,
    OFFSET_DIGITS,
    Field,
    NameTemplate,
)

_DIGITS = frozenset(string.digits)
_NO_VALUE = ESCAPED.replace("%", "")
"""The characters that ``layouts.path_safe`` removes from every value."""


@dataclass(frozen=True, slots=True)
class _Symbol:
    """Stands for one character of ``of``, or several. ``of`` None: any character, ``but`` those."""

    of: frozenset[str] | None
    but: str = ""
    several: bool = False

    def meets(self, other: "_Symbol") -> bool:
        if self.of is not None and other.of is not None:
            return not self.of.isdisjoint(other.of)
        if self.of is None and other.of is None:
            return True
        one, any_but = (self.of, other.but) if self.of is not None else (other.of or (), self.but)
        return any(character not in any_but for character in one)


Names = tuple[str, Sequence[NameTemplate]]
"""All names of a sink: the text before them, and their templates."""


def overlap(one: Names, other: Names, topic: str) -> bool:
    """Return whether two sinks can give the same name to objects of ``topic``.

    Formats make no difference: to a sink, a range that is stored in another format is stored.
    """
    (root, templates), (other_root, other_templates) = one, other
    return any(
        _meet(_symbols(root, left, topic, *kind), _symbols(other_root, right, topic, *kind))
        for left, right in product(templates, other_templates)
        for kind in product(FORMATS, EXTENSIONS)
    )


def _symbols(root: str, template: NameTemplate, topic: str, form: str, extension: str) -> list[_Symbol]:
    known = {"Topic": topic, "Format": form, "Extension": extension}
    row = [_Symbol(frozenset(character)) for character in root]
    for piece in template.pieces:
        if isinstance(piece, str) or piece.name in known:
            text = piece if isinstance(piece, str) else known[piece.name]
            row += [_Symbol(frozenset(character)) for character in text]
        else:
            row += _field(piece)
    return row


def _field(field: Field) -> list[_Symbol]:
    if field.name in ("Start", "End"):
        return [_Symbol(_DIGITS)] * OFFSET_DIGITS
    if field.name == "Partition":
        return [_Symbol(_DIGITS, several=True)]
    if field.name in EVENT_FIELDS:
        return [_Symbol(None, but=_NO_VALUE, several=True)]
    row: list[_Symbol] = []
    for part in re.split("(/)", field.sample):
        if part:  # between its slashes a time can look like anything
            row.append(_Symbol(frozenset("/")) if part == "/" else _Symbol(None, but="/", several=True))
    return row


def _meet(one: Sequence[_Symbol], other: Sequence[_Symbol]) -> bool:
    """Return whether some text matches both rows."""
    reached, ahead = {(0, 0)}, [(0, 0)]
    while ahead:
        at, there = ahead.pop()
        if at == len(one) or there == len(other):
            if at == len(one) and there == len(other):
                return True
            continue
        if not one[at].meets(other[there]):
            continue
        steps = product(_following(one, at), _following(other, there))
        new = [step for step in steps if step not in reached]
        reached.update(new)
        ahead += new
    return False


def _following(row: Sequence[_Symbol], at: int) -> tuple[int, ...]:
    return (at + 1, at) if row[at].several else (at + 1,)
