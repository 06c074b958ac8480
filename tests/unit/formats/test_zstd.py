"""Zstandard frames have a manifest after them, or in front, as former versions wrote them."""

import io
import struct

import pytest
import zstandard

from flagstream.chunk import Partition
from flagstream.formats.manifest import manifest_json
from flagstream.formats.protocol import EncodedObject
from flagstream.formats.zstd import Zstd, compare, decompress, footer, read_manifest
from flagstream.testing import events
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(
    OffsetRange(Partition("flag-evaluations", 7), 5, 2**63 - 1), 100_000, "ab" * 32, "c", "AAAA"
)
TEXT = b"\n".join(events(5000))


def encoded(text: bytes, step: int = 1 << 30, level: int = 3, manifest: Manifest = MANIFEST) -> EncodedObject:
    out = Zstd(level)
    for at in range(0, len(text), step):
        out.write(text[at : at + step])
    return EncodedObject(out.finish(manifest), manifest)


def former(text: bytes, level: int = 3, manifest: Manifest = MANIFEST) -> bytes:
    """Return the same file as former versions wrote it."""
    front = manifest_json(manifest)
    return b"".join(
        [struct.pack("<II", 0x184D2A50, len(front)), front, *encoded(text, level=level).parts[:-1]]
    )


@pytest.mark.parametrize("text", [b"", b"x", TEXT])
def test_reads_as_zstd(text: bytes) -> None:
    """The library that most tools are built on gives the content, by each of its calls: some of them stop or
    fail at a skippable frame that comes first."""
    whole = b"".join(encoded(text).parts)
    reader = zstandard.ZstdDecompressor
    copied = io.BytesIO()
    reader().copy_stream(io.BytesIO(whole), copied)

    assert decompress(whole) == text
    assert copied.getvalue() == text
    assert reader().stream_reader(io.BytesIO(whole)).read() == text
    assert reader().stream_reader(io.BytesIO(whole), read_across_frames=True).read() == text
    assert reader().decompressobj().decompress(whole) == text
    assert b"".join(reader().read_to_iter(io.BytesIO(whole))) == text
    assert reader().decompress(whole, max_output_size=1 << 24) == text


@pytest.mark.parametrize("level", [1, 3, 9])
@pytest.mark.parametrize("step", [1, 777, 65_536, 65_537])
def test_cuts_do_not_show(level: int, step: int) -> None:
    """The same text gives the same bytes however it arrives."""
    text = TEXT[:200_000] if step > 1 else TEXT[:70_000]
    assert b"".join(encoded(text, level=level).parts) == b"".join(encoded(text, step, level).parts)


def test_manifest_comes_back() -> None:
    """The manifest is read from the end of the file, or from its start where a former version wrote it."""
    assert read_manifest(io.BytesIO(b"".join(encoded(TEXT).parts))) == MANIFEST
    assert read_manifest(io.BytesIO(footer(MANIFEST))) == MANIFEST
    assert read_manifest(io.BytesIO(former(TEXT))) == MANIFEST
    assert decompress(former(TEXT)) == TEXT


FOOTER = footer(MANIFEST)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"P*M", b"\x28\xb5\x2f\xfd....", b"text" * 9, b"\xff" * 40, bytes(40)),
        *(FOOTER[:40], FOOTER[1:], FOOTER[:-1], former(TEXT)[:40]),
        FOOTER[:-4] + (len(FOOTER) - 1).to_bytes(4, "little"),
        b"x" * 70_000 + (70_000).to_bytes(4, "little"),
    ],
)
def test_not_ours(data: bytes) -> None:
    """A file that is not the worker's, or was cut in its frame, has no manifest."""
    assert read_manifest(io.BytesIO(data)) is None


def test_a_store_that_keeps_the_manifest_gets_none_inside() -> None:
    """The object is one frame, as any other tool would write it."""
    bare, described = Zstd(3, described=False), Zstd(3)
    for out in (bare, described):
        out.write(TEXT)

    assert [*bare.finish(MANIFEST), FOOTER] == [*described.finish(MANIFEST)]


@pytest.mark.parametrize("kind", ["of this version", "of a former one"])
def test_same_object(kind: str) -> None:
    """Another level is the same object; another range, a cut or a changed end is not. So with files that a
    former version stored, which are recognised for ever."""

    def written(level: int = 9, manifest: Manifest = MANIFEST) -> bytes:
        if kind == "of a former one":
            return former(TEXT, level, manifest)
        return b"".join(encoded(TEXT, level=level, manifest=manifest).parts)

    ours, stored = encoded(TEXT), written()
    content = len(stored) - (0 if kind == "of a former one" else len(FOOTER))
    assert compare(io.BytesIO(stored), ours) is None
    assert "cut short" in str(compare(io.BytesIO(stored[:-1]), ours))
    changed = stored[: content - 4] + b"zzzz" + stored[content:]
    assert "was changed" in str(compare(io.BytesIO(changed), ours))
    other = Manifest(OffsetRange(Partition("flag-evaluations", 7), 5, 9), 100_000, "ab" * 32, "c")
    assert "it holds" in str(compare(io.BytesIO(written(manifest=other)), ours))
    assert "not a file of ours" in str(compare(io.BytesIO(TEXT), ours))


def test_size_and_memory() -> None:
    """Nothing at first; then the size is that of the pieces, and memory covers the compressor."""
    out = Zstd(3)
    assert (out.size, out.memory) == (0, 0)
    out.write(b"x")
    assert out.size == 0
    assert out.memory > 1 << 20
    parts = out.finish(MANIFEST)
    assert out.size == sum(map(len, parts[:-1]))
