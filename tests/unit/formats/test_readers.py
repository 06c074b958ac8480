"""Which readers open the files, as docs/formats.md has it in a table: each call there is made here."""

import csv
import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import duckdb
import fastavro
import pandas
import polars
import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
import zstandard

from flagstream.chunk import Partition
from flagstream.formats.avro import AvroCompression, AvroFormat
from flagstream.formats.compression import Compression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.parquet import ParquetCompression, ParquetFormat
from flagstream.formats.protocol import Format
from flagstream.testing import StoredRecord, events
from flagstream.window import Manifest, OffsetRange

DOCUMENT = Path(__file__).parents[3] / "docs/formats.md"
COUNT = 12_000


class Reader(NamedTuple):
    """A call that reads a file whole, as the table shows it; ``read`` counts the events that it found."""

    call: str
    read: Callable[[str], int]


def _rows(query: str) -> Callable[[str], int]:
    return lambda path: int(duckdb.execute(f"select count(*) from {query}", [path]).fetchall()[0][0])


def _lines(opened: Callable[[str], bytes]) -> Callable[[str], int]:
    return lambda path: len(opened(path).splitlines())


def _pyarrow_csv(path: str) -> int:
    read = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
    parse = pyarrow.csv.ParseOptions(delimiter=";")
    return int(pyarrow.csv.read_csv(path, read_options=read, parse_options=parse).num_rows)


def _polars_lines(path: str) -> int:
    return min(polars.read_ndjson(path).height, polars.scan_ndjson(path).collect().height)


def _fastavro(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in fastavro.reader(file))


JSON_LINES: Mapping[str, Reader] = {
    "DuckDB": Reader("`read_json`", _rows("read_json(?)")),
    "pyarrow": Reader("`json.read_json`", lambda path: int(pyarrow.json.read_json(path).num_rows)),
    "Polars": Reader("`read_ndjson`, `scan_ndjson`", _polars_lines),
    "pandas": Reader("`read_json(lines=True)`", lambda path: len(pandas.read_json(path, lines=True))),
}
CSV: Mapping[str, Reader] = {
    "DuckDB": Reader("`read_csv`", _rows("read_csv(?, header = false, delim = ';')")),
    "pyarrow": Reader("`csv.read_csv`", _pyarrow_csv),
    "Polars": Reader(
        "`read_csv`", lambda path: polars.read_csv(path, has_header=False, separator=";").height
    ),
    "pandas": Reader("`read_csv`", lambda path: len(pandas.read_csv(path, header=None, sep=";"))),
}
PARQUET: Mapping[str, Reader] = {
    "DuckDB": Reader("`read_parquet`", _rows("read_parquet(?)")),
    "pyarrow": Reader("`parquet.read_table`", lambda path: int(pyarrow.parquet.read_table(path).num_rows)),
    "Polars": Reader("`read_parquet`", lambda path: polars.read_parquet(path).height),
    "pandas": Reader("`read_parquet`", lambda path: len(pandas.read_parquet(path))),
}
AVRO: Mapping[str, Reader] = {
    "Polars": Reader("`read_avro`", lambda path: polars.read_avro(path).height),
    "others": Reader("fastavro", _fastavro),
}
ZSTANDARD = Reader("python-zstandard: `open`", _lines(lambda path: zstandard.open(path, "rb").read()))
COLUMNS = ("DuckDB", "pyarrow", "Polars", "pandas", "others")

FILES: Mapping[str, tuple[Format, Mapping[str, Reader]]] = {
    "jsonl": (JsonLinesFormat(Compression("none", 3)), JSON_LINES),
    "jsonl.gz": (JsonLinesFormat(Compression("gzip", 3)), JSON_LINES),
    "jsonl.zst": (JsonLinesFormat(Compression("zstd", 3)), {**JSON_LINES, "others": ZSTANDARD}),
    "csv": (CsvFormat(DEFAULT_TEMPLATE, Compression("none", 3)), CSV),
    "csv.gz": (CsvFormat(DEFAULT_TEMPLATE, Compression("gzip", 3)), CSV),
    "csv.zst": (CsvFormat(DEFAULT_TEMPLATE, Compression("zstd", 3)), {**CSV, "others": ZSTANDARD}),
    **{f"avro, {kind}": (AvroFormat(kind), AVRO) for kind in get_args(AvroCompression)},
    **{
        f"parquet, {kind}": (ParquetFormat("both", kind, False), PARQUET)
        for kind in get_args(ParquetCompression)
    },
}


def written(format: Format, folder: Path) -> str:
    """Return a file of this format, with a manifest in it, by its own name."""
    values = list(itertools.islice(events(COUNT), COUNT))
    encoder = format.begin(Partition("t", 0))
    assert not encoder.add(values, [StoredRecord(at, value) for at, value in enumerate(values)])
    manifest = Manifest(OffsetRange(Partition("t", 0), 0, COUNT), COUNT, "ab" * 32, "c")
    file = folder / f"events.{format.extension}"
    file.write_bytes(b"".join(encoder.finish(manifest)))
    return str(file)


def cell(reader: Reader | None, path: str) -> str:
    if reader is None:
        return "not tried"
    try:
        found = reader.read(path)
    except Exception as error:  # whatever a reader says of a file that it does not know
        return f"no ({type(error).__name__})"
    return reader.call if found == COUNT else f"no ({found} events)"


@pytest.mark.parametrize("name", FILES)
def test_the_table_of_readers_is_what_they_do(name: str, tmp_path: Path) -> None:
    """Each cell names the call that gave every event of the file, or says that there was none."""
    format, readers = FILES[name]
    path = written(format, tmp_path)
    row = [f"`{name}`" if "," not in name else name, *(cell(readers.get(column), path) for column in COLUMNS)]

    assert f"| {' | '.join(row)} |" in DOCUMENT.read_text().splitlines()


def _table() -> str:
    return DOCUMENT.read_text().partition("<!-- readers -->")[2].partition("<!-- /readers -->")[0]


def test_the_table_has_no_other_rows() -> None:
    """What is not tried is not promised."""
    rows = [line for line in _table().splitlines() if line.startswith("|")][2:]

    assert sorted(row.split(" | ")[0].strip("| `") for row in rows) == sorted(FILES)


ZSTANDARD_CALLS: Mapping[str, Callable[[bytes], bytes]] = {
    "stream_reader": lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(),
    "decompressobj": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "read_to_iter": lambda data: b"".join(zstandard.ZstdDecompressor().read_to_iter(io.BytesIO(data))),
    "decompress(max_output_size=…)": lambda data: zstandard.ZstdDecompressor().decompress(
        data, max_output_size=1 << 28
    ),
}


@pytest.mark.parametrize("call", ZSTANDARD_CALLS)
def test_every_call_of_python_zstandard_reads_a_file(call: str, tmp_path: Path) -> None:
    """Two of them gave nothing, without an error, when the manifest's frame came first."""
    data = Path(written(*FILES["jsonl.zst"][:1], tmp_path)).read_bytes()

    assert len(ZSTANDARD_CALLS[call](data).splitlines()) == COUNT
    assert f"`{call}`" in DOCUMENT.read_text()


def test_rows_survive_a_csv_reader(tmp_path: Path) -> None:
    """Python's own reader finds nine columns in each row of the default template."""
    path = written(*FILES["csv"][:1], tmp_path)
    with open(path, newline="", encoding="utf-8") as file:
        found: list[Any] = list(csv.reader(file, delimiter=";"))

    assert {len(row) for row in found} == {9}
