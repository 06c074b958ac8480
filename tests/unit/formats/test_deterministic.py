"""The same events give the same bytes in every process, and text formats open with foreign tools."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from flagstream.chunk import Partition
from flagstream.formats.avro import AvroFormat
from flagstream.formats.compression import Compression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.parquet import ParquetFormat
from flagstream.formats.protocol import Format
from flagstream.testing import StoredRecord, events
from flagstream.window import Manifest, OffsetRange

FORMATS: tuple[Format, ...] = (
    JsonLinesFormat(Compression("gzip", 3)),
    JsonLinesFormat(Compression("zstd", 3)),
    CsvFormat(DEFAULT_TEMPLATE, Compression("gzip", 3)),
    CsvFormat(DEFAULT_TEMPLATE, Compression("zstd", 3)),
    AvroFormat("deflate"),
    AvroFormat("zstd"),
    ParquetFormat("both", "snappy", True),
    ParquetFormat("both", "zstd", False),
)
EVENTS = 3_000
"""More than a block of any compression holds."""
METADATA = b',"metadata":{"app":"shop","zone":"eu"},"more":1,"other":2}'


def encoded(format: Format, step: int) -> bytes:
    values = [value[:-1] + METADATA for value in events(EVENTS)]
    encoder = format.begin(Partition("t", 0))
    for at in range(0, len(values), step):
        part = values[at : at + step]
        encoder.add(part, [StoredRecord(at + n, value) for n, value in enumerate(part)])
    manifest = Manifest(OffsetRange(Partition("t", 0), 0, EVENTS), EVENTS, "ab" * 32, "c")
    return b"".join(encoder.finish(manifest))


def fingerprints(step: int) -> list[str]:
    return [hashlib.sha256(encoded(format, step)).hexdigest() for format in FORMATS]


def test_in_every_process_and_however_chunks_are_cut() -> None:
    """Two processes with hash seeds of their own, and chunks cut differently, write the same bytes."""
    program = f"from {__name__} import fingerprints; print(*fingerprints(777), sep='\\n')"
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    expected = fingerprints(1700)
    assert [expected, expected] == [run.stdout.split() for run in runs]


@pytest.mark.parametrize("kind", ["none", "gzip", "zstd"])
def test_duckdb_reads_json_lines(kind: str, tmp_path: Path) -> None:
    """JSON lines open in DuckDB under their own names, in every compression."""
    format = JsonLinesFormat(Compression(kind, 3))  # type: ignore[arg-type]
    file = tmp_path / f"events.{format.extension}"
    file.write_bytes(encoded(format, 1700))
    query = "select count(*), count(distinct userKey), min(metadata.app) from read_json(?)"
    assert duckdb.execute(query, [str(file)]).fetchall() == [(EVENTS, EVENTS, "shop")]
