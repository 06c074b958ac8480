"""Writes lines for people and for log collectors: GO Feature Flag's log template, filled from an event."""

import msgspec

from flagstream.formats.go_template import parse
from flagstream.formats.json_text import plain, split

DEFAULT_TEMPLATE = '[{{ .FormattedDate}}] user="{{ .UserKey}}", flag="{{ .Key}}", value="{{ .Value}}"'

# Line breaks of any kind, and characters that a terminal would obey: C0, DEL, C1, and Unicode's line and
# paragraph separators.
_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)},
    **dict(zip(map(ord, "\n\r\t\b\f"), ("\\n", "\\r", "\\t", "\\b", "\\f"), strict=True)),
}


class LineTemplate:
    """A checked template (see :mod:`~flagstream.formats.go_template`). Raises ValueError with what is wrong
    and what would be right.
    """

    def __init__(self, text: str) -> None:
        self._pieces, _ = parse(text)
        literal = "".join(piece for piece in self._pieces if isinstance(piece, str))
        if literal.translate(_ESCAPES) != literal:
            raise ValueError("the template holds a line break or control character; each event is one line")

    def render(self, value: bytes) -> bytes:
        """Return the event ``value`` as one line with its line break.

        A field that the event lacks is empty, so a tracking event gives a line too. Raises ValueError if
        ``value`` is not an event: not JSON, not an object, a text that is not Unicode, or an impossible date.
        """
        try:
            event = split(value)
            line = "".join(
                [piece if isinstance(piece, str) else plain(piece(event)) for piece in self._pieces]
            )
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return _escaped(line).encode() + b"\n"


def shown(raw: msgspec.Raw) -> str:
    """Return a JSON value on one line: a string without its quotes, anything else as compact JSON."""
    return _escaped(plain(raw))


def _escaped(text: str) -> str:
    return text if text.isprintable() else text.translate(_ESCAPES)
