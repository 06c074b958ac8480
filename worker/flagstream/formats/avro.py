"""Avro object container files of enriched events, in the schema ``avro/enriched_event.avsc``.

Members without a field in the schema are in ``otherFields`` as JSON text, so the event's JSON can be made
from the record again. CPU time an event of 185 bytes, *measured* with fastavro 1.13: 20 µs, of which fastavro
takes 10 and the record 6; 1 more with deflate.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from typing import Any, BinaryIO, Literal

import fastavro
from fastavro.write import Writer

from flagstream.chunk import Partition, Record
from flagstream.formats.avro_record import accepted, avro_record, columns
from flagstream.formats.avro_schemas import own
from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject
from flagstream.outcomes import Reject
from flagstream.window import Manifest

AvroCompression = Literal["none", "deflate", "zstd", "snappy"]

_CODECS: dict[AvroCompression, str] = {
    "none": "null",
    "deflate": "deflate",
    "zstd": "zstandard",
    "snappy": "snappy",
}
MANIFEST_KEY = "flagstream.manifest"
_BLOCK_RECORDS = 1000
_BLOCK_BYTES = 1 << 20
"""Bytes of JSON text after which a block is closed early, so that a block of large events stays small."""
_MARKER_SIZE = 16
_NO_MARKER = bytes(_MARKER_SIZE)


@dataclass(frozen=True, slots=True)
class AvroFormat:
    """A :class:`~flagstream.formats.protocol.Format`. With ``event_ids`` the schema has a field ``id``."""

    compression: AvroCompression
    event_ids: bool = False
    name: str = "avro"
    extension: str = "avro"
    content_type: str = "application/avro"

    @property
    def shape(self) -> Sequence[str]:
        return ("avro", self.compression, str(self.event_ids))

    def begin(self, partition: Partition) -> "AvroEncoder":
        return AvroEncoder(self.compression, event_ids=self.event_ids)

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        try:
            blocks = fastavro.block_reader(file)
            found = parse_manifest(blocks.metadata.get(MANIFEST_KEY, "").encode())
        except Exception:  # foreign bytes make fastavro raise errors of any kind
            return "it is not an Avro file of ours, or cut short in its header"
        if found is None:
            return "it is not a file of ours: it does not say what it holds"
        if different := difference(ours.manifest, found):
            return different
        try:
            records = sum(block.num_records for block in blocks)
        except Exception as error:  # each codec has errors of its own
            return f"it is cut short or was changed: {error}"
        if records != found.records:
            return f"it is cut short: it holds {records} of its {found.records} records"
        return None

    def show(self, parts: Sequence[bytes]) -> str:
        return json.dumps(next(fastavro.reader(BytesIO(b"".join(parts)))), ensure_ascii=False)


class AvroEncoder:
    """One object; an :class:`~flagstream.formats.protocol.ObjectEncoder`.

    The sync marker is made from the digest, which is known only at the end. So blocks are kept without it,
    and the file is put together at the end.
    """

    def __init__(self, compression: AvroCompression, *, event_ids: bool = False) -> None:
        self._codec = _CODECS[compression]
        self._schema = _schema(event_ids)
        self._columns = columns(self._schema)
        self._out = BytesIO()
        self._writer = self._new_writer(self._out, {}, _NO_MARKER)
        self._clear()
        self._blocks: list[bytes] = []
        self._records = 0
        self._waiting = 0
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size + self._waiting

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        rejects: list[Reject] = []
        for record, size in accepted(values, partial(avro_record, self._columns), rejects):
            # GO Feature Flag leaves an empty contextKind out.
            record["contextKind"] = record.get("contextKind") or ""
            self._write(record, size)
        return rejects

    def finish(self, manifest: Manifest) -> Sequence[bytes]:
        self._close_block()
        marker = hashlib.sha256(manifest.digest.encode()).digest()[:_MARKER_SIZE]
        header = BytesIO()
        self._new_writer(header, {MANIFEST_KEY: manifest_json(manifest).decode()}, marker)
        parts = [header.getvalue()]
        for block in self._blocks:
            parts += [block, marker]
        return parts

    def _write(self, record: dict[str, Any], size: int) -> None:
        self._writer.write(record)
        self._records += 1
        self._waiting += size
        if self._records >= _BLOCK_RECORDS or self._waiting >= _BLOCK_BYTES:
            self._close_block()

    def _close_block(self) -> None:
        if not self._records:
            return
        self._writer.dump()
        block = self._out.getvalue()[:-_MARKER_SIZE]
        self._clear()
        self._blocks.append(block)
        self.size += len(block) + _MARKER_SIZE
        self._records = self._waiting = 0

    def _new_writer(self, out: BytesIO, metadata: dict[str, str], marker: bytes) -> Any:
        # We close blocks ourselves; this interval is never reached.
        return Writer(
            out, self._schema, self._codec, sync_interval=1 << 40, metadata=metadata, sync_marker=marker
        )

    def _clear(self) -> None:
        self._out.seek(0)
        self._out.truncate()


@lru_cache(maxsize=2)
def _schema(event_ids: bool) -> dict[str, Any]:
    schema = json.loads(own("enriched_event"))
    if event_ids:
        schema["fields"].append({"name": "id", "type": ["null", "string"], "default": None})
    return schema  # type: ignore[no-any-return]
