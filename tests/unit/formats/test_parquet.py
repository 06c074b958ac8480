"""The format writes Parquet with GO Feature Flag's columns."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import map_, parquet, string, type_for_alias

from flagstream.chunk import Partition
from flagstream.formats.parquet import ParquetCompression, ParquetEvents, ParquetFormat
from flagstream.formats.protocol import EncodedObject
from flagstream.testing import StoredRecord, events
from flagstream.window import Manifest, OffsetRange

PARTITION = Partition("t", 0)
COMPRESSIONS: tuple[ParquetCompression, ...] = ("none", "snappy", "gzip", "zstd", "lz4")
FEATURE = (
    b'{"kind":"feature","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"k",'
    b'"variation":"on","value":%s,"default":false,"version":"1","source":"SERVER"}'
)
TRACKING = (
    b'{"kind":"tracking","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"clicked",'
    b'"evaluationContext":{"targetingKey":"ABCD","n":1000000,"deep":{"a":[1]}},"trackingEventDetails":null}'
)
VECTORS = [
    json.loads(line)
    for line in Path("tests/goff/generated/format_vectors.jsonl").read_text("utf-8").split("\n")
    if line
]


def format_(
    events: ParquetEvents = "both", compression: ParquetCompression = "snappy", event_ids: bool = False
) -> ParquetFormat:
    return ParquetFormat(events, compression, event_ids)


def manifest(records: int, digest: str = "d" * 64) -> Manifest:
    return Manifest(OffsetRange(PARTITION, 0, 100_000), records, digest, "c")


def encoded(format: ParquetFormat, values: list[bytes], step: int = 100_000) -> EncodedObject:
    encoder = format.begin(PARTITION)
    for at in range(0, len(values), step):
        part = values[at : at + step]
        assert encoder.add(part, [StoredRecord(at + n, value) for n, value in enumerate(part)]) == []
    ours = manifest(len(values))
    return EncodedObject(encoder.finish(ours), ours)


def rows(object_: EncodedObject) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = parquet.read_table(io.BytesIO(b"".join(object_.parts))).to_pylist()
    return table


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: json.dumps(vector["value"]))
def test_value_as_go_feature_flag(vector: dict[str, str]) -> None:
    """The value column is JSON text: the same value as GO Feature Flag's, with all its digits."""
    (row,) = rows(encoded(format_("feature"), [vector["json_line"].strip().encode()]))
    assert json.loads(vector["parquet_value"]) == json.loads(row["value"])


def test_null_value() -> None:
    """A value of null, which stops GO Feature Flag's export for good, is the text null."""
    (row,) = rows(encoded(format_("feature"), [FEATURE % b"null"]))
    assert row["value"] == "null"


@pytest.mark.parametrize(
    ("events", "names"),
    [
        (
            "feature",
            "kind contextKind userKey creationDate key variation value default version source metadata",
        ),
        ("tracking", "kind contextKind userKey creationDate key evaluationContext trackingEventDetails"),
        (
            "both",
            "kind contextKind userKey creationDate key variation value default version source metadata "
            "evaluationContext trackingEventDetails",
        ),
    ],
)
def test_columns(events: ParquetEvents, names: str) -> None:
    """GO Feature Flag's columns and types, with ids in front if wanted, and a place for the rest at the
    end."""
    whole = io.BytesIO(b"".join(encoded(format_(events), []).parts))
    schema = parquet.read_schema(whole)
    assert [*names.split(), "otherFields"] == schema.names
    types = {"creationDate": "int64", "default": "bool"}
    maps = {"metadata", "evaluationContext", "trackingEventDetails"}
    for name, type_ in zip(schema.names, schema.types, strict=True):
        expected = map_(string(), string()) if name in maps else type_for_alias(types.get(name, "string"))
        assert expected == type_
    with_ids = parquet.read_schema(io.BytesIO(b"".join(encoded(format_(events, event_ids=True), []).parts)))
    assert ["id", *schema.names] == with_ids.names


def test_maps() -> None:
    """Text members are as they are, others their JSON; a map that is not there is empty where it belongs."""
    feature, tracking, described = rows(
        encoded(
            format_(),
            [
                FEATURE % b"1",
                TRACKING,
                (FEATURE % b"1")[:-1] + b',"metadata":{"a":"x","n":1.50,"t":true,"z":null}}',
            ],
        )
    )
    assert (feature["metadata"], feature["evaluationContext"], feature["value"]) == ([], None, "1")
    assert tracking["evaluationContext"] == [
        ("targetingKey", "ABCD"),
        ("n", "1000000"),
        ("deep", '{"a":[1]}'),
    ]
    assert (tracking["trackingEventDetails"], tracking["metadata"], tracking["value"]) == ([], None, None)
    assert described["metadata"] == [("a", "x"), ("n", "1.50"), ("t", "true"), ("z", "null")]


