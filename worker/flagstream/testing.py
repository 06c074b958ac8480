"""The suite that every sink passes: inherit from the contract, say how to make and read the sink, run pytest.

::

    class TestMine(CreateOnlyContract):
        sink_class = MySink

        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.tmp_path = tmp_path

        def settings(self):
            return MySettings(path=self.tmp_path)
        ...

* :class:`SinkContract`: any :class:`~flagstream.sinks.protocol.Sink`, also one that
  cannot know what it holds (at least once).
* :class:`CreateOnlyContract`: all of that, and exactly once.
* :class:`TransactionalSinkContract`: a :class:`~flagstream.sinks.protocol.TransactionalSink`.

Needs pytest, which the worker itself does not.
"""

import pickle
import random
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from flagstream.chunk import Headers, Partition
from flagstream.errors import ObjectConflict, SinkRefused, TransactionAborted
from flagstream.sinks.protocol import Delivery, PartsSink, Sink, WindowEncoder
from flagstream.window import ContentDigest, Manifest, OffsetRange

PARTITION = Partition("evaluations", 3)

NEIGHBOURS = (
    Partition("a", 1),
    Partition("a", 11),
    Partition("a", 0),
    Partition("a-1", 1),
    Partition("a.1", 1),
    Partition("a-1-1", 1),
    Partition("1", 1),
)
"""Partitions whose names are easily taken for each other's."""

RACERS = 8


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as Kafka would give it."""

    at: int
    content: bytes

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return self.content

    def headers(self) -> Headers | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window, ready to deliver, and what was put in."""

    manifest: Manifest
    payload: Any
    exported: list[bytes]


def event(number: int, value: str = '"on"') -> bytes:
    """An enriched event that is told from all others by its ``userKey``."""
    return (
        f'{{"kind":"feature","contextKind":"user","userKey":"user-{number}",'
        f'"creationDate":{1_700_000_000 + number % 1_000_000},"key":"new-checkout","variation":"on",'
        f'"value":{value},"default":false,"version":"1.4","source":"SERVER"}}'
    ).encode()


def events(count: int, first: int = 0) -> list[bytes]:
    return [event(first + number) for number in range(count)]


def fill(
    sink: Any,
    values: Sequence[bytes],
    *,
    partition: Partition = PARTITION,
    start: int = 0,
    offsets: Sequence[int] | None = None,
    cuts: Iterable[int] = (),
) -> Window:
    """What the engine does with a window: begin, add chunk by chunk, digest what was not rejected, finish.

    ``offsets`` are the records' (without gaps from ``start`` when absent); ``cuts`` are indexes into
    ``values`` at which a new chunk begins.
    """
    at = list(offsets) if offsets is not None else list(range(start, start + len(values)))
    records = [StoredRecord(offset, value) for offset, value in zip(at, values, strict=True)]
    encoder: WindowEncoder[Any] = sink.begin(partition, start)
    digest, exported = ContentDigest(), list[bytes]()
    edges = [0, *cuts, len(values)]
    for low, high in pairwise(edges):
        rejected = {reject.index for reject in encoder.add(values[low:high], records[low:high])}
        kept = [value for index, value in enumerate(values[low:high]) if index not in rejected]
        digest.update(kept)
        exported += kept
    range_ = OffsetRange(partition, start, at[-1] + 1)
    manifest = Manifest(range_, len(exported), digest.hexdigest(), sink.fingerprint)
    return Window(manifest, encoder.finish(manifest), exported)


