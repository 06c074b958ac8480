"""A window of an output topic that is Avro."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flagstream.chunk import Record
from flagstream.errors import PartitionStopped
from flagstream.export.validation import validate
from flagstream.export.windows import Limits, OpenWindow
from flagstream.formats import avro_schemas as schemas
from flagstream.outcomes import Reject
from flagstream.topic_formats.decoding import FixedDecoder
from flagstream.topic_formats.encoding import FixedEncoder
from flagstream.window import ContentDigest
from tests.support.recording import PARTITION, RecordingSink, StoredRecord

SCHEMA = schemas.own("enriched_event")


class Listening:
    """An encoder that remembers what it got, and rejects the event with the key "no"."""

    size = memory = 0

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        self.values += values
        return [Reject(index, "picky", "no") for index, value in enumerate(values) if b'"no"' in value]

    def finish(self, manifest: object) -> list[bytes]:
        return self.values


def event(key: str) -> bytes:
    return (
        b'{"kind":"tracking","contextKind":"user","userKey":"u","creationDate":1,"key":"%b"}' % key.encode()
    )


def avro(key: str) -> bytes:
    value = FixedEncoder(SCHEMA).encode(event(key))
    assert isinstance(value, bytes)
    return value


def test_encoders_see_json_and_the_digest_is_that_of_the_topic() -> None:
    """So a plan and an object are the same window whatever the sink's format; what cannot be read, or is
    rejected, is in neither, and its dead letter is the record as it was. An event from when the topic was
    JSON is one like any other.
    """
    sink, encoder = RecordingSink([]), Listening()
    sink.begin = lambda *_: encoder  # type: ignore[method-assign, assignment]
    decoder = FixedDecoder(schemas.parsed(SCHEMA))
    window = OpenWindow(
        sink, PARTITION, 0, 0, limits=Limits(10, 1024**2, 1024**2), sink_name="test", decoder=decoder
    )
    values = [avro("a"), b"{}", avro("no"), None, event("b")]

    window.add([StoredRecord(offset, value) for offset, value in enumerate(values)])
    closed = window.close("time", "")

    digest = ContentDigest()
    digest.update([avro("a"), event("b")])
    assert encoder.values == [event("a"), event("no"), event("b")]
    assert closed.manifest is not None
    assert (closed.manifest.records, closed.manifest.digest) == (2, digest.hexdigest())
    letters = sorted((letter.reason, letter.value) for letter in closed.rejects)
    assert letters == [("invalid_avro", b"{}"), ("picky", avro("no")), ("tombstone", None)]


@pytest.mark.parametrize("schema", sorted(Path("avro").rglob("enriched_event*.avsc")), ids=str)
@pytest.mark.parametrize("prefix", [b"", b"\0\0\0\n\x07"], ids=["bare", "with id"])
@pytest.mark.parametrize("kind", ["feature", "tracking"])
def test_an_avro_event_in_a_topic_that_is_json_now_is_no_dead_letter(
    schema: Path, prefix: bytes, kind: str
) -> None:
    """The topic's format was changed before all of it was exported. In every version of the schema it is seen
    to be an event: the partition stops and names the way out, rather than pour its backlog into the dead
    letters.
    """
    text = event("a").replace(b"tracking", kind.encode()).replace(b"}", b',"value":1}')
    value = FixedEncoder(schema.read_text()).encode(text)
    assert isinstance(value, bytes)
    window = OpenWindow(
        RecordingSink([]), PARTITION, 0, 0, limits=Limits(10, 1024**2, 1024**2), sink_name="test"
    )

    with pytest.raises(PartitionStopped, match=r'evaluations-3: .*"json".* offset 1 .*"avro", which takes'):
        window.add([StoredRecord(0, event("a")), StoredRecord(1, prefix + value)])


@pytest.mark.parametrize("value", [b"\0\0\0\0\1{}", b"\x0efeatur", b"feature", b"\0\0\0\0\1", b"\x0e"])
def test_what_only_resembles_it_is_foreign(value: bytes) -> None:
    """A dead letter like other garbage: it stops nothing."""
    window = OpenWindow(
        RecordingSink([]), PARTITION, 0, 0, limits=Limits(10, 1024**2, 1024**2), sink_name="test"
    )

    window.add([StoredRecord(0, event("a")), StoredRecord(1, value)])

    assert [letter.reason for letter in window.close("time", "").rejects] == ["foreign"]


def test_an_event_in_avro_nests_as_deep_as_one_in_json() -> None:
    """Its maps are JSON text, of any depth: what a foreign producer nests too deeply is rejected by it."""

    def deep(levels: int) -> bytes:
        value = b"[" * levels + b"]" * levels
        made = FixedEncoder(SCHEMA).encode(event("a")[:-1] + b',"value":%b}' % value)
        assert isinstance(made, bytes)
        return made

    decoder = FixedDecoder(schemas.parsed(SCHEMA))
    records = [StoredRecord(offset, value) for offset, value in enumerate([avro("a"), deep(499), deep(500)])]
    found = validate(records, decoder)

    assert found.records == records[:2]
    assert [(reject.index, reject.reason) for reject in found.rejects] == [(2, "too_deep")]
