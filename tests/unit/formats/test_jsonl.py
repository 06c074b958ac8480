"""The format writes JSON lines."""

import gzip
from collections.abc import Sequence

import pytest

from flagstream.chunk import Partition
from flagstream.formats.compression import Compression, TextCompression
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.testing import StoredRecord, events
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(OffsetRange(Partition("t", 0), 0, 10), 10, "d", "c")


def add(encoder: JsonLinesEncoder, values: list[bytes]) -> list[tuple[int, str]]:
    records = [StoredRecord(index, value) for index, value in enumerate(values)]
    return [(reject.index, reject.reason) for reject in encoder.add(values, records)]


def begun(compression: TextCompression) -> JsonLinesEncoder:
    return JsonLinesEncoder(Compression(compression, 3).output())


def text(parts: Sequence[bytes], compression: TextCompression) -> bytes:
    body = b"".join(parts)
    return gzip.decompress(body) if compression == "gzip" else body


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_each_value_is_a_line(compression: TextCompression) -> None:
    """Values stand as they came, each with its line break, over all chunks."""
    encoder = begun(compression)
    assert add(encoder, [b'{"a":1}', b'{"b":"\xc3\xa9"}']) == []
    assert add(encoder, []) == []
    assert add(encoder, [b"{}"]) == []
    assert text(encoder.finish(MANIFEST), compression) == b'{"a":1}\n{"b":"\xc3\xa9"}\n{}\n'


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_size(compression: TextCompression) -> None:
    """An object's size is that of its pieces, and the encoder's lags by less than a block."""
    encoder = begun(compression)
    for first in range(0, 50_000, 5000):
        add(encoder, events(5000, first))
    encoded = len(b"".join(encoder.finish(MANIFEST)))
    assert encoded - 100_000 < encoder.size <= encoded


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{", "not_an_object"),
        (b"}", "not_an_object"),
        (b"[{}]", "not_an_object"),
        (b" {}", "not_an_object"),
        (b"{}\n", "not_an_object"),
        (b"}\n{", "not_an_object"),
        (b"{}\n{}", "line_break"),
        (b'{\n"a":1}', "line_break"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_value_that_is_no_line(bad: bytes, reason: str, place: int) -> None:
    """A value that would break the lines is rejected wherever it stands, and the others are kept."""
    values = [b'{"a":1}', b'{"b":2}']
    values.insert(place, bad)
    encoder = begun("none")
    assert [(place, reason)] == add(encoder, values)
    assert text(encoder.finish(MANIFEST), "none") == b'{"a":1}\n{"b":2}\n'


def test_faults_that_would_cancel_out() -> None:
    """An empty value beside one with a line break gives as many joints as values do; both are seen."""
    encoder = begun("none")
    assert add(encoder, [b"{}\n{}", b""]) == [(0, "line_break"), (1, "not_an_object")]
    assert add(encoder, [b"{", b"}"]) == [(0, "not_an_object"), (1, "not_an_object")]
    assert encoder.size == 0
