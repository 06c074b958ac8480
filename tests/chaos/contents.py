"""What is in an object, by its format: gzip by RFC 1952, Parquet by pyarrow."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from pyarrow import ArrowException, parquet

from tests.chaos.stream import number_of


class Content(NamedTuple):
    """The events in an object are given as rows in the format's own terms, and by their numbers."""

    rows: Sequence[Any]
    numbers: list[int]
    digest: str | None
    """Of its lines; None where the format does not keep them as they were."""
    manifest: dict[str, Any]
    """What it says of itself."""


class Contents(Protocol):
    """A format says how to read an object."""

    extension: str

    def read(self, data: bytes) -> Content:
        """Raises ValueError when `data` is not a whole object with a manifest."""
        ...

    def rows(self, values: list[bytes]) -> Sequence[Any]:
        """The rows that these events have to become."""
        ...


def digest(values: Sequence[bytes]) -> str:
    """SHA-256 over records, each preceded by its length (docs/sinks/file.md)."""
    found = hashlib.sha256()
    for value in values:
        found.update(len(value).to_bytes(4, "big") + value)
    return found.hexdigest()


class GzipLines:
    """Read JSON lines in a gzip file: the values of the topic, byte by byte."""

    extension = "jsonl.gz"

    def read(self, data: bytes) -> Content:
        try:
            lines = gzip.decompress(data).split(b"\n")
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(str(error)) from error
        if lines.pop() != b"":
            raise ValueError("the last line is cut off")
        return Content(lines, [number_of(line) for line in lines], digest(lines), _in_header(data))

    def rows(self, values: list[bytes]) -> Sequence[Any]:
        return values


def _in_header(data: bytes) -> dict[str, Any]:
    """Return the JSON in the subfield FS of the gzip header's extra field."""
    if not data[3] & 4:
        raise ValueError("the gzip header has no extra field")
    extra = data[12 : 12 + int.from_bytes(data[10:12], "little")]
    while len(extra) >= 4:
        length = int.from_bytes(extra[2:4], "little")
        if extra[:2] == b"FS":
            return dict(json.loads(extra[4 : 4 + length]))
        extra = extra[4 + length :]
    raise ValueError("the gzip header has no subfield FS")


class ParquetRows:
    """Parquet: each row put together again as an event, with the members of maps as text."""

    extension = "parquet"

    def read(self, data: bytes) -> Content:
        try:
            table = parquet.read_table(BytesIO(data))
            manifest = dict(json.loads(table.schema.metadata[b"flagstream.manifest"]))
        except (ArrowException, OSError, TypeError, KeyError) as error:
            raise ValueError(repr(error)) from error
        rows = [_event(row) for row in table.to_pylist()]
        numbers = [int(row["userKey"].removeprefix("u-")) for row in rows]
        return Content(rows, numbers, None, manifest)

    def rows(self, values: list[bytes]) -> Sequence[Any]:
        events: list[dict[str, Any]] = [json.loads(value) for value in values]
        return [
            {name: _as_text(value) if name in _MAPS else value for name, value in event.items()}
            for event in events
        ]


_MAPS = ("metadata", "evaluationContext", "trackingEventDetails")


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """The event of a row: without what is absent, with what has no column."""
    event = {name: value for name, value in row.items() if value not in (None, [])}
    event |= {name: dict(event[name]) for name in _MAPS if name in event}
    if "value" in event:
        event["value"] = json.loads(event["value"])
    others: dict[str, Any] = json.loads(event.pop("otherFields", "{}"))
    return event | others


def _as_text(members: dict[str, Any]) -> dict[str, str]:
    return {name: each if isinstance(each, str) else json.dumps(each) for name, each in members.items()}
