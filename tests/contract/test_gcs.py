"""The sink for Google Cloud Storage passes the contract of create-only sinks on a server of its protocol."""

import gzip
import json
import pickle
import signal
import subprocess
import sys
from typing import Any, ClassVar

import pytest

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkRefused
from flagstream.formats.manifest import parse_manifest
from flagstream.outcomes import Proof
from flagstream.sinks.objects.gcs.settings import CHUNK_UNIT, GcsSettings
from flagstream.sinks.objects.gcs.store import CHECKSUM, MANIFEST, GcsStore
from flagstream.sinks.objects.names import DEFAULT_NAME
from flagstream.sinks.protocol import Delivery, Sink
from flagstream.sinks.registry import build
from flagstream.testing import PARTITION, CreateOnlyContract, Window, event, events, fill
from tests.support.faulty_proxy import Answer, FaultyProxy
from tests.support.small_gcs import SmallGcs

DIE_WHILE_SENDING = """
import http.client, os, pickle, signal, sys
from flagstream.sinks.registry import build
settings, window, whole = pickle.load(sys.stdin.buffer)
send = http.client.HTTPConnection.send
bodies = 0
def send_half(connection, data):
    global bodies
    # the head of a request is smaller, and the request that opens a session has a small body
    if len(data) > 2000:
        bodies += 1
        if bodies > whole:
            send(connection, data[:len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    send(connection, data)
http.client.HTTPConnection.send = send_half
build(settings).deliver(window.manifest, window.payload)
"""

NAME = "evaluations/3/0000000000000000000-0000000000000000003.jsonl.gz"


def killed_while_sending(settings: GcsSettings, window: Window, whole_bodies: int) -> None:
    """A process that is killed half-way through a request, after `whole_bodies` others."""
    killed = subprocess.run(
        [sys.executable, "-c", DIE_WHILE_SENDING],
        input=pickle.dumps((settings, window, whole_bodies)),
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL


def opened(settings: GcsSettings) -> Sink[Any]:
    sink: Sink[Any] = build(settings)  # type: ignore[assignment]
    sink.open()
    return sink


class GcsContract(CreateOnlyContract):
    """The contract in a bucket of its own; subclasses say how objects are written."""

    sink_class = staticmethod(build)
    unacceptable = (b"", b"{", b"plain text", b'["a"]', b'{"a":1}\n{"b":2}', b'{"a":\n1}')
    options: ClassVar[dict[str, Any]]

    @pytest.fixture(autouse=True)
    def place(self, gcs: SmallGcs, gcs_bucket: str) -> None:
        self.server, self.bucket = gcs, gcs_bucket

    def settings(self, **settings: Any) -> GcsSettings:
        base = {"bucket": self.bucket, "endpoint": self.server.url, "anonymous": True}
        return GcsSettings(**{**base, **self.options, **settings})

    def settings_of_another_shape(self) -> GcsSettings:
        return self.settings(prefix="elsewhere/")

    def refusing_settings(self) -> GcsSettings:
        return self.settings(bucket="no-such-bucket")

    def read_back(self) -> list[bytes]:
        return [
            line
            for name in self.server.names(self.bucket)
            for line in self.decompressed(self.server.content(self.bucket, name)).splitlines()
        ]

    def decompressed(self, content: bytes) -> bytes:
        return gzip.decompress(content)

    def die_half_way(self, window: Window) -> None:
        killed_while_sending(self.settings(), window, 0)


class TestAtOnce(GcsContract):
    """The contract holds for compressed objects in one request, below a prefix."""

    options: ClassVar = {"prefix": "archive/flags/"}


class TestResumable(GcsContract):
    """Large windows in pieces; these are not compressed."""

    options: ClassVar = {"chunk_size": CHUNK_UNIT, "compression": "none"}

    def decompressed(self, content: bytes) -> bytes:
        return content

    def test_death_between_pieces(self) -> None:
        """An upload that a process began before it died is not an object, and stands in nobody's way."""
        sink = self.opened()
        window = fill(sink, events(5000))
        assert window.payload[0].content.size > 2 * CHUNK_UNIT
        killed_while_sending(self.settings(), window, 1)
        assert self.read_back() == []
        assert sink.deliver(window.manifest, window.payload) == Delivery(1, 0, window.payload[0].content.size)
        self.assert_holds(window)

    def test_size_that_is_a_multiple_of_the_piece(self) -> None:
        """The last piece is then empty, and the object is whole."""
        sink = self.opened()
        room = 2 * CHUNK_UNIT - len(b'{"a":""}\n')
        window = fill(sink, [b'{"a":"%s"}' % (b"x" * room)])
        assert window.payload[0].content.size == 2 * CHUNK_UNIT
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)


