"""Names of objects: templates that make a name from a range and, in a layout, from events.

The syntax is Go's (``{{ .Topic }}``), as in GO Feature Flag's file names. A name has to be a function of the
window and of nothing else: a worker that takes a window over must arrive at the same name. So a template
without topic, partition, start or end, or with a host or a clock, is refused when the configuration is read.

A template of range fields alone can be read again: :meth:`NameTemplate.parser` finds the range in a name. One
with fields of events (``{{ .Key }}``, ``{{ .EventTime "%Y-%m-%d" }}``) or with the time of the first event
(``{{ .Time "%H" }}``) is a layout: see :mod:`flagstream.sinks.objects.layouts`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator

from flagstream.chunk import Partition
from flagstream.formats.go_template import NAMES, Mark, marked
from flagstream.units import wrong
from flagstream.window import OffsetRange

DEFAULT_NAME = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.{{ .Extension }}"

OFFSET_DIGITS = 19
"""Digits of the largest offset (2^63 - 1). Padded to them, names sort as offsets do, so one listing is in
order.
"""

EXTENSIONS = ("jsonl.gz", "jsonl.zst", "jsonl", "csv.gz", "csv.zst", "csv", "avro", "parquet")
"""Extensions of all formats: a sink also holds the ranges that it stored in another format."""

FORMATS = ("jsonl", "csv", "avro", "parquet")

EVENT_FIELDS = {
    name: NAMES[name]
    for name in (
        "Kind",
        "ContextKind",
        "UserKey",
        "Key",
        "Variation",
        "Value",
        "Default",
        "Version",
        "Source",
        "Metadata",
    )
}
"""The fields of events that an object can be named after: GO Feature Flag's name, and the event's."""

_NEEDED = ("Topic", "Partition", "Start", "End")
_OF_RANGE = (*_NEEDED, "Format", "Extension")
_OF_TIME = ("Time", "EventTime")
_KNOWN = (*_OF_RANGE, *_OF_TIME, *EVENT_FIELDS)
_VARIABLE_WIDTH = {"Topic", "Partition"}
_FIELD = re.compile(r"\s*\.([A-Za-z]+)(?:\.([A-Za-z_][A-Za-z0-9_-]*))?(?:\s+\"([^\"]*)\")?\s*")
_HOSTS_ZONE = re.compile(r"(?<!%)(?:%%)*%[-_0^#EO]*[0-9]*s")
_SAMPLE = datetime(2026, 11, 22, 13, tzinfo=UTC)
_NOT_OF_THE_RANGE = {
    "Hostname": "the host",
    "Timestamp": "the clock",
    "FormattedDate": "the clock",
    "Count": "a counter",
    "Uuid": "chance",
    "UUID": "chance",
}


@dataclass(frozen=True, slots=True)
class Field:
    """Describes a field of a template; ``member`` of Metadata, ``form`` of a time (strftime)."""

    name: str
    member: str = ""
    form: str = ""

    def __str__(self) -> str:
        member = f".{self.member}" if self.member else ""
        form = f' "{self.form}"' if self.form else ""
        return f"{{{{ .{self.name}{member}{form} }}}}"

    @property
    def sample(self) -> str:
        """Return some time in this form. Every other time has its slashes at the same places."""
        return _SAMPLE.strftime(self.form)


Piece = str | Field


class NameTemplate:
    """Holds a checked template. New names get ``format`` and ``extension``.

    Raises ValueError with what is wrong and what would be right.
    """

    def __init__(self, text: str, format: str, extension: str) -> None:
        self.pieces = _pieces(text)
        self._format = format
        self._extension = extension
        _check(text, self.pieces)

    @property
    def event_fields(self) -> Sequence[Field]:
        """The fields that are filled from events, in order. If there are none, the range alone makes the
        name.
        """
        return [piece for piece in self.pieces if isinstance(piece, Field) and piece.name not in _OF_RANGE]

    def render(self, range_: OffsetRange, values: Mapping[Field, str] | None = None) -> str:
        """Return the name of ``range_``'s object, with ``/`` between folders. ``values`` holds the values of
        the event fields.
        """
        known = {
            "Topic": range_.partition.topic,
            "Partition": str(range_.partition.index),
            "Start": f"{range_.start:0{OFFSET_DIGITS}}",
            "End": f"{range_.end:0{OFFSET_DIGITS}}",
            "Format": self._format,
            "Extension": self._extension,
        }
        return "".join(
            piece if isinstance(piece, str) else known.get(piece.name) or (values or {})[piece]
            for piece in self.pieces
        )

    def parse(self, name: str, partition: Partition) -> OffsetRange | None:
        """Return the range of ``partition`` in ``name``; None for another partition or a foreign name.

        For many names use :meth:`parser`, which prepares the pattern once.
        """
        return self.parser(partition)(name)

    def parser(self, partition: Partition) -> "NameParser":
        """Return a parser for many names of one partition. The template must not have event fields."""
        seen: set[str] = set()
        pattern = ""
        for piece in self.pieces:
            pattern += (
                re.escape(piece) if isinstance(piece, str) else self._group(piece.name, partition, seen)
            )
        return NameParser(partition, re.compile(pattern))

    def prefix(self, partition: Partition) -> str:
        """Return the beginning of all names of ``partition``, for a listing. Names of other partitions may
        begin with it too.
        """
        return self._leading(partition)[0]

    def after(self, partition: Partition, start: int) -> str:
        """Return a text that sorts before the names of all ranges from ``start`` on; "" if names do not
        sort so.
        """
        prefix, following = self._leading(partition)
        if following is None or following.name != "Start":
            return ""
        return f"{prefix}{start:0{OFFSET_DIGITS}}"

    @property
    def folder(self) -> str:
        """The folders that all names begin with, each followed by ``/``."""
        first = self.pieces[0]
        return first[: first.rfind("/") + 1] if isinstance(first, str) else ""

    def _leading(self, partition: Partition) -> tuple[str, Field | None]:
        known = {"Topic": partition.topic, "Partition": str(partition.index)}
        prefix = ""
        for piece in self.pieces:
            if isinstance(piece, Field) and piece.name not in known:
                return prefix, piece
            prefix += piece if isinstance(piece, str) else known[piece.name]
        return prefix, None

    def _group(self, field: str, partition: Partition, seen: set[str]) -> str:
        known = {
            "Topic": re.escape(partition.topic),
            "Partition": str(partition.index),
            "Start": f"[0-9]{{{OFFSET_DIGITS}}}",
            "End": f"[0-9]{{{OFFSET_DIGITS}}}",
            "Format": "|".join(FORMATS),
            "Extension": "|".join(map(re.escape, EXTENSIONS)),
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

    def __call__(self, name: str) -> OffsetRange | None:
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        start, end = int(match["Start"]), int(match["End"])
        return OffsetRange(self._partition, start, end) if start < end else None


def _pieces(text: str) -> list[Piece]:
    """Return ``text`` as literals and fields, in order."""
    return [_field(piece) if isinstance(piece, Mark) else piece for piece in marked(text)]


def _field(found: Mark) -> Field:
    mark, match = found.text, _FIELD.fullmatch(found.inner)
    if match is None or found.trims:
        raise ValueError(f"{mark} is not a plain field; write one of {_listed(_KNOWN)}")
    name, member, form = match[1], match[2] or "", match[3] or ""
    if name in _NOT_OF_THE_RANGE:
        raise ValueError(
            f"{mark} would name an object after {_NOT_OF_THE_RANGE[name]}, and a repeated delivery would "
            f'store it twice; the time of the first event is {{{{ .Time "%Y-%m-%d" }}}}'
        )
    if name not in _KNOWN:
        raise ValueError(f"{mark} is not known; write one of {_listed(_KNOWN)}")
    if (name == "Metadata") != bool(member):
        right = "write {{ .Metadata.name }}" if name == "Metadata" else f"{name} has no members"
        raise ValueError(f"{mark}: {right}")
    if name in _OF_TIME:
        _check_form(mark, name, form)
    elif form:
        raise ValueError(f"{mark}: only Time and EventTime take a form")
    return Field(name, member, form)


def _check_form(mark: str, name: str, form: str) -> None:
    if "%" not in form:
        raise ValueError(f'{mark} needs a form of strftime, such as {{{{ .{name} "%Y-%m-%d" }}}}')
    if _HOSTS_ZONE.search(form):
        raise ValueError(f"{mark}: %s counts in the host's own time zone, so two hosts would differ")
    shown = _SAMPLE.strftime(form)
    if not shown.strip("/") or not shown.isprintable() or "\\" in shown or "%" in shown:
        raise ValueError(f"{mark}: the form gives {shown!r}, which cannot stand in a name")


def _check(text: str, pieces: list[Piece]) -> None:
    fields = {piece.name for piece in pieces if isinstance(piece, Field)}
    if missing := [field for field in _NEEDED if field not in fields]:
        raise ValueError(f'"{text}" lacks {_listed(missing)}; without them two windows could share a name')
    literals = "".join(piece if isinstance(piece, str) else "x" for piece in pieces)
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
            "a name; put a character that is not a digit between them"
        )
    for one, other in pairwise(pieces):
        if isinstance(one, Field) and isinstance(other, Field) and {one.name, other.name} <= {*_OF_TIME}:
            raise ValueError(f"{one} and {other} run into each other; write one form, or put / between them")
    for field in _not_alone(pieces):
        raise ValueError(
            f"{field} must stand between / (or = and /), as in flag={field}/: a value can hold any other "
            "character, so two windows could share a name"
        )


def _not_alone(pieces: list[Piece]) -> Iterator[Field]:
    """Yield fields of events that do not stand alone: their values can hold any character but ``/`` and
    ``=``.
    """
    for at, piece in enumerate(pieces):
        if isinstance(piece, str) or piece.name not in EVENT_FIELDS:
            continue
        before = pieces[at - 1] if at else "/"
        after = pieces[at + 1] if at + 1 < len(pieces) else ""
        closed = isinstance(before, str) and before.endswith(("/", "="))
        if not closed or not (isinstance(after, str) and after.startswith("/")):
            yield piece


def _unseparated(pieces: list[Piece]) -> Iterator[tuple[str, str]]:
    """Yield neighbouring fields of which one has no fixed width, with nothing but digits between them.

    Start and End have a fixed width: ``{{.Start}}{{.End}}`` can be read again. ``{{.Partition}}{{.Start}}``
    or ``{{.Topic}}1{{.Partition}}`` (topic a, partition 11 or topic a1, partition 1: both a111) cannot.
    """
    before, between = "", ""
    for piece in pieces:
        if isinstance(piece, str):
            between += piece
            continue
        separated = any(not character.isdigit() for character in between)
        if before and not separated and {before, piece.name} & _VARIABLE_WIDTH:
            yield before, piece.name
        before, between = piece.name, ""


def _listed(fields: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{{ .{field} }}}}" for field in fields)


def _checked(text: str) -> str:
    try:
        NameTemplate(text, "jsonl", "jsonl")
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


ObjectName = Annotated[str, AfterValidator(_checked)]
"""A setting that is a name template; mistakes are reported with the setting's path."""
