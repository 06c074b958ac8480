"""What an exported partition does, step by step: a Kafka and a sink that write down what is asked of them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flagstream.chunk import Chunk, Headers, Partition, Position
from flagstream.dead_letters import DeadLetter
from flagstream.errors import ObjectConflict, OwnershipLost, SinkError, SinkRefused, SinkRefusesAll
from flagstream.export.budget import MemoryBudget
from flagstream.export.destination import Destination
from flagstream.export.partition import PartitionExport
from flagstream.export.restarts import RefusedWindow, Restart
from flagstream.export.routes import DeadLetterRoute, route_to
from flagstream.export.windows import Limits
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Tenure
from flagstream.outcomes import Proof
from flagstream.sinks.protocol import Delivery, Preview, Transaction
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder
from flagstream.window import Manifest, OffsetRange

T = TypeVar("T")

PARTITION = Partition("evaluations", 3)
EPOCH = 7
RETRY_SECONDS = 1.0

# ── steps of a trace ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Planned:
    """The window `[start, end)` stands in a commit. `start` is what it is named by."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Put:
    """The sink stored a window under this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """The sink held the window already."""

    name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The sink raised this error's class."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Committed:
    """An offset was committed; `then` is the plan that travelled with it."""

    offset: int
    range_start: int | None = None
    then: Planned | None = None


@dataclass(frozen=True, slots=True)
class Transacted:
    """Dead letters (their reasons) and an offset were committed as one."""

    letters: tuple[str, ...]
    commit: Committed


@dataclass(frozen=True, slots=True)
class Paused:
    """No more chunks are wanted for now."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Chunks are wanted again, those from `start` on once more if it is given."""

    start: int | None = None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The partition begins again at its committed offset, or at `to`; `refused` becomes dead letters."""

    to: int | None = None
    refused: str | None = None
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Broke:
    """An error that ends the process."""

    error: str


Step = Planned | Put | Found | Failed | Committed | Transacted | Paused | Resumed | Restarted | Broke


# ── records and chunks ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as Kafka would give it; without content it is a tombstone."""

    at: int
    content: bytes | None

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return b"key"

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> Headers | None:
        return [("trace", b"1")]

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)


def event(number: int) -> bytes:
    """An event that differs from all others."""
    return b'{"kind":"feature","userKey":"u%d","key":"banner","value":true}' % number


def chunk(
    start: int,
    end: int,
    *,
    values: dict[int, bytes | None] | None = None,
    without: Sequence[int] = (),
    epoch: int = EPOCH,
) -> Chunk:
    """The chunk `[start, end)` of events that their offsets identify; `values` replaces some (None: a
    tombstone), and at the offsets `without` there is no record, as where a transaction ended.
    """
    contents = {offset: event(offset) for offset in range(start, end) if offset not in without}
    records = [StoredRecord(offset, content) for offset, content in {**contents, **(values or {})}.items()]
    return Chunk(PARTITION, epoch, start, end, records)


# ── the recorders ─────────────────────────────────────────────────────────────────────────────────────────


