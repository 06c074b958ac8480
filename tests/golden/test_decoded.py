"""Decoding finds a difference in content that it is meant to find: otherwise it would compare nothing."""

import gzip

from tests.golden.decoded import decoded


def test_another_text_is_another_content() -> None:
    """Two gzip members of different text are decoded to different values, of the same text to equal ones."""
    one, same, other = (
        gzip.compress(text, level, mtime=0) for text, level in ((b"a", 1), (b"a", 9), (b"b", 1))
    )

    assert decoded("x.jsonl.gz", one) == decoded("x.jsonl.gz", same)
    assert decoded("x.jsonl.gz", one) != decoded("x.jsonl.gz", other)


def test_another_manifest_is_another_content() -> None:
    """The extra field of a gzip member, which holds its manifest, is part of its content."""
    plain = gzip.compress(b"a", mtime=0)
    extra = plain[:3] + bytes([plain[3] | 4]) + plain[4:10]
    one, other = (extra + bytes([5, 0]) + field + plain[10:] for field in (b"FS\x01\x00x", b"FS\x01\x00y"))

    assert decoded("x.gz", one) != decoded("x.gz", other)
