"""Google Cloud Storage with every call failing in turn: nothing is lost, nothing is doubled.

A proxy in front of a real server fails the requests that a test names. `until_done` repeats a delivery as the
engine does.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.manifest import manifest_json
from flagstream.formats.protocol import EncodedObject
from flagstream.sinks.objects.gcs.settings import CHUNK_UNIT, GcsSettings
from flagstream.sinks.objects.gcs.store import CHECKSUM, MANIFEST, GcsStore
from flagstream.sinks.objects.probing import PROBES
from flagstream.window import Manifest, OffsetRange
from tests.support.faulty_proxy import Answer, Fault, FaultyProxy, Hang, Reset
from tests.support.small_gcs import SmallGcs

NAME = "evaluations/3/0-10.jsonl"
RANGE = OffsetRange(Partition("evaluations", 3), 0, 10)

SMALL = b'{"key":"banner"}\n'
LARGE = bytes(range(256)) * (5 * CHUNK_UNIT // 512)  # goes up in three pieces


def encoded(content: bytes, digest: str = "ab" * 32) -> EncodedObject:
    """Return an object of several parts."""
    third = len(content) // 3
    parts = (content[:third], content[third : 2 * third], content[2 * third :])
    return EncodedObject(parts, Manifest(RANGE, 10, digest, "config"))


class Lines:
    """Implements as much of a format as a store asks for."""

    content_type = "application/x-ndjson"


LINES: Any = Lines()


class Place(NamedTuple):
    """A bucket, and a store that reaches it through the proxy."""

    server: SmallGcs
    proxy: FaultyProxy
    bucket: str
    store: GcsStore

    def other(self, **settings: Any) -> GcsStore:
        """Return a store with other settings on the same bucket."""
        base = {"bucket": self.bucket, "endpoint": self.proxy.url, "anonymous": True}
        return GcsStore(GcsSettings(**{**base, "chunk_size": CHUNK_UNIT, **settings}))

    def holds(self, content: bytes) -> None:
        """The bucket holds that one object, whole, and says what it is."""
        assert self.server.names(self.bucket) == [NAME]
        assert self.server.content(self.bucket, NAME) == content
        found = self.server.resource(self.bucket, NAME)
        assert found["metadata"][MANIFEST].encode() == manifest_json(encoded(content).manifest)
        assert found["metadata"][CHECKSUM] == found["crc32c"]
        assert found["contentType"] == "application/x-ndjson"


@pytest.fixture
def place(gcs: SmallGcs, gcs_bucket: str) -> Iterator[Place]:
    with FaultyProxy(gcs.url) as proxy:
        place = Place(gcs, proxy, gcs_bucket, None)  # type: ignore[arg-type]
        store = place.other()
        yield place._replace(store=store)
        store.close()


def until_done(store: GcsStore, content: bytes, tries: int = 4) -> tuple[bool, list[SinkError]]:
    """Return whether the last try created the object, and the errors of those before it."""
    errors: list[SinkError] = []
    for _ in range(tries):
        try:
            return store.create(NAME, encoded(content), LINES), errors
        except SinkError as error:
            errors.append(error)
    raise AssertionError(f"not delivered in {tries} tries: {errors}")


class Call(NamedTuple):
    """Describes a request of a delivery."""

    content: bytes
    method: str
    part_of_path: str
    nth: int = 1

    def fail(self, proxy: FaultyProxy, fault: Fault, times: int = 1) -> None:
        proxy.fail(fault, self.method, lambda path: self.part_of_path in path, nth=self.nth, times=times)


UPLOADS: Mapping[str, Call] = {
    "simple": Call(SMALL, "POST", "uploadType=multipart"),
    "session": Call(LARGE, "POST", "uploadType=resumable"),
    "first piece": Call(LARGE, "PUT", "upload_id="),
    "second piece": Call(LARGE, "PUT", "upload_id=", nth=2),
    "last piece": Call(LARGE, "PUT", "upload_id=", nth=3),
}

COMPLETING = (UPLOADS["simple"], UPLOADS["last piece"])
"""Those after which the object is there."""

ANSWERS: Mapping[int, type[SinkError]] = {
    401: SinkRefused,
    403: SinkRefused,
    404: SinkRefused,
    408: SinkUnavailable,
    409: SinkUnavailable,
    412: SinkUnavailable,  # there is no object that would explain it
    429: SinkUnavailable,
    500: SinkUnavailable,
    503: SinkUnavailable,
}


@pytest.mark.parametrize("status", ANSWERS)
@pytest.mark.parametrize("call", UPLOADS.values(), ids=UPLOADS.keys())
def test_an_upload_that_is_refused(place: Place, call: Call, status: int) -> None:
    """Each answer is reported as what it is, with the time to wait; once it is over, the object is stored."""
    call.fail(place.proxy, Answer(status, {"Retry-After": "7"}))
    created, (error,) = until_done(place.store, call.content)

    lost_session = status == 404 and call.method == "PUT"
    assert type(error) is (SinkUnavailable if lost_session else ANSWERS[status])
    if isinstance(error, SinkUnavailable) and status != 412:
        assert error.retry_after == 7
    assert created
    place.holds(call.content)


@pytest.mark.parametrize("fault", [Reset(), Hang()], ids=["reset", "hang"])
@pytest.mark.parametrize("call", UPLOADS.values(), ids=UPLOADS.keys())
def test_an_upload_that_does_not_arrive(place: Place, call: Call, fault: Fault) -> None:
    """A connection that is reset or silent passes by itself, and the object is stored."""
    call.fail(place.proxy, fault)
    created, (error, *_) = until_done(place.other(timeout=0.5), call.content)
    assert place.proxy.faults == 1
    assert type(error) is SinkUnavailable
    assert created
    place.holds(call.content)


@pytest.mark.parametrize(
    "fault",
    [Reset(forward=True), Hang(forward=True), Answer(503, forward=True)],
    ids=["reset", "hang", "503"],
)
@pytest.mark.parametrize("call", UPLOADS.values(), ids=UPLOADS.keys())
def test_a_lost_answer(place: Place, call: Call, fault: Fault) -> None:
    """The store has taken the request and its answer is lost: where that was the last one, the next try finds
    the object there and says that it created nothing; there is one object in any case.
    """
    call.fail(place.proxy, fault)
    created, (error, *_) = until_done(place.other(timeout=0.5), call.content)
    assert place.proxy.faults == 1
    assert type(error) is SinkUnavailable
    assert created is (call not in COMPLETING)
    place.holds(call.content)


READ_ANSWERS = {**ANSWERS, 404: SinkUnavailable}
"""Not there, after it stood in the way: deleted meanwhile."""


@pytest.mark.parametrize("fault", [*READ_ANSWERS, Reset(), Hang()], ids=str)
def test_reading_what_is_there(place: Place, fault: int | Fault) -> None:
    """An object that is there counts as delivered only once it has said what it is."""
    place.store.create(NAME, encoded(SMALL), LINES)
    failing = Answer(fault) if isinstance(fault, int) else fault
    place.proxy.fail(failing, "GET", lambda path: "/o/" in path)

    created, (error,) = until_done(place.other(timeout=0.5), SMALL)

    assert type(error) is (READ_ANSWERS[fault] if isinstance(fault, int) else SinkUnavailable)
    assert not created
    place.holds(SMALL)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["simple", "resumable"])
def test_deleted_between_upload_and_reading(place: Place, content: bytes) -> None:
    """What was deleted in that moment is stored again."""
    call = UPLOADS["simple"] if content is SMALL else UPLOADS["last piece"]
    call.fail(place.proxy, Answer(412))
    created, (error,) = until_done(place.store, content)
    assert "is not there now" in str(error)
    assert created
    place.holds(content)


def test_an_answer_that_is_none(place: Place) -> None:
    """A page in the place of the store's answer, as a captive proxy sends it, is not a success."""
    UPLOADS["simple"].fail(place.proxy, Answer(200, {"Content-Type": "text/html"}, b"<html>"))
    created, errors = until_done(place.store, SMALL)
    assert (created, [type(error) for error in errors]) == (True, [SinkUnavailable])
    place.holds(SMALL)


