"""What a store must not take for its own, on small servers: each of these would lose or double a window."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkRefused, SinkUnavailable
from flagstream.formats.manifest import manifest_json
from flagstream.sinks.protocol import Sink
from flagstream.sinks.registry import SINKS, build
from flagstream.testing import Window, event, events, fill
from flagstream.window import OffsetRange
from tests.support.small_gcs import SmallGcs
from tests.support.small_server import Reply, Request, SmallServer

PARTITION = Partition("evaluations", 0)
LAYOUT = "flag={{ .UserKey }}/{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}"


def filled(sink: Any, values: Sequence[bytes], start: int = 0) -> Window:
    """Return a window of the partition."""
    return fill(sink, values, partition=PARTITION, start=start)


def made(**settings: Any) -> Any:
    """Return the sink of these settings."""
    return build(SINKS[settings["type"]].model_validate(settings))


def s3(server: SmallServer, **settings: Any) -> Any:
    """Return a sink of S3 at a small server."""
    return made(
        type="s3",
        bucket="archive",
        endpoint=server.url,
        path_style=True,
        region="eu-central-1",
        access_key="key",
        secret_key="secret",
        **settings,
    )


def holding(metadata: str | None) -> Callable[[Request], Reply]:
    """An S3 that has every object already, with this metadata."""
    headers = {} if metadata is None else {"x-amz-meta-flagstream": metadata}
    return lambda request: Reply(412) if request.method == "PUT" else Reply(headers=headers)


def test_an_s3_object_of_the_same_window_is_found() -> None:
    """An object under the window's name that says it is the window counts as delivered."""
    with SmallServer(holding(None)) as server:
        sink = s3(server)
        window = filled(sink, events(3))
        server.answer = holding(manifest_json(window.manifest).decode())

        assert sink.deliver(window.manifest, window.payload).existing == 1


def test_an_s3_object_of_another_window_is_a_conflict() -> None:
    """An object under the window's name with another digest is not the window."""
    with SmallServer(holding(None)) as server:
        sink = s3(server)
        window = filled(sink, events(3))
        server.answer = holding(manifest_json(replace(window.manifest, digest="f" * 64)).decode())

        with pytest.raises(ObjectConflict, match="digest"):
            sink.deliver(window.manifest, window.payload)


def test_an_s3_object_without_a_manifest_is_a_conflict() -> None:
    """An object that does not say what it holds is not the window."""
    with SmallServer(holding(None)) as server:
        sink = s3(server)
        window = filled(sink, events(3))

        with pytest.raises(ObjectConflict, match="does not say what it holds"):
            sink.deliver(window.manifest, window.payload)


def test_s3_parts_are_put_together_only_where_nothing_is() -> None:
    """The request that completes an upload in parts has the same condition as a single write."""

    def answer(request: Request) -> Reply:
        if request.method == "POST" and "uploads" in request.query:
            return Reply(body=b"<R><UploadId>1</UploadId></R>")
        return Reply(headers={"ETag": '"1"'}, body=b"<R></R>")

    with SmallServer(answer) as server:
        sink = s3(server, part_size="5MiB", compression="none")
        text = b"x" * 1_000_000
        window = filled(sink, [b'{"userKey":"%s"}' % text for _ in range(6)])
        sink.deliver(window.manifest, window.payload)

        completing = [seen for seen in server.seen if seen.method == "POST" and "uploadId" in seen.query]

    assert [seen.headers.get("if-none-match") for seen in completing] == ["*"]


def test_a_listing_of_s3_is_read_to_its_end() -> None:
    """Ranges on every page are held."""
    pages = {
        "": ("0000000000000000000-0000000000000000010", "<NextContinuationToken>2</NextContinuationToken>"),
        "2": ("0000000000000000010-0000000000000000020", ""),
    }

    def answer(request: Request) -> Reply:
        name, more = pages[request.query.get("continuation-token", "")]
        key = f"<Contents><Key>evaluations/0/{name}.jsonl.gz</Key></Contents>"
        truncated = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        return Reply(body=f"<ListBucketResult>{truncated}{key}{more}</ListBucketResult>".encode())

    with SmallServer(answer) as server:
        assert [OffsetRange(PARTITION, 0, 10), OffsetRange(PARTITION, 10, 20)] == s3(server).holdings(
            PARTITION, 0
        )


@pytest.fixture
def gcs() -> Iterator[SmallGcs]:
    """Return a Cloud Storage with a bucket."""
    with SmallGcs() as server:
        server.create_bucket("archive")
        yield server


def google(server: SmallGcs) -> Any:
    """Return a sink of the bucket."""
    return made(type="gcs", bucket="archive", endpoint=server.url, anonymous=True)


