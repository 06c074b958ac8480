"""Names of objects: templates that make a name from a range, and find the range in a name again.

The syntax is Go's (``{{ .Topic }}``), as in GO Feature Flag's file names. A name has to be a function of
topic, partition, start and end, and of nothing else: a worker that takes a window over must arrive at the
same name. So a template without one of them, or with a host or a clock, is refused when the configuration is
read.
"""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from worker.chunk import Partition
from worker.units import wrong
from worker.window import Range

DEFAULT_NAME = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"

OFFSET_DIGITS = 19
"""Digits of the largest offset (2^63 - 1). Padded to them, names sort as offsets do, so one listing is in
order.
"""

_NEEDED = ("Topic", "Partition", "Start", "End")
_FIELDS = (*_NEEDED, "Extension")
_VARIABLE_WIDTH = {"Topic", "Partition"}
_MARK = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"\s*\.([A-Za-z]+)\s*")
_NOT_OF_THE_RANGE = {
    "Hostname": "the host",
    "Timestamp": "the clock",
    "FormattedDate": "the clock",
    "Count": "a counter",
    "Uuid": "chance",
    "UUID": "chance",
}


class NameTemplate:
    """A checked template. ``extensions[0]`` is what new names get, any of them is understood when a name is
    read.

    Raises ValueError with what is wrong and what would be right.
    """

    def __init__(self, text: str, extensions: tuple[str, ...]) -> None:
        self._pieces = _pieces(text)
        self._extensions = extensions
        _check(text, self._pieces)

    def render(self, range_: Range) -> str:
        """The name of ``range_``'s object, with ``/`` between folders."""
        values = {
            "Topic": range_.partition.topic,
            "Partition": str(range_.partition.index),
            "Start": f"{range_.start:0{OFFSET_DIGITS}}",
            "End": f"{range_.end:0{OFFSET_DIGITS}}",
            "Extension": self._extensions[0],
        }
        return "".join(values[field] if field else literal for literal, field in self._pieces)

    @property
    def folders(self) -> int:
        """How many folders a name has: a topic holds no ``/``, so it is the same for all."""
        return sum(literal.count("/") for literal, _ in self._pieces)

    def parse(self, name: str, partition: Partition) -> Range | None:
        """The range of ``partition`` that ``name`` stands for; None when it is another's, or no name of ours.

        For many names use :meth:`parser`, which prepares the pattern once.
        """
        return self.parser(partition)(name)

    def parser(self, partition: Partition) -> "NameParser":
        """What :meth:`parse` does, for many names of one partition."""
        seen: set[str] = set()
        pattern = ""
        for literal, field in self._pieces:
            pattern += re.escape(literal) if not field else self._group(field, partition, seen)
        return NameParser(partition, re.compile(pattern))

    def prefix(self, partition: Partition) -> str:
        """What all names of ``partition`` begin with; the place to list from. Other partitions' names may
        share it.
        """
        known = {"Topic": partition.topic, "Partition": str(partition.index)}
        prefix = ""
        for literal, field in self._pieces:
            if field and field not in known:
                break
            prefix += known[field] if field else literal
        return prefix

    def _group(self, field: str, partition: Partition, seen: set[str]) -> str:
        known = {
            "Topic": re.escape(partition.topic),
            "Partition": str(partition.index),
            "Start": f"[0-9]{{{OFFSET_DIGITS}}}",
            "End": f"[0-9]{{{OFFSET_DIGITS}}}",
            "Extension": "|".join(map(re.escape, self._extensions)),
        }
        if field in seen:
            return f"(?P={field})"
        seen.add(field)
        return f"(?P<{field}>{known[field]})"


class NameParser:
    """Finds the ranges of one partition in names."""

    def __init__(self, partition: Partition, pattern: re.Pattern[str]) -> None:
        self._partition = partition
        self._pattern = pattern

    def __call__(self, name: str) -> Range | None:
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        start, end = int(match["Start"]), int(match["End"])
        return Range(self._partition, start, end) if start < end else None


def _pieces(text: str) -> list[tuple[str, str]]:
    """``text`` as (literal, "") and ("", field), in order."""
    pieces: list[tuple[str, str]] = []
    at = 0
    for mark in _MARK.finditer(text):
        if mark.start() > at:
            pieces.append((text[at : mark.start()], ""))
        pieces.append(("", _field(mark[0], mark[1])))
        at = mark.end()
    if at < len(text):
        pieces.append((text[at:], ""))
    return pieces


def _field(mark: str, inner: str) -> str:
    match = _FIELD.fullmatch(inner)
    if match is None:
        raise ValueError(f"{mark} is no plain field; write one of {_listed(_FIELDS)}")
    field = match[1]
    if field in _NOT_OF_THE_RANGE:
        raise ValueError(
            f"{mark} would name an object after {_NOT_OF_THE_RANGE[field]}, and a repeated delivery would "
            f"store it twice; a name is made of {_listed(_FIELDS)} only"
        )
    if field == "Format":
        raise ValueError(
            f"{mark} is not known here; write {{{{ .Extension }}}}, which includes the compression"
        )
    if field not in _FIELDS:
        raise ValueError(f"{mark} is not known; write one of {_listed(_FIELDS)}")
    return field


def _check(text: str, pieces: list[tuple[str, str]]) -> None:
    fields = {field for _, field in pieces}
    if missing := [field for field in _NEEDED if field not in fields]:
        raise ValueError(f'"{text}" lacks {_listed(missing)}; without them two windows could share a name')
    literals = "".join(literal or "x" for literal, _ in pieces)
    if "{{" in literals or "}}" in literals:
        raise ValueError(f'"{text}" has {{{{ or }}}} without its counterpart')
    if not literals.isprintable() or "\\" in literals:
        raise ValueError(f'"{text}" contains a control character or a backslash; separate folders by /')
    if literals.startswith("/"):
        raise ValueError(f'"{text}" is absolute; a name is relative to the sink\'s own place')
    if any(folder in ("", ".", "..") for folder in literals.split("/")):
        raise ValueError(
            f'"{text}" has an empty folder name, "." or ".."; names must stay below the sink\'s own place'
        )
    for left, right in _unseparated(pieces):
        raise ValueError(
            f"{_listed([left])} and {_listed([right])} run into each other, so two windows could share "
            "a name; put a character that is no digit between them"
        )


def _unseparated(pieces: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Neighbouring fields of which one has no fixed width, with nothing but digits between them.

    Start and End have a fixed width: ``{{.Start}}{{.End}}`` can be read again. ``{{.Partition}}{{.Start}}``
    or ``{{.Topic}}1{{.Partition}}`` (topic a, partition 11 or topic a1, partition 1: both a111) cannot.
    """
    before, between = "", ""
    for literal, field in pieces:
        if not field:
            between += literal
            continue
        separated = any(not character.isdigit() for character in between)
        if before and not separated and {before, field} & _VARIABLE_WIDTH:
            yield before, field
        before, between = field, ""


def _listed(fields: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{{ .{field} }}}}" for field in fields)


def _checked(text: str) -> str:
    try:
        NameTemplate(text, ("jsonl",))
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


ObjectName = Annotated[str, AfterValidator(_checked)]
"""A setting that is a name template; mistakes are reported with the setting's path."""
