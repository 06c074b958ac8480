"""Lines for people and for log collectors: GO Feature Flag's log template, filled from an event.

The template is Go's ``text/template`` with plain fields only: ``{{ .UserKey}}``, ``{{ .Metadata.app}}``.
Values are shown as the event has them, where Go would round a large number, write null as ``<no value>`` and
a map as ``map[…]``.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial

import msgspec

DEFAULT_TEMPLATE = '[{{ .FormattedDate}}] user="{{ .UserKey}}", flag="{{ .Key}}", value="{{ .Value}}"'

Event = Mapping[str, msgspec.Raw]
"""An event's members, each as the JSON text that it came in."""

_JSON_NAMES = {
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
}
"""GO Feature Flag's field names, and theirs in the event."""

_FIELDS = (*_JSON_NAMES, "FormattedDate")
_MARK = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"\s*\.([A-Za-z]+)((?:\.[A-Za-z_][A-Za-z0-9_]*)?)\s*")

# Line breaks of any kind and what a terminal would obey: C0, DEL, C1, and Unicode's line and paragraph
# separators.
_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)},
    **dict(zip(map(ord, "\n\r\t\b\f"), ("\\n", "\\r", "\\t", "\\b", "\\f"), strict=True)),
}

_decode_event = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_seconds = msgspec.json.Decoder(int).decode


class LineTemplate:
    """A checked template. Raises ValueError with what is wrong and what would be right."""

    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)

    def render(self, value: bytes) -> bytes:
        """The event ``value`` as one line with its line break.

        A field that the event lacks is empty, so a tracking event gives a line too. Raises ValueError when
        ``value`` is no event: not JSON, not an object, a text that is not Unicode, or a date that is none.
        """
        try:
            event = _decode_event(value)
            line = "".join([piece if isinstance(piece, str) else piece(event) for piece in self._pieces])
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return line.encode() + b"\n"


def _pieces(text: str) -> list[str | Callable[[Event], str]]:
    if not text.strip():
        raise ValueError("the template is empty")
    pieces: list[str | Callable[[Event], str]] = []
    at = 0
    for mark in _MARK.finditer(text):
        pieces += [_literal(text[at : mark.start()]), _field(mark[0], mark[1])]
        at = mark.end()
    pieces.append(_literal(text[at:]))
    return pieces


def _literal(text: str) -> str:
    if "{{" in text or "}}" in text:
        raise ValueError(f'"{text.strip()}" has {{{{ or }}}} without its counterpart')
    if text.translate(_ESCAPES) != text:
        raise ValueError("the template holds a line break or control character; each event is one line")
    return text


def _field(mark: str, inner: str) -> Callable[[Event], str]:
    match = _FIELD.fullmatch(inner)
    if match is None:
        raise ValueError(f"{mark} is no plain field; functions, pipes and conditions are not supported")
    field, member = match[1], match[2].removeprefix(".")
    if field not in _FIELDS:
        raise ValueError(f"{mark} is not known; known are {', '.join(_FIELDS)}")
    if member and field != "Metadata":
        raise ValueError(f"{mark}: {field} has no members; only Metadata has")
    if field == "FormattedDate":
        return _formatted_date
    return partial(_metadata, member) if member else partial(_member, _JSON_NAMES[field])


def _member(name: str, event: Event) -> str:
    return shown(event[name]) if name in event else ""


def _metadata(name: str, event: Event) -> str:
    metadata = event.get("metadata")
    if metadata is None or not bytes(metadata).startswith(b"{"):
        return ""
    return _member(name, _decode_event(metadata))


def _formatted_date(event: Event) -> str:
    """``creationDate``, seconds, in RFC 3339. UTC, where Go takes the zone of its host: lines of a fleet
    agree.
    """
    return _rfc3339(_decode_seconds(event["creationDate"])) if "creationDate" in event else ""


@lru_cache(maxsize=1024)
def _rfc3339(seconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"creationDate is no time: {error}") from None
    return moment.isoformat().replace("+00:00", "Z")


def shown(raw: msgspec.Raw) -> str:
    """A JSON value on one line: a string without its quotes, anything else as the compact JSON that it is."""
    text = bytes(raw)
    if text.startswith(b'"'):
        plain = _decode_text(text)
    elif text.startswith((b"{", b"[")):
        plain = msgspec.json.format(text, indent=-1).decode()
    else:
        plain = text.decode()
    return plain if plain.isprintable() else plain.translate(_ESCAPES)