def test_a_gcs_object_of_another_window_is_a_conflict(gcs: SmallGcs) -> None:
    """An object under the window's name with other records is not the window."""
    sink = google(gcs)
    one, other = filled(sink, events(3)), filled(sink, events(3, first=50))
    sink.deliver(one.manifest, one.payload)

    with pytest.raises(ObjectConflict, match="digest"):
        sink.deliver(other.manifest, other.payload)


def test_a_gcs_object_whose_content_was_changed_is_a_conflict(gcs: SmallGcs) -> None:
    """An object with the window's manifest and another content is not the window."""
    sink = google(gcs)
    window = filled(sink, events(3))
    sink.deliver(window.manifest, window.payload)
    (name,) = gcs.names("archive")
    gcs.put("archive", name, b"other", gcs.resource("archive", name)["metadata"])

    with pytest.raises(ObjectConflict, match="changed"):
        sink.deliver(window.manifest, window.payload)


def test_a_listing_of_gcs_is_read_to_its_end(gcs: SmallGcs) -> None:
    """Ranges on every page are held: a page has a thousand names."""
    for start in range(1_001):
        gcs.put("archive", f"evaluations/0/{start:019}-{start + 1:019}.jsonl.gz")

    assert len(google(gcs).holdings(PARTITION, 0)) == 1_001


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Any]:
    """Makes open sinks of files in the folder of the test."""

    def make(**settings: Any) -> Any:
        sink: Sink[Any] = made(type="file", path=str(tmp_path / "archive"), **settings)
        sink.open()
        return sink

    return make


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_file_of_another_window_is_a_conflict(files: Callable[..., Any], compression: str) -> None:
    """A file under the window's name with other records is not the window."""
    sink = files(compression=compression)
    one, other = filled(sink, events(3)), filled(sink, events(3, first=50))
    sink.deliver(one.manifest, one.payload)

    with pytest.raises(ObjectConflict):
        sink.deliver(other.manifest, other.payload)


def test_a_file_that_was_cut_short_is_a_conflict(files: Callable[..., Any], tmp_path: Path) -> None:
    """A file with the window's manifest that lacks its end is not the window."""
    sink = files()
    window = filled(sink, events(100))
    sink.deliver(window.manifest, window.payload)
    (path,) = (tmp_path / "archive").rglob("*.gz")
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(ObjectConflict):
        sink.deliver(window.manifest, window.payload)


def test_a_range_is_held_if_one_record_of_it_is_to_come(files: Callable[..., Any]) -> None:
    """Of two ranges the one that ends where we begin is not held, and the one that ends a record later is."""
    sink = files()
    for start in (0, 3):
        window = filled(sink, events(3), start=start)
        sink.deliver(window.manifest, window.payload)

    assert [OffsetRange(PARTITION, 3, 6)] == sink.holdings(PARTITION, 5)
    assert sink.holdings(PARTITION, 6) == []
    assert [OffsetRange(PARTITION, 3, 6)] == sink.holdings(PARTITION, 3)


class RefusingStore:
    """A store that writes down names, and refuses those that have a given word in them."""

    place = "somewhere"

    def __init__(self, refused: str = "-") -> None:
        self.created: list[str] = []
        self._refused = refused

    def create(self, name: str, content: Any, kind: Any) -> bool:
        if self._refused in name and not name.startswith("_index"):
            raise SinkRefused("no")
        self.created.append(name)
        return True


def stored_in(
    store: RefusingStore, files: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, **more: Any
) -> Any:
    """A sink of a layout whose objects go into ``store``."""
    sink = files(name=LAYOUT, **more)
    monkeypatch.setattr(sink, "_store", store)
    return sink


def test_the_index_of_a_window_comes_first(
    files: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of a window is stored, its index is: who takes the window over finds it by that."""
    store = RefusingStore("evaluations")
    sink = stored_in(store, files, monkeypatch)
    window = filled(sink, events(4))

    with pytest.raises(SinkRefused):
        sink.deliver(window.manifest, window.payload)

    assert store.created == ["_index/evaluations/0/0000000000000000000-0000000000000000004.json"]


def test_a_window_that_is_stored_in_part_is_tried_again(
    files: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its objects is stored, so the window must not become dead letters: the refusal is reported as
    something to try again.
    """
    store = RefusingStore("user-1/")
    sink = stored_in(store, files, monkeypatch, on_refused="dead_letter")
    window = filled(sink, events(4))

    with pytest.raises(SinkUnavailable, match="part of its window is stored"):
        sink.deliver(window.manifest, window.payload)


def test_a_window_of_which_nothing_is_stored_is_refused(
    files: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its objects is stored: the refusal is reported, and the window can become dead letters."""
    sink = stored_in(RefusingStore("evaluations"), files, monkeypatch, on_refused="dead_letter")
    window = filled(sink, [event(1)])

    with pytest.raises(SinkRefused):
        sink.deliver(window.manifest, window.payload)
