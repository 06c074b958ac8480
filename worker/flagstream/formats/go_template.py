"""Templates in Go's ``text/template`` syntax, as far as GO Feature Flag's users need it for a line of text.

Understood: fields of an event with their members (``{{ .Metadata.app}}``), ``{{-`` and ``-}}``, comments,
text and numbers as arguments, pipes, parentheses, and the functions ``printf``, ``html``, ``js``,
``urlquery``, ``len`` and ``index``. Conditions, loops and variables are not: they are refused with the
reason.

Values are shown as the event has them; Go would round a large number, and write null as ``<no value>`` and a
map as ``map[…]``. A field that the event lacks is empty.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec

from flagstream.events import whole_number
from flagstream.formats.go_functions import FUNCTIONS, formatter
from flagstream.formats.json_text import Value, member

Event = Mapping[str, msgspec.Raw]
"""An event's members, each as the JSON text that it came in."""
Field = Callable[[Event], Value]
"""The part between ``{{`` and ``}}``, as a function of the event."""

NAMES = {
    "Id": "id",
    "Kind": "kind",
    "ContextKind": "contextKind",
    "UserKey": "userKey",
    "CreationDate": "creationDate",
    "Key": "key",
    "Variation": "variation",
    "Value": "value",
    "Default": "default",
    "Version": "version",
    "Source": "source",
    "Metadata": "metadata",
    "EvaluationContext": "evaluationContext",
    "TrackingDetails": "trackingEventDetails",
}
"""GO Feature Flag's field names (Id is ours), and theirs in the event."""
DATE = "FormattedDate"
_WITH_MEMBERS = ("Value", "Metadata", "EvaluationContext", "TrackingDetails")

_MARK = re.compile(
    r"(\s*\{\{-(?=\s)|\{\{)((?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|(?!\}\}).)*?)((?<=\s)-\}\}\s*|\}\})", re.S
)
_COMMENT = re.compile(r"\s*/\*.*\*/\s*", re.S)
_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:\\.|[^\"\\])*\"|`[^`]*`)|(?P<field>\.[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<number>-?\d+)(?![\w.])|(?P<word>[A-Za-z_]\w*)|(?P<sign>[|()]))"
)
_KEYWORDS = ("if", "else", "end", "range", "with", "define", "template", "block", "break", "continue")


def parse(text: str) -> tuple[list[str | Field], frozenset[str]]:
    """Return the pieces of a template, literal texts and fields, and the names of the fields that it uses.

    Raises ValueError with what is wrong and what would be right.
    """
    if not text.strip():
        raise ValueError("the template is empty")
    pieces: list[str | Field] = []
    names: set[str] = set()
    for piece in marked(text):
        if isinstance(piece, str):
            pieces.append(piece)
        elif not _COMMENT.fullmatch(piece.inner):
            pieces.append(_Pipeline(piece.text, piece.inner, names).field())
    return pieces, frozenset(names)


@dataclass(frozen=True, slots=True)
class Mark:
    """``{{ … }}`` in a template: ``text`` is the whole mark, ``inner`` the part between the braces.

    ``trims``: it has a hyphen inside its braces, which takes away white space around it.
    """

    text: str
    inner: str
    trims: bool


def marked(text: str) -> Iterator[str | Mark]:
    """Yield the literal texts and the marks of a template, in order. Raises ValueError for braces without
    their counterpart.
    """
    at = 0
    for found in _MARK.finditer(text):
        if found.start() > at:
            yield _literal(text[at : found.start()])
        yield Mark(found[0].strip(), found[2], found[1].endswith("-") or found[3].startswith("-"))
        at = found.end()
    if at < len(text):
        yield _literal(text[at:])