class _Contract(ABC):
    """What both shapes share: the encoder's and the fingerprint's promises."""

    sink_class: Callable[[Any], Any]
    """Makes a sink from its settings; importable by name, as a second process is asked to make one too."""

    unacceptable: Sequence[bytes] = ()
    """Values that the format has to reject; none for a format that takes anything."""

    @abstractmethod
    def settings(self) -> Any:
        """Settings of a sink that works. The same for all calls within a test; picklable."""

    @abstractmethod
    def settings_of_another_shape(self) -> Any:
        """Settings under which the objects of the same records are named or shaped differently."""

    def make_sink(self) -> Any:
        return self.sink_class(self.settings())

    def test_fingerprint_tells_shapes_apart(self) -> None:
        """Two sinks of one configuration share a fingerprint of 1 to 64 characters; another shape has
        another.
        """
        fingerprint = self.make_sink().fingerprint
        assert fingerprint == self.make_sink().fingerprint
        assert fingerprint != self.sink_class(self.settings_of_another_shape()).fingerprint
        assert 1 <= len(fingerprint) <= 64

    def test_same_in_every_process(self) -> None:
        """Processes with different hash seeds agree on the fingerprint and on the encoded window."""
        values = events(200)
        one, other = (encode_elsewhere(self.sink_class, self.settings(), values, seed) for seed in ("1", "2"))
        assert one == other
        assert one[0] == self.make_sink().fingerprint

    def test_size_is_that_of_the_output(self) -> None:
        """A window begins with size 0; size never shrinks and a large window has one."""
        encoder = self.make_sink().begin(PARTITION, 0)
        sizes = [encoder.size]
        for number in range(20):
            values = [_noise(number * 1000 + index) for index in range(1000)]
            encoder.add(values, [StoredRecord(number * 1000 + i, value) for i, value in enumerate(values)])
            sizes.append(encoder.size)
        assert sizes[0] == 0
        assert sizes == sorted(sizes)
        assert sizes[-1] > 0
        assert encoder.memory >= encoder.size

    def test_rejects_name_their_record(self) -> None:
        """Each unacceptable value is rejected at its index in the call, with a machine word and a text."""
        for bad in self.unacceptable:
            values = [event(0), bad, event(1)]
            records = [StoredRecord(index, value) for index, value in enumerate(values)]
            rejects = self.make_sink().begin(PARTITION, 0).add(values, records)
            assert [reject.index for reject in rejects] == [1], bad
            assert rejects[0].reason.replace("_", "").isalnum()
            assert rejects[0].error

    def test_empty_chunk_changes_nothing(self) -> None:
        """A chunk of which nothing is left to export is no record and no reject."""
        encoder = self.make_sink().begin(PARTITION, 0)
        assert list(encoder.add([], [])) == []
        assert encoder.size == 0


