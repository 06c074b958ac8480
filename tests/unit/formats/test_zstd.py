"""Zstandard frames with a manifest in front."""

import io

import pytest
import zstandard

from worker.chunk import Partition
from worker.formats.protocol import EncodedObject
from worker.formats.zstd import Zstd, compare, decompress, header, read_manifest
from worker.testing import events
from worker.window import Manifest, Range

MANIFEST = Manifest(Range(Partition("flag-evaluations", 7), 5, 2**63 - 1), 100_000, "ab" * 32, "c", "AAAA")
TEXT = b"\n".join(events(5000))


def encoded(text: bytes, step: int = 1 << 30, level: int = 3, manifest: Manifest = MANIFEST) -> EncodedObject:
    out = Zstd(level)
    for at in range(0, len(text), step):
        out.write(text[at : at + step])
    return EncodedObject(out.finish(manifest), manifest)


@pytest.mark.parametrize("text", [b"", b"x", TEXT])
def test_reads_as_zstd(text: bytes) -> None:
    """The library that most tools are built on gives the content; it passes over the manifest's frame."""
    whole = b"".join(encoded(text).parts)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole), read_across_frames=True) as reader:
        assert reader.read() == text
    assert decompress(whole) == text


@pytest.mark.parametrize("level", [1, 3, 9])
@pytest.mark.parametrize("step", [1, 777, 65_536, 65_537])
def test_cuts_do_not_show(level: int, step: int) -> None:
    """The same text gives the same bytes however it arrives."""
    text = TEXT[:200_000] if step > 1 else TEXT[:70_000]
    assert b"".join(encoded(text, level=level).parts) == b"".join(encoded(text, step, level).parts)


def test_manifest_comes_back() -> None:
    """The manifest is read from the first bytes alone."""
    whole = b"".join(encoded(TEXT).parts)
    assert read_manifest(whole) == MANIFEST
    assert read_manifest(whole[:1000]) == MANIFEST


@pytest.mark.parametrize("data", [b"", b"P*M", b"\x28\xb5\x2f\xfd....", header(MANIFEST)[:40], b"text" * 9])
def test_not_ours(data: bytes) -> None:
    """What is no file of ours, or was cut in its header, has no manifest."""
    assert read_manifest(data) is None


def test_same_object() -> None:
    """Another level is the same object; another range, a cut or a changed end is not."""
    ours = encoded(TEXT)
    stored = b"".join(encoded(TEXT, level=9).parts)
    assert compare(io.BytesIO(stored), ours) is None
    assert "cut short" in str(compare(io.BytesIO(stored[:-1]), ours))
    assert "cut short" in str(compare(io.BytesIO(stored[:-4] + b"zzzz"), ours))
    other = Manifest(Range(Partition("flag-evaluations", 7), 5, 9), 100_000, "ab" * 32, "c")
    assert "it holds" in str(compare(io.BytesIO(b"".join(encoded(TEXT, manifest=other).parts)), ours))
    assert "not a file of ours" in str(compare(io.BytesIO(TEXT), ours))


def test_size_and_memory() -> None:
    """Nothing at first; then the size is that of the pieces, and memory covers the compressor."""
    out = Zstd(3)
    assert (out.size, out.memory) == (0, 0)
    out.write(b"x")
    assert out.size == 0
    assert out.memory > 1 << 20
    parts = out.finish(MANIFEST)
    assert out.size == sum(map(len, parts[1:]))
