"""Stores that speak S3 but ignore its conditions are found out when the sink opens."""

from typing import Any

import pytest

from flagstream.errors import ObjectConflict, SinkRefused
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.protocol import EncodedObject
from flagstream.sinks.objects.s3.store import LARGEST_PUT, S3Store
from flagstream.testing import PARTITION
from flagstream.window import Manifest, OffsetRange
from tests.support.faulty_proxy import Answer, FaultyProxy
from tests.support.seaweed import Folder, SeaweedFs

KIND = JsonLinesFormat(Compression("gzip", 3))
EVERY_WRITE = ("PutObject", "CompleteMultipartUpload")


def content(digest: str = "a" * 64) -> EncodedObject:
    return EncodedObject((b"x" * 6_000_000,), Manifest(OffsetRange(PARTITION, 0, 10), 10, digest, "config"))


def ignoring(folder: Folder, *calls: str, **settings: Any) -> S3Store:
    """A store at which the server never sees the condition of these calls."""
    store = S3Store(folder.settings(part_size="5MiB", **settings))

    def hide(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop("If-None-Match", None)

    for call in calls:
        store._client.meta.events.register(f"before-call.s3.{call}", hide)
    return store


@pytest.fixture
def folder(seaweed: SeaweedFs) -> Folder:
    return seaweed.folder()


def test_ignored_condition_is_refused(folder: Folder) -> None:
    """A store that replaces what is there is refused, and the way out is named; nothing is left there."""
    with pytest.raises(SinkRefused, match=r"does not honour If-None-Match .* at_least_once"):
        ignoring(folder, *EVERY_WRITE).open()
    assert folder.names() == []


def test_ignored_condition_can_be_accepted(folder: Folder) -> None:
    """With at_least_once such a store is looked at before each write."""
    store = ignoring(folder, *EVERY_WRITE, at_least_once=True)
    store.open()
    assert store.create("a", content(), KIND) is True
    assert store.create("a", content(), KIND) is False
    with pytest.raises(ObjectConflict):
        store.create("a", content("b" * 64), KIND)
    assert folder.names() == ["a"]


def test_at_least_once_takes_what_it_gets(folder: Folder) -> None:
    """A store that honours the condition is create-only also when less would be accepted."""
    store = ignoring(folder, at_least_once=True)
    store.open()
    assert store._create_only


def test_unknown_condition(seaweed: SeaweedFs, folder: Folder) -> None:
    """A store that answers that it has no conditions is refused, or used without them if that is accepted."""

    def unknown(proxy: FaultyProxy, times: int) -> None:
        proxy.fail(Answer(501), "PUT", times=times)

    with FaultyProxy(seaweed.url) as proxy:
        unknown(proxy, 1)
        with pytest.raises(SinkRefused, match="501"):
            ignoring(folder, endpoint=proxy.url).open()
        unknown(proxy, 1)
        store = ignoring(folder, endpoint=proxy.url, at_least_once=True)
        store.open()
        assert store.create("a", content(), KIND) is True
        assert store.create("a", content(), KIND) is False
        writes = [seen for seen in proxy.seen if seen.method == "PUT" and seen.path.endswith("/a")]
        assert all("If-None-Match" not in seen.headers for seen in writes)


def test_condition_ignored_for_parts(folder: Folder) -> None:
    """A store that honours the condition on single writes only is used with those, whatever the size."""
    store = ignoring(folder, "CompleteMultipartUpload")
    store.open()
    assert store._largest_put == LARGEST_PUT
    assert store.create("a", content(), KIND) is True
    assert store.create("a", content(), KIND) is False
    assert not folder.head("a")["ETag"].strip('"').endswith("-2")