class SinkContract(_Contract):
    """What any sink promises. At least once: a window that is delivered again may be there twice."""

    @abstractmethod
    def refusing_settings(self) -> Any:
        """Settings of a sink whose destination refuses (no permission, not there); nothing a retry would
        mend.
        """

    @abstractmethod
    def read_back(self) -> list[bytes] | None:
        """All records at the destination of ``settings``, as readers see them; None when nobody can read
        them.
        """

    def expected(self, values: Sequence[bytes]) -> list[bytes]:
        """How ``values`` look in ``read_back``; as they are, unless the format changes them."""
        return list(values)

    def opened(self) -> Sink[Any]:
        sink: Sink[Any] = self.make_sink()
        sink.open()
        return sink

    def assert_holds(self, *windows: Window) -> None:
        """The destination holds the records of ``windows``, each once, and nothing else."""
        found = self.read_back()
        if found is not None:
            expected = [line for window in windows for line in self.expected(window.exported)]
            assert sorted(expected) == sorted(found)

    def test_delivers_a_window(self) -> None:
        """What was put in is there, each record once, when ``deliver`` has returned."""
        sink = self.opened()
        window = fill(sink, events(100), start=1000)
        delivery = sink.deliver(window.manifest, window.payload)
        assert (delivery.created >= 1, delivery.existing) == (True, 0)
        assert delivery.bytes > 0
        self.assert_holds(window)

    def test_one_record(self) -> None:
        """A window of one record is a window like any other."""
        sink = self.opened()
        window = fill(sink, events(1), start=7)
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_large_window(self) -> None:
        """A window of several megabytes that hardly compress arrives whole."""
        sink = self.opened()
        window = fill(sink, [_noise(number) for number in range(20_000)], cuts=range(5000, 20_000, 5000))
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_gaps_in_offsets(self) -> None:
        """Offsets that transactions took leave no trace."""
        sink = self.opened()
        window = fill(sink, events(3), start=8, offsets=[10, 12, 19])
        assert OffsetRange(PARTITION, 8, 20) == window.manifest.range
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_again_is_no_error(self) -> None:
        """The same window delivered again, by another worker, succeeds; every record is there."""
        first, second = self.opened(), self.opened()
        values = events(10)
        once, again = fill(first, values), fill(second, values, cuts=[3])
        first.deliver(once.manifest, once.payload)
        second.deliver(again.manifest, again.payload)
        found = self.read_back()
        assert found is None or set(self.expected(values)) <= set(found)

    def test_rejects_leave_no_trace(self) -> None:
        """Rejected values are not delivered, and the rest of their window is."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window = fill(sink, values)
        assert window.exported == [event(0), event(1)]
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_chunk_of_rejects_only(self) -> None:
        """A chunk of which every value is rejected leaves the window as it was."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window = fill(sink, values, cuts=[1, len(values) - 1])
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_several_partitions_at_once(self) -> None:
        """Windows of different partitions, delivered by one sink from several threads, all arrive."""
        sink = self.opened()
        windows = [fill(sink, events(50, index * 50), partition=p) for index, p in enumerate(NEIGHBOURS)]
        with ThreadPoolExecutor(len(windows)) as pool:
            list(pool.map(lambda window: sink.deliver(window.manifest, window.payload), windows))
        self.assert_holds(*windows)

    def test_parts_can_be_divided(self) -> None:
        """Of a sink that sends parts: they tile the window, and so do their halves, down to the event; the
        same cut gives the same parts.
        """
        sink = self.opened()
        if not isinstance(sink, PartsSink):
            return
        window = fill(sink, events(50), start=1000)
        parts = list(sink.parts(window.payload))
        while several := next((part for part in parts if part.count > 1), None):
            at = parts.index(several)
            parts[at : at + 1] = several.split(several.middle)
            edges = [window.manifest.range.start, *(part.range.end for part in parts)]
            assert [part.range.start for part in parts] == edges[:-1]
            assert edges[-1] == window.manifest.range.end
            assert sum(part.count for part in parts) == 50
        for part in parts:
            sink.send(window.manifest, part)
        self.assert_holds(window)

    def test_refused_when_opened(self) -> None:
        """A destination that refuses says so before the first window."""
        with pytest.raises(SinkRefused, match=r"\w"):
            self.sink_class(self.refusing_settings()).open()

    def test_refused_is_not_already_there(self) -> None:
        """A refusal is never taken for a window that is there already."""
        sink = self.sink_class(self.refusing_settings())
        window = fill(sink, events(2))
        with pytest.raises(SinkRefused):
            sink.deliver(window.manifest, window.payload)

    def test_close_releases(self) -> None:
        """A sink can be closed after use, and after ``open`` alone; what it delivered stays."""
        self.opened().close()
        sink = self.opened()
        window = fill(sink, events(5))
        sink.deliver(window.manifest, window.payload)
        sink.close()
        self.assert_holds(window)

    def test_proves_what_it_may_do(self) -> None:
        """On the real destination, whose records and ranges are the same afterwards; nothing fails."""
        sink = self.opened()
        proofs = list(sink.probe())
        assert proofs
        assert [proof for proof in proofs if proof.outcome == "failed"] == []
        assert all(proof.detail for proof in proofs if proof.outcome == "unproved"), (
            "an unproved one says why"
        )
        assert not self.read_back()
        assert not sink.holdings(PARTITION, 0)

    def test_refused_is_a_failed_proof(self) -> None:
        """A refusal is told, with the reason, not raised."""
        proofs = list(self.sink_class(self.refusing_settings()).probe())
        assert [proof for proof in proofs if proof.outcome == "failed" and proof.detail]

    def test_previews_a_window(self) -> None:
        """Its first record, and nothing is stored."""
        sink = self.opened()
        window = fill(sink, events(3))
        assert sink.preview(window.manifest, window.payload).record
        assert not self.read_back()

    def test_holdings_are_unknown_or_ranges(self) -> None:
        """A sink that has nothing holds nothing; one that cannot know says None, always."""
        sink = self.opened()
        before = sink.holdings(PARTITION, 0)
        assert before is None or list(before) == []
        window = fill(sink, events(5))
        sink.deliver(window.manifest, window.payload)
        after = sink.holdings(PARTITION, 0)
        assert (after is None) == (before is None)