def test_nothing_is_lost() -> None:
    """What has no column, or could not be read back from it, is in otherFields."""
    value = FEATURE.replace(b'"version":"1"', b'"version":1.10,"x":[1,{}],"id":"a"') % b"1e400"
    (row,) = rows(encoded(format_("feature"), [value]))
    assert (row["value"], row["version"]) == ("1e400", "1.10")
    assert row["otherFields"] == '{"version":1.10,"x":[1,{}],"id":"a"}'
    (row,) = rows(encoded(format_("feature", event_ids=True), [value]))
    assert row["id"] == "a"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_foreign_reader(compression: ParquetCompression, tmp_path: Path) -> None:
    """DuckDB reads every codec, over several row groups."""
    file = tmp_path / "events.parquet"
    file.write_bytes(b"".join(encoded(format_(compression=compression), [*events(12_000), TRACKING]).parts))
    query = "select count(*), sum(creationDate), max(evaluationContext['targetingKey']) from read_parquet(?)"
    expected = sum(range(1_700_000_000, 1_700_012_000)) + 1_617_970_547
    assert duckdb.execute(query, [str(file)]).fetchall() == [(12_001, expected, "ABCD")]
    assert parquet.read_metadata(file).num_row_groups == 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cuts_do_not_show(compression: ParquetCompression) -> None:
    """The same events give the same bytes however they arrive."""
    values = [*events(10_700), TRACKING]
    format = format_(compression=compression)
    assert b"".join(encoded(format, values).parts) == b"".join(encoded(format, values, 613).parts)


def test_large_events_make_small_groups() -> None:
    """A row group ends after 16 MiB of events, so memory stays bounded."""
    large = FEATURE % (b'"' + b"x" * 1_000_000 + b'"')
    encoder = format_().begin(PARTITION)
    assert (encoder.size, encoder.memory) == (0, 0)
    encoder.add([large] * 17, [StoredRecord(0, large)] * 17)
    assert encoder.size > 0
    assert encoder.memory == encoder.size


@pytest.mark.parametrize("date", [b"1680246000.0", b"1.680246e9"])
def test_a_whole_number_in_another_form_is_an_integer(date: bytes) -> None:
    """Others who write to the output topic may have no integers."""
    value = (FEATURE % b"1").replace(b"1617970547", date)
    (row,) = rows(encoded(format_(), [value]))
    assert (row["creationDate"], type(row["creationDate"])) == (1_680_246_000, int)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"[]", "not_an_object"),
        (b'{"kind":"feature"}', "missing_field"),
        (FEATURE % b'1,"default":5', "wrong_type"),
        ((FEATURE % b"1").replace(b"1617970547", b"9223372036854775808"), "out_of_range"),
        ((FEATURE % b"1")[:-1] + b',"metadata":{"a":"\\ud800"}}', "invalid_json"),
        (FEATURE % (b"[" * 99_999 + b"]" * 99_999), "too_deep"),
    ],
)
def test_rejects(value: bytes, reason: str) -> None:
    """What the columns cannot hold is rejected alone and leaves no trace."""
    values = [FEATURE % b"1", value, TRACKING]
    encoder = format_().begin(PARTITION)
    (reject,) = encoder.add(values, [StoredRecord(n, v) for n, v in enumerate(values)])
    assert (1, reason) == (reject.index, reject.reason)
    assert encoder.finish(manifest(2)) == encoded(format_(), [values[0], TRACKING]).parts


def test_same_object() -> None:
    """A stored file is known again by its footer; one that is cut short or of others is detected."""
    format = format_()
    ours = encoded(format, events(100))
    stored = b"".join(ours.parts)
    assert format.compare(io.BytesIO(stored), ours) is None
    for end in (-1, len(stored) // 2, 3, 0):
        assert "cut short" in str(format.compare(io.BytesIO(stored[:end]), ours)), end
    other = EncodedObject(ours.parts, manifest(100, "e" * 64))
    assert "digest" in str(format.compare(io.BytesIO(stored), other))
    few = encoded(format, events(99))
    encoder = format.begin(PARTITION)
    encoder.add(events(99), [StoredRecord(0, b"")] * 99)
    wrong = b"".join(encoder.finish(ours.manifest))
    assert "99 rows of its 100" in str(format.compare(io.BytesIO(wrong), ours))
    assert "99 records" in str(format.compare(io.BytesIO(b"".join(few.parts)), ours))


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_changed_byte_is_told(compression: ParquetCompression) -> None:
    """Every page has a checksum, whatever its codec does; those of all groups are looked at. (A page's header
    has none, so of a sample of bytes a few may lie where a change does no harm.)
    """
    format = format_(compression=compression)
    ours = encoded(format, events(25_000))
    stored = b"".join(ours.parts)
    assert format.compare(io.BytesIO(stored), ours) is None
    data_end = len(stored) - int.from_bytes(stored[-8:-4], "little") - 8
    reported = 0
    for at in range(data_end // 80, data_end, data_end // 40):
        changed = bytearray(stored)
        changed[at] ^= 1
        reported += "it was changed" in str(format.compare(io.BytesIO(changed), ours))
    assert reported >= 38


def test_show() -> None:
    """The first record is shown as JSON."""
    assert json.loads(format_().show(encoded(format_(), [TRACKING]).parts))["key"] == "clicked"


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The format says what is missing and how to get it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"install flagstream\[parquet\]"):
        format_()
