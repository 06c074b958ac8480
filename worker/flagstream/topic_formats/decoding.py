"""Decoders of Avro: with the id of a schema before each value, or with one schema for all.

An event in JSON passes as it is: a topic that was in JSON before holds such events until they are read, and
no Avro value of ours begins with a brace.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from fastavro import schemaless_reader

from flagstream.events import FRAME, without_frame
from flagstream.events import decode as decode_json
from flagstream.outcomes import Dead
from flagstream.topic_formats.event_text import event_text
from flagstream.topic_formats.known_schemas import KnownSchemas

HEADER: Final = FRAME
"""Bytes before the Avro data in Confluent's wire format: 0, and the schema's id, big-endian."""


class RegistryDecoder:
    """Confluent's wire format: every value names the schema that it was written with."""

    def __init__(self, known: KnownSchemas) -> None:
        self._known = known

    @property
    def trouble(self) -> str | None:
        return self._known.trouble

    async def prepare(self, values: Sequence[bytes | None]) -> None:
        await self._known.learn({value[1:HEADER] for value in values if value and _names_schema(value)})

    def decode(
        self, values: Sequence[bytes | None], unknown: set[int] | None = None
    ) -> list[bytes | Dead | None]:
        missing = set() if unknown is None else unknown
        return [self._decoded(value, missing) if value else value for value in values]

    def _decoded(self, value: bytes, missing: set[int]) -> bytes | Dead:
        if (json := _framed_json(value)) is not None:
            return json
        if _unframed(value):
            return _json_or(
                Dead("invalid_avro", "The value does not begin with a zero byte and the id of a schema"),
                value,
            )
        schema = self._known.get(value[1:HEADER])
        number = int.from_bytes(value[1:HEADER])
        if isinstance(schema, Dead):
            missing.add(number)
            return schema
        if number in missing:
            return Dead("unknown_schema", f"There was no schema with the id {number} when this was planned")
        return read(schema, value, HEADER)


class FixedDecoder:
    """Decodes bare Avro data, all of one schema."""

    trouble = None

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    async def prepare(self, values: Sequence[bytes | None]) -> None:
        """Return at once: there is nothing to wait for."""

    def decode(
        self, values: Sequence[bytes | None], unknown: set[int] | None = None
    ) -> list[bytes | Dead | None]:
        return [self._decoded(value) if value else value for value in values]

    def _decoded(self, value: bytes) -> bytes | Dead:
        text = read(self._schema, value, 0)
        if not isinstance(text, Dead):
            return text
        json = _framed_json(value)
        return _json_or(text, value) if json is None else json


def _names_schema(value: bytes) -> bool:
    """Return whether the value is Avro whose schema only the registry knows."""
    return not _unframed(value) and _framed_json(value) is None


def _framed_json(value: bytes) -> bytes | None:
    """Return the event in a value of a registry's JSON serializer; None for any other value.

    Only the bytes decide, not what the registry says about the id: a plan that is repeated has to find the
    same result. (Avro data that happens to be an event in JSON begins with a number that no schema has
    there.)
    """
    json = without_frame(value)
    if json is None or not json.endswith(b"}") or b"\n" in json or isinstance(decode_json(json), Dead):
        return None
    return json


def _unframed(value: bytes) -> bool:
    return value[0] != 0 or len(value) < HEADER


def _json_or(dead: Dead, value: bytes) -> bytes | Dead:
    """Return ``value`` if it is an event in JSON on one line; otherwise ``dead``."""
    if not value.startswith(b"{"):
        return dead
    if not value.endswith(b"}") or b"\n" in value:
        return Dead(dead.reason, f"{dead.error}; nor is it JSON on one line")
    event = decode_json(value)
    if isinstance(event, Dead):
        return Dead(dead.reason, f"{dead.error}; nor is it an event in JSON: {event.error}")
    return value


def read(schema: dict[str, Any], value: bytes, start: int) -> bytes | Dead:
    """Return the event in ``value`` from byte ``start`` on, as JSON text. It never raises."""
    stream = BytesIO(value)
    stream.seek(start)
    try:
        record: Any = schemaless_reader(stream, schema, None)
        if (rest := len(value) - stream.tell()) > 0:
            return Dead("invalid_avro", f"{rest} bytes are left over after the record")
        return event_text(record)
    except Exception as error:  # foreign bytes make fastavro raise errors of any kind
        return Dead("invalid_avro", f"{type(error).__name__}: {error}")