@pytest.fixture
def settings(gcs: SmallGcs, gcs_bucket: str) -> GcsSettings:
    return GcsSettings(bucket=gcs_bucket, endpoint=gcs.url, anonymous=True)


def test_name_manifest_and_properties(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """An object is named by topic, partition and padded offsets, and carries its manifest and checksum."""
    sink = opened(settings)
    window = fill(sink, events(3))
    sink.deliver(window.manifest, window.payload)
    assert gcs.names(gcs_bucket) == [NAME]
    found = gcs.resource(gcs_bucket, NAME)
    assert found["metadata"].keys() == {"flagstream", "flagstream-crc32c"}
    assert window.manifest == parse_manifest(found["metadata"][MANIFEST].encode())
    assert found["metadata"][CHECKSUM] == found["crc32c"]
    assert found["contentType"] == "application/gzip"
    assert "contentEncoding" not in found


def test_chosen_properties(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """Storage class, type, encoding and key are those of the configuration."""
    key = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
    with FaultyProxy(gcs.url) as proxy:
        chosen = {
            "endpoint": proxy.url,
            "storage_class": "NEARLINE",
            "content_type": "text/plain",
            "content_encoding": "gzip",
            "kms_key_name": key,
            "project": "payer",
        }
        sink = opened(settings.model_copy(update=chosen))
        window = fill(sink, events(3))
        sink.deliver(window.manifest, window.payload)
        sink.holdings(PARTITION, 0)
        requests = [seen.path for seen in proxy.seen]
    found = gcs.resource(gcs_bucket, NAME)
    assert (found["storageClass"], found["contentType"], found["contentEncoding"]) == (
        "NEARLINE",
        "text/plain",
        "gzip",
    )
    assert all("kmsKeyName=" + key.replace("/", "%2F") in path for path in requests if "upload" in path)
    assert all("userProject=payer" in path for path in requests)


def test_longest_topic(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """The metadata of a topic with the longest name that Kafka allows stays below the 8 KiB there are."""
    sink = opened(settings)
    window = fill(sink, events(3), partition=Partition("t" * 249, 2**31 - 1), start=2**62)
    assert sink.deliver(window.manifest, window.payload).created == 1
    assert sink.deliver(window.manifest, window.payload).existing == 1
    (name,) = gcs.names(gcs_bucket)
    metadata = gcs.resource(gcs_bucket, name)["metadata"]
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 1024


@pytest.mark.parametrize("metadata", [{}, {MANIFEST: "{}"}, {MANIFEST: "none"}])
def test_foreign_object_is_a_conflict(
    gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings, metadata: dict[str, str]
) -> None:
    """An object under our name that does not say what it holds is left as it is, and reported."""
    sink = opened(settings)
    window = fill(sink, events(3))
    gcs.put(gcs_bucket, NAME, b"theirs", metadata)
    with pytest.raises(ObjectConflict, match=r"jsonl\.gz is not an object of ours"):
        sink.deliver(window.manifest, window.payload)
    assert gcs.content(gcs_bucket, NAME) == b"theirs"


def test_changed_object_is_a_conflict(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """An object that still says what it held, and holds something else, is not taken for the window."""
    sink = opened(settings)
    window = fill(sink, events(3))
    sink.deliver(window.manifest, window.payload)
    metadata = gcs.resource(gcs_bucket, NAME)["metadata"]
    gcs.put(gcs_bucket, NAME, gcs.content(gcs_bucket, NAME)[:-1], metadata)
    with pytest.raises(ObjectConflict, match="was changed"):
        sink.deliver(window.manifest, window.payload)


def test_values_in_any_script(settings: GcsSettings) -> None:
    """Letters of any script stand in keys as they are; a window that is delivered again is found, also where
    its manifest is in the metadata alone."""
    name = f"flag={{{{ .Key }}}}/{DEFAULT_NAME}"
    sink = opened(settings.model_copy(update={"name": name, "compression": "zstd"}))
    values = [event(0).replace(b"new-checkout", text.encode()) for text in ("日本語の旗", "é+ü &%41", "a b")]
    window = fill(sink, values)

    first = sink.deliver(window.manifest, window.payload)
    again = sink.deliver(window.manifest, window.payload)

    assert (first.created, again.created, again.existing) == (4, 0, 4)
    assert sink.holdings(PARTITION, 0) == [window.manifest.range]


def test_other_compression_is_the_same_window(settings: GcsSettings) -> None:
    """Bytes are not compared: a worker with another level, or other pieces, finds the window there."""
    one = opened(settings)
    other = opened(settings.model_copy(update={"compression_level": 9, "chunk_size": CHUNK_UNIT}))
    window, again = fill(one, events(9000)), fill(other, events(9000))
    assert window.payload != again.payload
    assert one.fingerprint == other.fingerprint
    one.deliver(window.manifest, window.payload)
    assert Delivery(0, 1, 0) == other.deliver(again.manifest, again.payload)


def test_holdings_begin_behind_a_name(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """A listing is one request for the names of one partition, and can begin in the middle."""
    for name in ("x/a", "x/b", "x/c", "y/a"):
        gcs.put(gcs_bucket, f"deep/{name}")
    with FaultyProxy(gcs.url) as proxy:
        store = GcsStore(settings.model_copy(update={"endpoint": proxy.url, "prefix": "deep/"}))
        assert list(store.names("x/")) == ["x/a", "x/b", "x/c"]
        assert list(store.names("x/", after="x/b")) == ["x/c"]
        assert list(store.names("x/", after="x/bb")) == ["x/c"]
        assert list(store.names("z/")) == []
        assert len(proxy.seen) == 4


SECOND_WRITE = json.dumps({"crc32c": "not looked at"}).encode()


def test_a_store_that_ignores_the_condition(gcs: SmallGcs, settings: GcsSettings) -> None:
    """It is refused when the sink opens, unless what that means was accepted."""
    with FaultyProxy(gcs.url) as proxy:
        through = settings.model_copy(update={"endpoint": proxy.url})
        replaced = Answer(200, {"Content-Type": "application/json"}, SECOND_WRITE)
        proxy.fail(replaced, "POST", nth=2)
        with pytest.raises(SinkRefused, match="at_least_once = true"):
            opened(through)
        proxy.fail(replaced, "POST", nth=2)
        opened(through.model_copy(update={"at_least_once": True}))
        assert proxy.faults == 2


def test_prove(gcs: SmallGcs, gcs_bucket: str, settings: GcsSettings) -> None:
    """Each right is really tried, and no object is left."""
    proofs = list(build(settings).probe())
    assert [(proof.what, proof.outcome) for proof in proofs] == [
        ("write", "proved"),
        ("conditional write", "proved"),
        ("read", "proved"),
        ("list", "proved"),
        ("delete", "proved"),
    ]
    assert gcs.names(gcs_bucket) == []


def test_prove_what_is_refused(gcs: SmallGcs, settings: GcsSettings) -> None:
    """A failed right is reported with the store's reason; one that could not be tried says why."""
    with FaultyProxy(gcs.url) as proxy:
        through = settings.model_copy(update={"endpoint": proxy.url})
        proxy.fail(Answer(403), "DELETE")
        *_, delete = build(through).probe()
        assert isinstance(delete, Proof)
        assert (delete.what, delete.outcome) == ("delete", "failed")
        assert "403" in delete.detail
    proofs = list(build(settings.model_copy(update={"bucket": "no-such-bucket"})).probe())
    assert [(proof.what, proof.outcome) for proof in proofs] == [
        ("write", "failed"),
        ("conditional write", "unproved"),
        ("read", "unproved"),
        ("list", "failed"),
        ("delete", "unproved"),
    ]
    assert "404" in proofs[0].detail
    assert "404" in proofs[3].detail