class CreateOnlyContract(SinkContract):
    """Exactly once, however often and by however many workers a window is delivered."""

    @abstractmethod
    def die_half_way(self, window: Window) -> None:
        """Leave at the destination what a process leaves that was killed in the middle of delivering
        ``window``.
        """

    def test_twice_is_once(self) -> None:
        """The second delivery finds the first one's objects, stores nothing, and says so."""
        first, second = self.opened(), self.opened()
        window, again = fill(first, events(10)), fill(second, events(10))
        created = first.deliver(window.manifest, window.payload)
        found = second.deliver(again.manifest, again.payload)
        assert Delivery(created=0, existing=created.created, bytes=0) == found
        self.assert_holds(window)

    def test_cuts_do_not_matter(self) -> None:
        """A window that was fetched in other chunks is the same window."""
        sink = self.opened()
        values = [_noise(number) for number in range(3000)]
        whole, cut = fill(sink, values), fill(sink, values, cuts=[1, 2, 1500, 2999])
        sink.deliver(whole.manifest, whole.payload)
        assert sink.deliver(cut.manifest, cut.payload).created == 0
        self.assert_holds(whole)

    def test_rejects_delivered_again(self) -> None:
        """A window with rejects that is delivered again is found, too."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window, again = fill(sink, values), fill(sink, values, cuts=[1])
        sink.deliver(window.manifest, window.payload)
        assert sink.deliver(again.manifest, again.payload).created == 0
        self.assert_holds(window)

    @pytest.mark.parametrize(
        "others",
        [events(10, 500), events(11)[1:], [*events(9), event(9, '"off"')], events(9)],
        ids=["other records", "shifted", "last differs", "fewer"],
    )
    def test_other_content_is_a_conflict(self, others: list[bytes]) -> None:
        """Other content under the same range raises ObjectConflict, and what was there first stays."""
        sink = self.opened()
        window = fill(sink, events(10))
        other = fill(sink, others, offsets=range(10 - len(others), 10))
        assert window.manifest.range == other.manifest.range
        sink.deliver(window.manifest, window.payload)
        with pytest.raises(ObjectConflict, match=r"\w"):
            sink.deliver(other.manifest, other.payload)
        self.assert_holds(window)

    def test_race_has_one_winner(self) -> None:
        """Of several workers that deliver one window at the same moment, one creates and all succeed."""
        for start in range(0, 500, 100):
            sinks = [self.opened() for _ in range(RACERS)]
            windows = [fill(sink, events(100, start), start=start) for sink in sinks]
            line = threading.Barrier(RACERS)

            def run(racer: tuple[Sink[Any], Window], line: threading.Barrier = line) -> Delivery:
                line.wait()
                return racer[0].deliver(racer[1].manifest, racer[1].payload)

            with ThreadPoolExecutor(RACERS) as pool:
                deliveries = list(pool.map(run, zip(sinks, windows, strict=True)))
            objects = max(delivery.created + delivery.existing for delivery in deliveries)
            assert objects == sum(delivery.created for delivery in deliveries)
            assert objects * (RACERS - 1) == sum(delivery.existing for delivery in deliveries)
        self.assert_holds(*[fill(self.make_sink(), events(100, at), start=at) for at in range(0, 500, 100)])

    def test_holdings(self) -> None:
        """The ranges that end behind an offset, in order, whatever the order of delivery."""
        sink = self.opened()
        edges = [
            (100, 110),
            (0, 10),
            (10, 100),
            (110, 1_000_000_000_000),
            (1_000_000_000_000, 1_000_000_000_001),
        ]
        for start, end in edges:
            window = fill(sink, events(1, start), start=start, offsets=[end - 1])
            sink.deliver(window.manifest, window.payload)
        ranges = [OffsetRange(PARTITION, start, end) for start, end in sorted(edges)]
        assert ranges == list(sink.holdings(PARTITION, 0) or ())
        assert ranges == list(sink.holdings(PARTITION, 9) or ())
        assert ranges[1:] == list(sink.holdings(PARTITION, 10) or ())
        assert ranges[1:] == list(sink.holdings(PARTITION, 50) or ())
        assert ranges[-1:] == list(sink.holdings(PARTITION, 1_000_000_000_000) or ())
        assert list(sink.holdings(PARTITION, 1_000_000_000_001) or ()) == []

    def test_holdings_of_neighbours(self) -> None:
        """Partitions whose names resemble each other do not see each other's ranges."""
        sink = self.opened()
        for index, partition in enumerate(NEIGHBOURS):
            window = fill(sink, events(1), partition=partition, start=index)
            sink.deliver(window.manifest, window.payload)
        for index, partition in enumerate(NEIGHBOURS):
            assert [OffsetRange(partition, index, index + 1)] == list(sink.holdings(partition, 0) or ()), (
                partition
            )

    def test_death_half_way_leaves_nothing_visible(self) -> None:
        """What a killed process left is no object and no holding, and does not stand in the way of the next
        delivery.
        """
        sink = self.opened()
        window = fill(sink, events(1000))
        self.die_half_way(window)
        assert self.read_back() == []
        assert list(sink.holdings(PARTITION, 0) or ()) == []
        survivor = self.opened()
        assert survivor.deliver(window.manifest, window.payload).existing == 0
        self.assert_holds(window)


