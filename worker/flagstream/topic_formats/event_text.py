"""The event of an Avro record as JSON text: nothing is rounded, and the text holds all that the record holds.

Fields are taken by their names. Null is "not given"; in the fields of ``JSON_TEXT`` a string is JSON text,
in any field another type is its JSON; the members of ``otherFields`` replace fields of the same name.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from flagstream.formats.avro_schemas import JSON_TEXT, OTHERS

_encode: Final = msgspec.json.encode
_split: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_raw: Final = msgspec.json.Decoder(Raw).decode
_AS_THEY_ARE: Final = (str, bool, int)


def event_text(record: Mapping[str, Any]) -> bytes:
    """Return compact JSON on one line. Raises ValueError, TypeError or RecursionError if there is none."""
    members: dict[str, Any] = {}
    for name, value in record.items():
        if value is None or name == OTHERS:
            continue
        if name in JSON_TEXT and value.__class__ is str:
            members[name] = _checked(name, value)
        elif value.__class__ in _AS_THEY_ARE:
            members[name] = value
        else:
            members[name] = Raw(_json(name, value))
    if (others := record.get(OTHERS)) is not None:
        members.update(_split(_checked(OTHERS, others)))
    return _encode(members)


def _checked(name: str, text: str) -> Raw:
    """Return ``text`` if it is JSON: text that is inserted unread could end its field and begin another."""
    raw = text.encode()
    if b"\n" in raw or b"\r" in raw:  # an event is one line
        raw = msgspec.json.format(raw, indent=-1)
    try:
        return _raw(raw)
    except ValueError as error:
        raise ValueError(f"the text in `{name}` is not JSON: {error}") from error


def _json(name: str, value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:  # bytes, or a number that JSON does not have
        raise ValueError(f"`{name}` cannot be JSON: {error}") from error
