"""Manifests as JSON, and when two of them are the same window."""

import dataclasses
import json

import pytest

from flagstream.chunk import Partition
from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.window import Manifest, OffsetRange

MANIFEST = Manifest(OffsetRange(Partition("t", 1), 5, 8), 3, "a" * 64, "cfg", "id-1")


def test_round_trip() -> None:
    """What is written is read back, and others can read it as JSON."""
    assert parse_manifest(manifest_json(MANIFEST)) == MANIFEST
    assert json.loads(manifest_json(MANIFEST)) == {
        "v": 1,
        "topic": "t",
        "partition": 1,
        "start": 5,
        "end": 8,
        "records": 3,
        "digest": "a" * 64,
        "config": "cfg",
        "topic_id": "id-1",
    }


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"null", b"[]", b"{}", b'{"v":1}', b'{"v":1,"topic":"t","partition":"x"}', b"\xff"),
        manifest_json(MANIFEST).replace(b'"start":5', b'"start":1e999'),
        manifest_json(MANIFEST).replace(b'"start":5', b'"start":' + b"9" * 5_000),
        b"[" * 100_000,
    ],
)
def test_anything_else_is_none(text: bytes) -> None:
    """A text that is not a manifest is not taken for one."""
    assert parse_manifest(text) is None


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (
            dataclasses.replace(MANIFEST, range=OffsetRange(Partition("t", 1), 5, 9)),
            "it holds t-1-5-9, not t-1-5-8",
        ),
        (dataclasses.replace(MANIFEST, records=2), "it holds 2 records, the window has 3"),
        (dataclasses.replace(MANIFEST, digest="b" * 64), "its content digest is bbbbbbbbbbbb"),
        (
            dataclasses.replace(MANIFEST, digest="b" * 64, topic_id="id-2"),
            "from an earlier topic of the same name",
        ),
    ],
)
def test_difference_is_told(theirs: Manifest, text: str) -> None:
    """Range, count or digest make another window; a recreated topic is named as the likely reason."""
    assert text in (difference(MANIFEST, theirs) or "")


@pytest.mark.parametrize(
    "theirs",
    [
        dataclasses.replace(MANIFEST, config="other"),
        dataclasses.replace(MANIFEST, topic_id="id-2"),
        dataclasses.replace(MANIFEST, topic_id=""),
    ],
)
def test_same_content_is_the_same_window(theirs: Manifest) -> None:
    """Where range, count and digest agree, neither configuration nor topic id make a difference."""
    assert difference(MANIFEST, theirs) is None