class RecordingSink:
    """Keeps windows in memory, create-only, and writes them into a trace.

    `failures` are raised by the next deliveries, one each, `failures_to_open` by the next calls of `open`.
    `knows` False: it does not know what it holds.
    """

    def __init__(self, trace: list[Step], fingerprint: str = "shape") -> None:
        self.trace = trace
        self.fingerprint = fingerprint
        self.failures: deque[SinkError | ObjectConflict] = deque()
        self.failures_to_open: deque[SinkError] = deque()
        self.objects: dict[OffsetRange, Manifest] = {}
        self.contents: dict[OffsetRange, bytes] = {}
        self.knows = True
        self.unlisted: Exception | None = None

    def open(self) -> None:
        if self.failures_to_open:
            raise self.failures_to_open.popleft()

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        return JsonLinesEncoder(Compression("none", 1).output())

    def deliver(self, manifest: Manifest, payload: Sequence[bytes]) -> Delivery:
        name = str(manifest.range)
        if self.failures:
            failure = self.failures.popleft()
            self.trace.append(Failed(name, type(failure).__name__))
            raise failure
        if manifest.range in self.objects:
            found = self.objects[manifest.range]
            if (found.records, found.digest) != (manifest.records, manifest.digest):
                raise ObjectConflict(f"{name} holds something else")
            self.trace.append(Found(name))
            return Delivery(0, 1, 0)
        self.objects[manifest.range] = manifest
        self.contents[manifest.range] = b"".join(payload)
        self.trace.append(Put(name))
        return Delivery(1, 0, sum(map(len, payload)))

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        if self.unlisted is not None:
            raise self.unlisted
        if not self.knows:
            return None
        return sorted(held for held in self.objects if held.partition == partition and held.end > start)

    def probe(self) -> Iterator[Proof]:
        return iter(())

    def preview(self, manifest: Manifest, payload: Sequence[bytes]) -> Preview:
        return Preview((str(manifest.range),), b"".join(payload).decode())

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class RecordingKafka:
    """Holds the tenure of a partition, and satisfies `Services`, `Calls` and `Transactions` of
    `flagstream.export`.

    `at` is the offset that counts as committed, `fetched` the one up to which chunks were fetched, `topic`
    the id of the topic, if the broker reports one. A commit of an epoch that is not in `held` is refused, as
    the chunk source would. Deliveries wait while `delivering` is not set, those of `stuck` partitions for
    ever; one that fails is tried again after RETRY_SECONDS, but a refusal is raised if `tells_refusals`.
    """

    trace: list[Step]
    at: int = 0
    group_start: GroupStart | None = None
    fresh: bool = True
    opened: bool = True
    group: str = "flagstream.sink.test"
    topic: str = ""
    tells_refusals: bool = False
    held: set[int] = field(default_factory=lambda: {EPOCH})
    fetched: int = 0
    texts: list[str] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    delivering: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: set[Partition] = field(default_factory=set)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    progress: Progress = field(default_factory=lambda: Progress("test", PARTITION.topic))

    def __post_init__(self) -> None:
        self.delivering.set()

    async def topic_id(self) -> str:
        return self.topic

    def committed(self, partition: Partition, offset: int) -> None:
        """The trace has it already."""

    async def call(self, function: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # as the real one, whose thread answers: others get their turn
        return function()

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        self._check(epoch)
        again = offset == self.at
        step = self._commit(offset, metadata)
        self.trace.append(step.then if again and step.then is not None else step)
        return True

    async def transact(
        self,
        tenure: Tenure,
        produce: Callable[[Transaction], None],
        letters: list[DeadLetter],
        offset: int,
        metadata: str,
    ) -> None:
        await asyncio.sleep(0)
        self._check(tenure.epoch)
        window = _Letters()
        produce(window)
        self.letters += letters
        reasons = (*window.reasons, *(letter.reason for letter in letters))
        self.trace.append(Transacted(reasons, self._commit(offset, metadata)))

    def pause(self, partition: Partition, epoch: int) -> None:
        self._check(epoch)
        self.trace.append(Paused())

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        self._check(epoch)
        self.trace.append(Resumed(start))
        return self.fetched

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        raise AssertionError("transact() is recorded as a whole")

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> Mapping[Partition, Position]:
        raise AssertionError("restarted() is recorded as a whole")

    async def call_sink(self, what: str, tenure: Tenure, function: Callable[[], T]) -> T:
        while True:
            if what == "deliver":
                await self.delivering.wait()
                if tenure.partition in self.stuck:
                    await asyncio.Event().wait()
            await asyncio.sleep(0)
            try:
                return function()
            except SinkRefused as error:
                if self.tells_refusals and not isinstance(error, SinkRefusesAll):
                    raise
            except SinkError:
                pass
            await asyncio.sleep(RETRY_SECONDS)

    async def in_thread(self, function: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        function()

    def restarted(self, tenure: Tenure, restart: Restart) -> None:
        """What the stage would do: begin the partition again in a new tenure."""
        self.held.discard(tenure.epoch)
        refused = restart.refused
        why = None if refused is None else str(refused.error)
        self.trace.append(Restarted(restart.to, why, 0 if refused is None else refused.error.accepted))

    def fail(self, error: BaseException) -> None:
        self.trace.append(Broke(repr(error)))

    def _check(self, epoch: int) -> None:
        if epoch not in self.held:
            raise OwnershipLost(f"epoch {epoch} has ended")

    def _commit(self, offset: int, text: str) -> Committed:
        self.texts.append(text)
        self.at = offset
        metadata = Metadata.parse(text)
        plan = metadata.plan
        start = offset if metadata.range_start is None else metadata.range_start
        return Committed(offset, metadata.range_start, None if plan is None else Planned(start, plan.end))


def destination(
    sink: Any,
    settings: SinkSettings,
    limits: Limits,
    kafka: RecordingKafka,
    budget: MemoryBudget,
    decoder: Decoder | None = None,
    name: str = "test",
) -> Destination:
    """What the partitions of `sink` share, between it and `kafka`."""
    letter_bytes = limits.dead_letter_bytes
    return Destination(
        name,
        route_to(name, sink, settings, kafka, kafka),
        settings,
        limits,
        budget,
        kafka,
        lambda error: DeadLetterRoute(name, sink.begin, kafka, error, "dead", lambda: letter_bytes),
        decoder,
    )


def begin(
    to: Destination, tenure: Tenure, kafka: RecordingKafka, refused: RefusedWindow | None = None
) -> PartitionExport:
    """Run the export of a partition as the stage does; how it begins again is a step of the trace."""
    export = PartitionExport(to, tenure, refused=refused)

    async def run() -> None:
        if (restart := await export.run()) is not None:
            kafka.restarted(tenure, restart)

    kafka.running.add(asyncio.create_task(run()))
    return export


class _Letters:
    """A transaction that only dead letters are produced into."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.reasons.append((dict(headers)["flagstream-reason"] or b"").decode())
