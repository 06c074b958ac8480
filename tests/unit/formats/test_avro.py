"""The format writes Avro object container files."""

import io
import json
from typing import Any

import avro.datafile
import avro.io
import fastavro
import pytest

from flagstream.chunk import Partition
from flagstream.formats.avro import AvroCompression, AvroFormat
from flagstream.formats.protocol import EncodedObject
from flagstream.testing import StoredRecord, events
from flagstream.topic_formats.event_text import event_text
from flagstream.window import Manifest, OffsetRange

PARTITION = Partition("t", 0)
COMPRESSIONS: tuple[AvroCompression, ...] = ("none", "deflate", "zstd", "snappy")
TRACKING = (
    b'{"kind":"tracking","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"clicked",'
    b'"evaluationContext":{"targetingKey":"ABCD"},"trackingEventDetails":{"event":"123"}}'
)
STRANGE = (
    b'{"kind":"feature","contextKind":"user","userKey":"\xc3\xa9","creationDate":-5,"key":"k","variation":null,'
    b'"value":1e400,"default":true,"version":1.10,"source":"S","metadata":{"n":9007199254740993},"x":[1],"y":null}'
)


def manifest(records: int, digest: str = "d" * 64) -> Manifest:
    return Manifest(OffsetRange(PARTITION, 0, 10_000), records, digest, "c")


def encoded(format: AvroFormat, values: list[bytes], step: int = 10_000) -> EncodedObject:
    encoder = format.begin(PARTITION)
    for at in range(0, len(values), step):
        part = values[at : at + step]
        assert encoder.add(part, [StoredRecord(at + n, value) for n, value in enumerate(part)]) == []
    ours = manifest(len(values))
    return EncodedObject(encoder.finish(ours), ours)


def records(object_: EncodedObject) -> list[Any]:
    return list(fastavro.reader(io.BytesIO(b"".join(object_.parts))))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_foreign_readers(compression: AvroCompression) -> None:
    """fastavro and Apache's avro (but for snappy, which it leaves to another package) read all records in
    order, over several blocks.
    """
    values = [*events(2500), TRACKING]
    ours = encoded(AvroFormat(compression), values)
    found = records(ours)
    assert [json.loads(value)["userKey"] for value in values] == [record["userKey"] for record in found]
    if compression == "snappy":
        return
    with avro.datafile.DataFileReader(io.BytesIO(b"".join(ours.parts)), avro.io.DatumReader()) as reader:
        assert found == list(reader)


@pytest.mark.parametrize("value", [*events(1), TRACKING, STRANGE])
def test_nothing_is_lost(value: bytes) -> None:
    """The event's JSON can be made from its record again; numbers keep their digits."""
    (record,) = records(encoded(AvroFormat("none"), [value]))
    whole = json.JSONDecoder(parse_float=str, parse_int=str)
    assert whole.decode(value.decode()) == whole.decode(event_text(record).decode())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cuts_do_not_show(compression: AvroCompression) -> None:
    """The same events give the same bytes however they arrive."""
    values = events(2500)
    format = AvroFormat(compression)
    assert encoded(format, values).parts == encoded(format, values, 7).parts


def test_large_events_make_small_blocks() -> None:
    """A block ends after 1 MiB of events, so memory stays bounded."""
    large = STRANGE.replace(b"1e400", b'"' + b"x" * 300_000 + b'"')
    encoder = AvroFormat("deflate").begin(PARTITION)
    encoder.add([large] * 4, [StoredRecord(0, large)] * 4)
    assert encoder.size > 0
    assert encoder.memory < 300_000


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"[]", "not_an_object"),
        (b'{"kind":"feature"}', "missing_field"),
        (STRANGE.replace(b'"S"', b"5"), "wrong_type"),
        (STRANGE.replace(b"-5", b"9223372036854775808"), "out_of_range"),
        (STRANGE.replace(b"\xc3\xa9", b"\xff"), "invalid_json"),
        (STRANGE.replace(b"[1]", b"[" * 99_999 + b"]" * 99_999), "too_deep"),
    ],
)
def test_rejects(value: bytes, reason: str) -> None:
    """What the schema cannot hold is rejected alone and leaves no trace."""
    values = [STRANGE, value, TRACKING]
    encoder = AvroFormat("deflate").begin(PARTITION)
    (reject,) = encoder.add(values, [StoredRecord(n, v) for n, v in enumerate(values)])
    assert (1, reason) == (reject.index, reject.reason)
    assert encoder.finish(manifest(2)) == encoded(AvroFormat("deflate"), [STRANGE, TRACKING]).parts


@pytest.mark.parametrize("date", [b"1680246000.0", b"1.680246e9"])
def test_a_whole_number_in_another_form_is_an_integer(date: bytes) -> None:
    """Others who write to the output topic may have no integers."""
    (record,) = records(encoded(AvroFormat("none"), [STRANGE.replace(b"-5", date)]))
    assert (record["creationDate"], type(record["creationDate"])) == (1_680_246_000, int)


def test_context_kind_left_out() -> None:
    """GO Feature Flag leaves an empty contextKind out; the record has it empty."""
    (record,) = records(encoded(AvroFormat("none"), [STRANGE.replace(b'"contextKind":"user",', b"")]))
    assert record["contextKind"] == ""


def test_event_ids() -> None:
    """Ids have a field of their own where the sink exports them."""
    value = TRACKING.replace(b"{", b'{"id":"t-0-5",', 1)
    (record,) = records(encoded(AvroFormat("none", event_ids=True), [value]))
    assert (record["id"], record["otherFields"]) == ("t-0-5", None)
    (record,) = records(encoded(AvroFormat("none"), [value]))
    assert json.loads(record["otherFields"]) == {"id": "t-0-5"}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_same_object(compression: AvroCompression) -> None:
    """A stored file is recognised by its metadata; one that is cut short, or foreign, is reported."""
    format = AvroFormat(compression)
    ours = encoded(format, events(2500))
    stored = b"".join(ours.parts)
    assert format.compare(io.BytesIO(stored), ours) is None
    last = len(ours.parts[-1]) + len(ours.parts[-2])
    for end in (-1, -last, -last - 1, len(stored) // 2, 300, 3, 0):
        assert format.compare(io.BytesIO(stored[:end]), ours) is not None, end
    other = EncodedObject(ours.parts, manifest(2500, "e" * 64))
    assert "digest" in str(format.compare(io.BytesIO(stored), other))
    foreign = io.BytesIO()
    fastavro.writer(foreign, "long", [1])
    assert "not a file of ours" in str(format.compare(io.BytesIO(foreign.getvalue()), ours))


def test_show() -> None:
    """The first record is shown as JSON."""
    assert (
        json.loads(AvroFormat("zstd").show(encoded(AvroFormat("zstd"), [TRACKING]).parts))["key"] == "clicked"
    )
