"""gzip members have a manifest in front."""

import gzip
import io
import zlib

import pytest

from flagstream.chunk import Partition
from flagstream.formats.gzip import HEADER_MAX, Deflate, header, read_manifest
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(
    range=OffsetRange(Partition("flag-evaluations-enriched", 7), 5, 2**63 - 1),
    records=100_000,
    digest="ab" * 32,
    config="0123456789abcdef",
    topic_id="AAAAAAAAAAAAAAAAAAAAAQ",
)


def member(*pieces: bytes, level: int = 3) -> bytes:
    deflate = Deflate(level)
    for piece in pieces:
        deflate.write(piece)
    return b"".join(deflate.finish(MANIFEST))


def test_reads_as_gzip() -> None:
    """Python's gzip gives the content and finds no time in the header; a second member may follow."""
    data = member(b"one ", b"two")
    with gzip.open(io.BytesIO(data + data)) as file:
        assert file.read() == b"one twoone two"
        assert file.mtime == 0


def test_manifest_comes_back() -> None:
    """The manifest is read from the first bytes alone."""
    data = member(b"x" * 1_000_000)
    assert read_manifest(data) == MANIFEST
    assert read_manifest(data[:HEADER_MAX]) == MANIFEST
    assert read_manifest(header(MANIFEST)) == MANIFEST


def test_longest_topic_fits() -> None:
    """Kafka's longest topic name leaves the extra field far below its limit of 65,535 bytes."""
    manifest = Manifest(
        OffsetRange(Partition("t" * 249, 2**31 - 1), 2**62, 2**63 - 1), 2**62, "a" * 64, "c" * 64, "i" * 22
    )
    assert len(header(manifest)) < 1000
    assert manifest == read_manifest(header(manifest))


def test_header_depends_on_the_manifest_only() -> None:
    """The bytes of the header are fixed: no time, host or operating system."""
    assert header(MANIFEST) == header(MANIFEST)
    assert header(MANIFEST).startswith(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff")


def test_manifest_behind_another_subfield() -> None:
    """Subfields of other writers are passed over."""
    own = header(MANIFEST)[12:]
    extra = b"AP\x02\x00zz" + own
    assert read_manifest(header(MANIFEST)[:10] + len(extra).to_bytes(2, "little") + extra) == MANIFEST


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        b"plain text, long enough to be taken for a header",
        gzip.compress(b"of somebody else", mtime=0),
        header(MANIFEST)[:40],
        header(MANIFEST).replace(b'"v":1', b'"v":2'),
        header(MANIFEST).replace(b'"end"', b'"And"'),
        header(MANIFEST).replace(b'{"v"', b'["v"'),
        b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x05\x00FS\xff\xff1",
    ],
)
def test_not_ours(data: bytes) -> None:
    """A file that is not the worker's, or was cut in its header, has no manifest."""
    assert read_manifest(data) is None


def test_checksum_and_length_end_it() -> None:
    """The trailer is CRC-32 and length of the content, so a damaged file is noticed by every reader."""
    data = member(b"content")
    assert zlib.crc32(b"content").to_bytes(4, "little") + (7).to_bytes(4, "little") == data[-8:]
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(data[:-8] + b"\0" * 8)