@pytest.mark.parametrize(
    "answer",
    [b"{}", json.dumps({"crc32c": "AAAAAA=="}).encode()],
    ids=["without a checksum", "with another"],
)
def test_other_content_than_was_sent(place: Place, answer: bytes) -> None:
    """A store that took something else than what was sent stops the partition."""
    UPLOADS["simple"].fail(place.proxy, Answer(200, {"Content-Type": "application/json"}, answer))
    with pytest.raises(ObjectConflict, match="other content than was sent"):
        place.store.create(NAME, encoded(SMALL), LINES)


@pytest.mark.parametrize("fault", [*ANSWERS, Reset(), Hang()], ids=str)
@pytest.mark.parametrize("page", [1, 2])
def test_a_listing_is_whole_or_fails(place: Place, page: int, fault: int | Fault) -> None:
    """No page that fails is taken for the end of the listing."""
    place.store.create(NAME, encoded(SMALL), LINES)
    failing = Answer(fault) if isinstance(fault, int) else fault
    if page == 2:
        first = {"items": [{"name": "evaluations/3/0-0.jsonl"}], "nextPageToken": "2"}
        place.proxy.fail(Answer(200, {"Content-Type": "application/json"}, json.dumps(first).encode()))
    place.proxy.fail(failing, "GET")
    store = place.other(timeout=0.5)
    with pytest.raises(ANSWERS[fault] if isinstance(fault, int) else SinkUnavailable):
        list(store.names("evaluations/"))
    assert list(store.names("evaluations/")) == [NAME]


OPENING = ("write", "write again", "read", "list")


@pytest.mark.parametrize("fault", [403, 503, Reset()], ids=str)
@pytest.mark.parametrize("nth", range(1, len(OPENING) + 1), ids=OPENING)
def test_opening(place: Place, nth: int, fault: int | Fault) -> None:
    """Opening fails with each of its calls, leaves no object, and succeeds when the trouble is over."""
    failing = Answer(fault) if isinstance(fault, int) else fault
    place.proxy.fail(failing, nth=nth)
    store = place.other(timeout=0.5)
    with pytest.raises(SinkError):
        store.open()
    assert place.proxy.faults == 1
    store.open()
    assert place.server.names(place.bucket) == []


def test_opening_without_the_right_to_delete(place: Place) -> None:
    """The probe stays, and the sink can be used: an archive may forbid deleting."""
    place.proxy.fail(Answer(403), "DELETE")
    place.store.open()
    (left,) = place.server.names(place.bucket)
    assert left.startswith(PROBES)
