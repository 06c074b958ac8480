"""The Avro record of an enriched event, from which the same JSON can be made again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from flagstream.events import decode, whole_number
from flagstream.formats.avro_schemas import JSON_TEXT, OTHERS
from flagstream.outcomes import Dead, Reject

_split: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.encode
_text: Final = msgspec.json.Decoder(str).decode

Column = Callable[[bytes], tuple[Any, bool]]
"""A function of a member's JSON text that returns the field's value, and whether the text follows from it."""


def _string(text: bytes) -> tuple[str | None, bool]:
    if text[:1] == b'"':
        return _text(text), True
    return (None if text == b"null" else text.decode()), False  # a version that is a number


def _json(text: bytes) -> tuple[str | None, bool]:
    return text.decode(), True


def _object(text: bytes) -> tuple[str | None, bool]:
    return (None, False) if text == b"null" else (text.decode(), True)


def _boolean(text: bytes) -> tuple[bool | None, bool]:
    return (None, False) if text == b"null" else (text == b"true", True)


def _long(text: bytes) -> tuple[int, bool]:
    return whole_number(text), True


_COLUMNS: Final[dict[str, Column]] = {
    **dict.fromkeys(
        ("id", "kind", "contextKind", "userKey", "key", "variation", "version", "source"), _string
    ),
    **dict.fromkeys(JSON_TEXT, _object),
    "value": _json,
    "default": _boolean,
    "creationDate": _long,
}


def columns(schema: Mapping[str, Any]) -> dict[str, Column]:
    """Return the columns that ``schema`` has a field for."""
    names = {field["name"] for field in schema["fields"]}
    return {name: column for name, column in _COLUMNS.items() if name in names}


def avro_record(columns: Mapping[str, Column], text: bytes) -> dict[str, Any]:
    """Return the record of an event that the enrich stage has accepted."""
    record: dict[str, Any] = {}
    others: dict[str, Raw] = {}
    for name, raw in _split(text).items():
        column = columns.get(name)
        if column is None:
            others[name] = raw
            continue
        record[name], follows = column(bytes(raw))
        if not follows:
            others[name] = raw
    if others:
        record[OTHERS] = _encode(others).decode()
    return record


def accepted(
    values: Sequence[bytes], make: Callable[[bytes], dict[str, Any]], rejects: list[Reject]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what ``make`` makes of each value that is an event, with the value's size in bytes. A value that
    is not an event, or that ``make`` raises ValueError for, is added to ``rejects``.
    """
    for index, value in enumerate(values):
        event = decode(value)
        if isinstance(event, Dead):
            rejects.append(Reject(index, event.reason, event.error))
            continue
        try:
            made = make(value)
        except (ValueError, RecursionError) as error:
            rejects.append(Reject(index, "not_an_event", str(error) or "nested too deeply"))
            continue
        yield made, len(value)