def _literal(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError(f'"{text.strip()}" has {{{{ or }}}} without its counterpart')
    return text


class _Pipeline:
    """Parses the inside of one mark, and collects the names of the fields in ``names``."""

    def __init__(self, mark: str, inner: str, names: set[str]) -> None:
        self._mark = mark
        self._names = names
        self._tokens: list[tuple[str, str]] = []
        at, inner = 0, inner.strip()
        while at < len(inner):
            token = _TOKEN.match(inner, at)
            if token is None:
                raise self._wrong(f'"{inner[at:].strip()}" is not understood')
            self._tokens.append((token.lastgroup or "", token[0].strip()))
            at = token.end()

    def field(self) -> Field:
        field = self._pipeline()
        if self._tokens:
            raise self._wrong(f"{self._tokens[0][1]} is one too many")
        return field

    def _wrong(self, problem: str) -> ValueError:
        return ValueError(f"{self._mark}: {problem}")

    def _pipeline(self) -> Field:
        field = self._command(None)
        while self._tokens and self._tokens[0] == ("sign", "|"):
            del self._tokens[0]
            field = self._command(field)
        return field

    def _command(self, piped: Field | None) -> Field:
        if not self._tokens:
            raise self._wrong("a field or function is missing")
        kind, text = self._tokens[0]
        if kind == "word" and text not in ("true", "false"):
            del self._tokens[0]
            return self._call(text, piped)
        if piped is not None:
            raise self._wrong(f"a function has to follow |, not {text}")
        return self._operand()

    def _call(self, name: str, piped: Field | None) -> Field:
        if name in _KEYWORDS:
            raise self._wrong(f"{name}: conditions, loops and definitions are not supported")
        if name == "printf":
            return self._printf(piped)
        if name not in FUNCTIONS:
            raise self._wrong(f"{name} is not a known function; known are printf, {', '.join(FUNCTIONS)}")
        function, least = FUNCTIONS[name]
        arguments = self._arguments(piped)
        if len(arguments) < least:
            raise self._wrong(f"{name} needs {least} arguments or more")
        return partial(_applied, function, arguments)

    def _printf(self, piped: Field | None) -> Field:
        if not self._tokens or self._tokens[0][0] != "text":
            raise self._wrong('printf needs its format as text, as in printf "%s" .Key')
        try:
            function, count = formatter(_unquoted(self._tokens.pop(0)[1]))
        except ValueError as error:
            raise self._wrong(str(error)) from None
        arguments = self._arguments(piped)
        if len(arguments) != count:
            raise self._wrong(f"the format takes {count} values, and {len(arguments)} are given")
        return partial(_applied, function, arguments)

    def _arguments(self, piped: Field | None) -> list[Field]:
        arguments: list[Field] = []
        while self._tokens and self._tokens[0] not in (("sign", "|"), ("sign", ")")):
            arguments.append(self._operand())
        return arguments if piped is None else [*arguments, piped]

    def _operand(self) -> Field:
        kind, text = self._tokens.pop(0)
        match kind:
            case "field":
                return self._event_field(text)
            case "text":
                return partial(_constant, _unquoted(text))
            case "number":
                return partial(_constant, msgspec.Raw(text.encode()))
        if text in ("true", "false"):
            return partial(_constant, msgspec.Raw(text.encode()))
        if text != "(":
            raise self._wrong(f"{text} cannot stand here")
        field = self._pipeline()
        if not self._tokens or self._tokens.pop(0) != ("sign", ")"):
            raise self._wrong("a ) is missing")
        return field

    def _event_field(self, text: str) -> Field:
        name, *members = text[1:].split(".")
        if name != DATE and name not in NAMES:
            raise self._wrong(f"{name} is not known; known are {', '.join((*NAMES, DATE))}")
        if members and name not in _WITH_MEMBERS:
            raise self._wrong(f"{name} has no members; only {', '.join(_WITH_MEMBERS)} have")
        self._names.add(name)
        if name == DATE:
            return _formatted_date
        if name == "CreationDate":
            return _creation_date
        return partial(_members, NAMES[name], members) if members else partial(_field, NAMES[name])


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    # Go's escapes are JSON's, except for a few that nobody writes here; those are reported as wrong.
    try:
        return msgspec.json.decode(text.replace("\t", "\\t"), type=str)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from None


def _constant(value: Value, event: Event) -> Value:
    return value


def _applied(function: Callable[..., Value], arguments: list[Field], event: Event) -> Value:
    return function(*[argument(event) for argument in arguments])


def _field(name: str, event: Event) -> Value:
    return event.get(name)


def _members(name: str, members: list[str], event: Event) -> Value:
    value: Value = event.get(name)
    for key in members:
        value = member(value, key)
    return value


def _formatted_date(event: Event) -> Value:
    """Return ``creationDate`` (seconds) in RFC 3339, in UTC. Go uses the zone of its host; in UTC the lines
    of a fleet agree.
    """
    return _rfc3339(whole_number(bytes(event["creationDate"]))) if "creationDate" in event else None


def _creation_date(event: Event) -> Value:
    """Return ``creationDate`` as an integer, as Go writes it. Anything else stays as it is."""
    raw = event.get("creationDate")
    try:
        return None if raw is None else msgspec.Raw(b"%d" % whole_number(bytes(raw)))
    except ValueError:
        return raw


@lru_cache(maxsize=1024)
def _rfc3339(seconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"creationDate is not a time: {error}") from None
    return moment.isoformat().replace("+00:00", "Z")
