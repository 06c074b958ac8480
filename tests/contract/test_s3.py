"""The S3 sink passes the contract of create-only sinks on a real S3 server."""

import gzip
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkRefused
from flagstream.formats.manifest import parse_manifest
from flagstream.sinks.objects import ObjectSink
from flagstream.sinks.objects.names import DEFAULT_NAME
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.objects.s3.store import MANIFEST, S3Store
from flagstream.sinks.protocol import Delivery, Sink
from flagstream.sinks.registry import build
from flagstream.testing import PARTITION, RACERS, CreateOnlyContract, Window, event, events, fill
from tests.support.seaweed import READER_KEY, READER_SECRET, Folder, SeaweedFs


def in_parts(settings: S3Settings) -> ObjectSink:
    """A sink that puts together from parts also what would fit into one request."""
    store = S3Store(settings)
    store._largest_put = 0
    return ObjectSink(store, settings)


DIE_AT = """
import os, pickle, signal, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
make, settings, window, call = pickle.load(sys.stdin.buffer)
sink = make(settings)
calls = sink._store._client.meta.events
calls.register(f"before-send.s3.{call}", lambda **_: os.kill(os.getpid(), signal.SIGKILL))
sink.deliver(window.manifest, window.payload)
"""


class S3Contract(CreateOnlyContract):
    """The contract under a prefix of its own; subclasses say how objects are written."""

    sink_class: Callable[[Any], Any] = staticmethod(build)
    unacceptable = (b"", b"{", b"plain text", b'["a"]', b'{"a":1}\n{"b":2}', b'{"a":\n1}')
    last_call: ClassVar = "PutObject"

    @pytest.fixture(autouse=True)
    def place(self, seaweed: SeaweedFs) -> None:
        self.folder = seaweed.folder()
        self.proved = False

    def opened(self) -> Sink[Any]:
        # Opening takes eight requests; that the sinks of other workers are usable the first one has shown.
        sink: Sink[Any] = self.make_sink()
        if not self.proved:
            sink.open()
            self.proved = True
        return sink

    def settings(self) -> S3Settings:
        return self.folder.settings()

    def settings_of_another_shape(self) -> S3Settings:
        return self.settings().model_copy(update={"prefix": "elsewhere/"})

    def refusing_settings(self) -> S3Settings:
        return self.settings().model_copy(update={"bucket": "not-there"})

    def read_back(self) -> list[bytes]:
        return [
            line
            for name in self.folder.names()
            for line in gzip.decompress(self.folder.read(name)).splitlines()
        ]

    def die_half_way(self, window: Window) -> None:
        killed = subprocess.run(
            [sys.executable, "-c", DIE_AT],
            input=pickle.dumps(sys.path)
            + pickle.dumps((self.sink_class, self.settings(), window, self.last_call)),
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL


class TestWhole(S3Contract):
    """The contract holds for objects in one request each."""


class TestInParts(S3Contract):
    """The contract holds for objects in parts, put together at the end."""

    sink_class: Callable[[Any], Any] = staticmethod(in_parts)
    last_call: ClassVar = "CompleteMultipartUpload"

    def test_race_has_one_winner(self) -> None:
        """Of several workers that complete one window at the same moment all succeed, and it is there once.

        That only one gets the answer that it created the object, as S3 promises, cannot be asked of SeaweedFS
        4.48: it looks whether the name is free and then writes, so in a third of such races several find it
        free.
        """
        sinks = [self.opened() for _ in range(RACERS)]
        windows = [fill(sink, events(100)) for sink in sinks]
        line = threading.Barrier(RACERS)

        def run(racer: tuple[Sink[Any], Window]) -> Delivery:
            line.wait()
            return racer[0].deliver(racer[1].manifest, racer[1].payload)

        with ThreadPoolExecutor(RACERS) as pool:
            deliveries = list(pool.map(run, zip(sinks, windows, strict=True)))
        assert [delivery.created + delivery.existing for delivery in deliveries] == [1] * RACERS
        self.assert_holds(windows[0])
        assert self.folder.uploads() == []


@pytest.fixture
def folder(seaweed: SeaweedFs) -> Folder:
    return seaweed.folder()


@pytest.fixture
def settings(folder: Folder) -> S3Settings:
    return folder.settings()


@pytest.fixture
def sink(settings: S3Settings) -> Sink[Any]:
    return opened(settings)


def test_name_and_manifest(sink: Sink[Any], folder: Folder) -> None:
    """An object is named by topic, partition and padded offsets, and carries its manifest and type."""
    window = fill(sink, events(3), start=5)
    sink.deliver(window.manifest, window.payload)
    (name,) = folder.names()
    assert name == "evaluations/3/0000000000000000005-0000000000000000008.jsonl.gz"
    head = folder.head(name)
    assert window.manifest == parse_manifest(head["Metadata"][MANIFEST].encode())
    assert head["ContentType"] == "application/gzip"


def test_longest_topic(sink: Sink[Any], folder: Folder) -> None:
    """The manifest of a topic with the longest name that Kafka allows fits into S3's 2 KB of metadata."""
    partition = Partition("t" * 249, 2**31 - 1)
    start = 2**62
    window = fill(sink, events(3), partition=partition, start=start)
    assert sink.deliver(window.manifest, window.payload).created == 1
    assert sink.deliver(window.manifest, window.payload).existing == 1
    (name,) = folder.names()
    metadata = folder.head(name)["Metadata"]
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 1024


def test_the_longest_key(folder: Folder, settings: S3Settings) -> None:
    """1,024 bytes are stored. An event that would need one more is rejected and does not block its window."""
    behind = len("/evaluations/3/") + 39 + len(".jsonl.gz")
    size = 1024 - behind - 50
    prefix = (settings.prefix + ("x" * 99 + "/") * 10)[:size]
    sink = opened(settings.model_copy(update={"prefix": prefix, "name": f"{{{{ .Key }}}}/{DEFAULT_NAME}"}))
    values = [event(0).replace(b"new-checkout", b"k" * size) for size in (50, 51)]
    window = fill(sink, values)

    assert sink.deliver(window.manifest, window.payload).created == 2

    assert window.exported == values[:1]
    assert max(len(settings.prefix + name) for name in folder.names()) == 1024


@pytest.mark.parametrize("metadata", [{}, {MANIFEST: "{}"}])
def test_foreign_object_is_a_conflict(sink: Sink[Any], folder: Folder, metadata: dict[str, str]) -> None:
    """An object under our name that does not say what it holds is left as it is, and reported."""
    window = fill(sink, events(3))
    name = "evaluations/3/0000000000000000000-0000000000000000003.jsonl.gz"
    folder.put(name, b"theirs", metadata)
    with pytest.raises(ObjectConflict, match=r"jsonl\.gz is not of ours"):
        sink.deliver(window.manifest, window.payload)
    assert folder.read(name) == b"theirs"


def test_values_in_any_script(settings: S3Settings) -> None:
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


def test_other_compression_is_the_same_window(settings: S3Settings) -> None:
    """Bytes are not compared: a worker with another level, or other parts, finds the window there."""
    one = opened(settings)
    other = in_parts(settings.model_copy(update={"compression_level": 9}))
    window, again = fill(one, events(9000)), fill(other, events(9000))
    assert window.payload != again.payload
    assert one.fingerprint == other.fingerprint
    one.deliver(window.manifest, window.payload)
    assert Delivery(0, 1, 0) == other.deliver(again.manifest, again.payload)


def test_reader_is_refused(folder: Folder) -> None:
    """Credentials that may not write are reported when the sink opens, without their secret."""
    with pytest.raises(SinkRefused, match="AccessDenied") as refusal:
        opened(folder.settings(access_key=READER_KEY, secret_key=READER_SECRET))
    assert READER_SECRET not in str(refusal.value)


def test_wrong_secret_is_refused(folder: Folder) -> None:
    """A secret that does not belong to the key is a refusal, not an outage."""
    with pytest.raises(SinkRefused, match="SignatureDoesNotMatch"):
        opened(folder.settings(secret_key="wrong"))


def test_names_that_the_store_changes(settings: S3Settings) -> None:
    """A store that stores under another name than it was given, as SeaweedFS does with doubled slashes, would
    not find its ranges again; so it is refused.
    """
    with pytest.raises(SinkRefused, match="a listing does not show that name"):
        opened(settings.model_copy(update={"prefix": "a//b/"}))


def test_attributes(settings: S3Settings, folder: Folder) -> None:
    """Storage class, tags, ACL, type and encoding are put on whole objects and on those in parts."""
    attributes = {
        "storage_class": "STANDARD_IA",
        "tags": {"team": "flags & more", "kind": "evaluations"},
        "acl": "bucket-owner-full-control",
        "content_type": "application/x-ndjson",
        "content_encoding": "gzip",
    }
    makers: tuple[Callable[[Any], Any], ...] = (build, in_parts)
    for start, make in enumerate(makers):
        sink = make(settings.model_copy(update=attributes))
        window = fill(sink, events(1), start=start)
        sink.deliver(window.manifest, window.payload)
        name = folder.names()[-1]
        head = folder.head(name)
        tags = folder.client.get_object_tagging(**folder.at(name))["TagSet"]
        assert (head["ContentType"], head["ContentEncoding"]) == ("application/x-ndjson", "gzip")
        assert head["StorageClass"] == "STANDARD_IA"
        assert attributes["tags"] == {tag["Key"]: tag["Value"] for tag in tags}


def test_prove(settings: S3Settings, folder: Folder) -> None:
    """Everything is tried, on an object that is gone again."""
    proofs = list(build(settings).probe())
    assert {proof.outcome for proof in proofs} == {"proved"}, proofs
    assert [proof.what for proof in proofs] == [
        "write",
        "conditional write",
        "write in parts",
        "read",
        "list",
        "delete",
    ]
    assert folder.names() == []


def test_prove_without_the_right_to_write(folder: Folder) -> None:
    """What cannot be tried says so; a listing can, for it needs no object."""
    write, *others = build(folder.settings(access_key=READER_KEY, secret_key=READER_SECRET)).probe()
    assert (write.what, write.outcome) == ("write", "failed")
    assert {proof.outcome for proof in others if proof.what != "list"} == {"unproved"}
    assert [proof.outcome for proof in others if proof.what == "list"] == ["proved"]


def test_open_leaves_nothing(sink: Sink[Any], folder: Folder) -> None:
    """The objects and uploads that ``open`` tries things on are gone again."""
    assert folder.names() == []
    assert folder.uploads() == []


def test_killed_upload_is_cleared(settings: S3Settings, folder: Folder) -> None:
    """The parts that a killed worker left are dropped when its window has been delivered again."""
    sink = in_parts(settings)
    window = fill(sink, events(9))
    (one,) = window.payload
    folder.begin_upload(one.name)
    neighbour = folder.begin_upload(f"{one.name}.bak")
    assert sink.deliver(window.manifest, window.payload).created == 1
    assert folder.uploads() == [neighbour]


def test_several_parts(folder: Folder) -> None:
    """An object larger than a part arrives whole, in parts of that size."""
    sink = opened(folder.settings(part_size="5MiB", compression="none"))
    window = fill(sink, [event(number, f'"{"x" * 100_000}"') for number in range(110)])
    sink.deliver(window.manifest, window.payload)
    (name,) = folder.names()
    assert folder.head(name)["ETag"].strip('"').endswith("-3")
    assert window.exported == folder.read(name).splitlines()
    assert sink.deliver(window.manifest, window.payload).existing == 1
    assert folder.uploads() == []


def test_more_than_a_page_of_objects(sink: Sink[Any], folder: Folder) -> None:
    """Holdings are found beyond the first thousand names of a listing, from the given offset on."""
    names = [f"evaluations/3/{start:019}-{start + 1:019}.jsonl.gz" for start in range(1010)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(folder.put, names))
    found = sink.holdings(Partition("evaluations", 3), 3)
    assert found is not None
    assert list(range(3, 1010)) == [range_.start for range_ in found]


def opened(settings: S3Settings) -> Sink[Any]:
    sink = build(settings)
    assert isinstance(sink, ObjectSink)
    sink.open()
    return sink
