"""Every call to S3 failing in turn, in every way: what is delivered again afterwards is there, once.

A proxy between the store and a real server answers with an error, hangs, or resets the connection, before or
after the server took the request. A call is failed as often as the client library repeats it, so that the
failure reaches the store; ``test_library_repeats_once`` has those that do not.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from flagstream.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.protocol import EncodedObject
from flagstream.sinks.objects.s3.client import ATTEMPTS
from flagstream.sinks.objects.s3.store import S3Store
from flagstream.testing import PARTITION
from flagstream.window import Manifest, OffsetRange
from tests.support.faulty_proxy import Answer, Fault, FaultyProxy, Hang, Reset
from tests.support.seaweed import SECRET_KEY, Folder, SeaweedFs

KIND = JsonLinesFormat(Compression("gzip", 3))
NAME = "evaluations/3/window"


def content(digest: str = "a" * 64) -> EncodedObject:
    return EncodedObject((b"some ", b"bytes"), Manifest(OffsetRange(PARTITION, 0, 10), 10, digest, "config"))


def error(status: int, code: str, **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml", **headers}, body.encode())


@dataclass(frozen=True)
class Call:
    """Names a call of the API by its request."""

    method: str
    target: Callable[[str], bool]
    in_parts: bool = True


PUT = Call("PUT", lambda target: "?" not in target, in_parts=False)
CREATE = Call("POST", lambda target: target.endswith("?uploads"))
PART = Call("PUT", lambda target: "partNumber=" in target)
COMPLETE = Call("POST", lambda target: "uploadId=" in target)
ABORT = Call("DELETE", lambda target: "uploadId=" in target)
UPLOADS = Call("GET", lambda target: "uploads" in target)
HEAD = Call("HEAD", lambda _: True, in_parts=False)
LIST = Call("GET", lambda target: "list-type=2" in target, in_parts=False)

WRITES = {
    "PutObject": PUT,
    "CreateMultipartUpload": CREATE,
    "UploadPart": PART,
    "CompleteMultipartUpload": COMPLETE,
}

PASSING: dict[str, Fault] = {
    "429": error(429, "TooManyRequests"),
    "500": error(500, "InternalError"),
    "503": error(503, "SlowDown"),
    "409": error(409, "ConditionalRequestConflict"),
    "412": error(412, "PreconditionFailed"),
    "400 time-out": error(400, "RequestTimeout"),
    "hang": Hang(),
    "reset": Reset(),
    "answer lost": Reset(forward=True),
    "answer late": Hang(forward=True),
    "500 after it was taken": Answer(500, forward=True),
}
REFUSALS: dict[str, Fault] = {
    "403": error(403, "AccessDenied"),
    "404": error(404, "NoSuchBucket"),
    "301": error(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-west-1"}),
    "501": error(501, "NotImplemented"),
}


class Rig:
    """A store behind the proxy, and its folder as others see it."""

    def __init__(self, proxy: FaultyProxy, folder: Folder) -> None:
        self.proxy = proxy
        self.folder = folder

    def store(self, in_parts: bool = False) -> S3Store:
        timeouts = {"connect_timeout": 2, "read_timeout": "300ms"}
        store = S3Store(self.folder.settings(endpoint=self.proxy.url, **timeouts))
        if in_parts:
            store._largest_put = 0
        return store

    def fail(self, fault: Fault, call: Call, times: int = ATTEMPTS) -> None:
        self.proxy.fail(fault, call.method, call.target, times=times)

    def deliver_until_done(self, store: S3Store, tries: int = 5) -> None:
        """Deliver as the engine does: again after every error that passes, without its pauses."""
        for _ in range(tries):
            with suppress(SinkUnavailable):
                store.create(NAME, content(), KIND)
                return
        raise AssertionError(f"not delivered in {tries} tries")

    def assert_there_once(self) -> None:
        assert self.folder.names() == [NAME]
        assert self.folder.read(NAME) == b"some bytes"
        assert self.folder.uploads() == []


@pytest.fixture(scope="module")
def proxy(seaweed: SeaweedFs) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweed.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library repeats at once."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.fixture
def rig(proxy: FaultyProxy, seaweed: SeaweedFs) -> Iterator[Rig]:
    yield Rig(proxy, seaweed.folder())
    proxy.heal()


@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
@pytest.mark.parametrize("call", WRITES.values(), ids=list(WRITES))
def test_write_that_fails_and_passes(rig: Rig, call: Call, fault: Fault) -> None:
    """A write that fails in a way that passes is not a success, and delivering again stores the object once,
    with nothing left of earlier tries.
    """
    store = rig.store(call.in_parts)
    rig.fail(fault, call)
    before = rig.proxy.faults
    rig.deliver_until_done(store)
    assert rig.proxy.faults > before
    rig.assert_there_once()


@pytest.mark.parametrize("fault", REFUSALS.values(), ids=list(REFUSALS))
@pytest.mark.parametrize("call", WRITES.values(), ids=list(WRITES))
def test_write_that_is_refused(rig: Rig, call: Call, fault: Fault) -> None:
    """A refusal is for a person to mend: never "already there", never passed over; afterwards it goes on."""
    store = rig.store(call.in_parts)
    rig.fail(fault, call)
    with pytest.raises(SinkRefused) as refusal:
        store.create(NAME, content(), KIND)
    assert SECRET_KEY not in str(refusal.value)
    assert rig.folder.names() == []
    assert rig.folder.uploads() == []
    rig.proxy.heal()
    assert store.create(NAME, content(), KIND)
    rig.assert_there_once()


@pytest.mark.parametrize(
    "fault",
    [Reset(), Hang(), Reset(forward=True), Answer(500, forward=True), error(503, "SlowDown")],
    ids=["reset", "hang", "answer lost", "500 after it was taken", "503"],
)
@pytest.mark.parametrize("call", WRITES.values(), ids=list(WRITES))
def test_library_repeats_once(rig: Rig, call: Call, fault: Fault) -> None:
    """A single failure is not even seen by the engine, and leaves nothing unfinished."""
    store = rig.store(call.in_parts)
    rig.fail(fault, call, times=1)
    before = rig.proxy.faults
    store.create(NAME, content(), KIND)
    assert rig.proxy.faults == before + 1
    rig.assert_there_once()


def test_lost_answer_is_found_again(rig: Rig) -> None:
    """A write whose answer was lost is "already there" on the next try, by what the object says of itself."""
    store = rig.store()
    rig.fail(Reset(forward=True), PUT, times=1)
    assert store.create(NAME, content(), KIND) is False
    rig.assert_there_once()


@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_somebody_else_was_first(rig: Rig, in_parts: bool, status: int) -> None:
    """409 and 412 mean "already there" only when the object there is the same."""
    rig.store().create(NAME, content(), KIND)
    call = COMPLETE if in_parts else PUT
    for digest, same in (("a" * 64, True), ("b" * 64, False)):
        rig.fail(error(status, "PreconditionFailed"), call, times=1)
        store = rig.store(in_parts)
        if same:
            assert store.create(NAME, content(digest), KIND) is False
        else:
            with pytest.raises(ObjectConflict, match="content digest"):
                store.create(NAME, content(digest), KIND)
    rig.assert_there_once()


def test_gone_between_write_and_look(rig: Rig) -> None:
    """An object that was there when we wrote and is not when we look has been deleted: try again."""
    rig.fail(error(412, "PreconditionFailed"), PUT, times=1)
    with pytest.raises(SinkUnavailable, match="another writer"):
        rig.store().create(NAME, content(), KIND)


@pytest.mark.parametrize("fault", [*PASSING.values(), *REFUSALS.values()], ids=[*PASSING, *REFUSALS])
def test_look_that_fails(rig: Rig, fault: Fault) -> None:
    """When the object that is there cannot be looked at, the window does not count as delivered."""
    rig.store().create(NAME, content(), KIND)
    rig.fail(fault, HEAD)
    store = rig.store()
    with pytest.raises(SinkError):
        store.create(NAME, content(), KIND)
    rig.proxy.heal()
    assert store.create(NAME, content(), KIND) is False
    rig.assert_there_once()


@pytest.mark.parametrize("fault", [*PASSING.values(), *REFUSALS.values()], ids=[*PASSING, *REFUSALS])
def test_listing_that_fails(rig: Rig, fault: Fault) -> None:
    """A listing that fails is an error, never "nothing there"."""
    rig.store().create(NAME, content(), KIND)
    rig.fail(fault, LIST)
    store = rig.store()
    with pytest.raises(SinkRefused if fault in REFUSALS.values() else SinkUnavailable):
        list(store.names("evaluations/"))
    rig.proxy.heal()
    assert list(store.names("evaluations/")) == [NAME]


@pytest.mark.parametrize("call", [ABORT, UPLOADS], ids=["AbortMultipartUpload", "ListMultipartUploads"])
def test_clearing_that_fails(rig: Rig, call: Call) -> None:
    """Clearing up is not a condition of a delivery: what could not be dropped is dropped by the next one."""
    store = rig.store(in_parts=True)
    rig.folder.begin_upload(NAME)
    rig.fail(error(403, "AccessDenied"), call)
    assert store.create(NAME, content(), KIND)
    rig.proxy.heal()
    assert store.create(NAME, content(), KIND) is False
    rig.assert_there_once()


def test_retry_after(rig: Rig) -> None:
    """How long the store asks to wait reaches the engine."""
    rig.fail(error(503, "SlowDown", **{"Retry-After": "7"}), PUT)
    with pytest.raises(SinkUnavailable, match="SlowDown") as unavailable:
        rig.store().create(NAME, content(), KIND)
    assert unavailable.value.retry_after == 7


def test_wrong_region_is_named(rig: Rig) -> None:
    """A bucket of another region: the refusal says which."""
    rig.fail(error(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-west-1"}), PUT, times=9)
    with pytest.raises(SinkRefused, match="the bucket is in the region eu-west-1"):
        rig.store().create(NAME, content(), KIND)


@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
@pytest.mark.parametrize("call", [PUT, LIST], ids=["PutObject", "ListObjectsV2"])
def test_opening_that_fails(rig: Rig, call: Call, fault: Fault) -> None:
    """A store that fails while it is tried out is not taken for one that ignores conditions."""
    store = rig.store()
    rig.fail(fault, call)
    with suppress(SinkUnavailable):
        store.open()
    rig.proxy.heal()
    store.open()
    assert store.create(NAME, content(), KIND)
    rig.assert_there_once()


def test_racing_stores_behind_a_slow_server(rig: Rig) -> None:
    """Two stores of which one is stalled in the middle: the late one finds the object there."""
    stalled, quick = rig.store(in_parts=True), rig.store()
    rig.fail(Hang(forward=True), PART, times=1)
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(stalled.create(NAME, content(), KIND)))
    thread.start()
    rig.deliver_until_done(quick)
    thread.join(30)
    assert len(outcome) == 1
    rig.assert_there_once()