@dataclass(frozen=True, slots=True)
class Produced:
    """A record that a sink produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class RecordedTransaction:
    """A transaction that remembers what was produced; ``room`` records fit, then it is aborted."""

    room: int = sys.maxsize
    produced: list[Produced] = field(default_factory=list)

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        if len(self.produced) >= self.room:
            raise TransactionAborted("no room")
        self.produced.append(Produced(topic, key, value, headers))


class TransactionalSinkContract(_Contract):
    """What a sink promises whose records are committed together with the offsets."""

    @abstractmethod
    def read_back(self, produced: Sequence[Produced]) -> list[bytes]:
        """The exported records that ``produced`` stand for."""

    def delivered(self, window: Window) -> list[Produced]:
        transaction = RecordedTransaction()
        self.make_sink().deliver_in(transaction, window.manifest, window.payload)
        return transaction.produced

    def test_produces_the_window(self) -> None:
        """Every exported record is produced, in order, and nothing else."""
        window = fill(self.make_sink(), [event(0), *self.unacceptable, event(1)])
        assert window.exported == [event(0), event(1)]
        assert window.exported == self.read_back(self.delivered(window))

    def test_again_is_the_same(self) -> None:
        """After an abort the same window, in other chunks, produces the same records."""
        values = events(50)
        once, again = fill(self.make_sink(), values), fill(self.make_sink(), values, cuts=[1, 40])
        assert self.delivered(once) == self.delivered(again)

    def test_payload_can_be_delivered_twice(self) -> None:
        """A payload is not used up: the engine repeats a delivery whose transaction was aborted."""
        window = fill(self.make_sink(), events(5))
        assert self.delivered(window) == self.delivered(window)

    def test_abort_is_not_hidden(self) -> None:
        """An error of the transaction leaves ``deliver_in`` as it is."""
        window = fill(self.make_sink(), events(5))
        with pytest.raises(TransactionAborted):
            self.make_sink().deliver_in(RecordedTransaction(room=2), window.manifest, window.payload)


def encode_elsewhere(
    sink_class: Callable[[Any], Any], settings: Any, values: Sequence[bytes], seed: str
) -> tuple[str, Any]:
    """Fingerprint and payload of a window of ``values``, made in a process of its own with that hash seed."""
    answer = subprocess.run(
        [sys.executable, "-c", "from flagstream.testing import _answer; _answer()"],
        input=pickle.dumps(sys.path) + pickle.dumps((sink_class, settings, list(values))),
        stdout=subprocess.PIPE,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        check=True,
        timeout=60,
    )
    fingerprint, payload = pickle.loads(answer.stdout)
    return fingerprint, payload


def _answer() -> None:
    sys.path[:] = pickle.load(sys.stdin.buffer)
    sink_class, settings, values = pickle.load(sys.stdin.buffer)
    sink = sink_class(settings)
    sys.stdout.buffer.write(pickle.dumps((sink.fingerprint, fill(sink, values).payload)))


def _noise(number: int) -> bytes:
    """An event that hardly compresses, the same for the same ``number``."""
    return event(number, f'"{random.Random(number).randbytes(64).hex()}"')
