"""A topic, a group and a create-only sink in memory, which check every step of an export as it happens.

The world outlives worker processes. Each :class:`Process` is one worker with one export stage; a process that
was killed, or that lost its partitions without knowing, may still try to act, and the world answers as Kafka
and a create-only store would.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from flagstream.chunk import Chunk, Headers, Partition, Position
from flagstream.config.settings import TopicSettings
from flagstream.errors import (
    ObjectConflict,
    OwnershipLost,
    SinkError,
    SinkRefused,
    TransactionAborted,
    TransactionUncertain,
)
from flagstream.export.budget import MemoryBudget
from flagstream.export.stage import ExportStage
from flagstream.formats.compression import Compression
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.memory import Account, MemoryShare, Weight
from flagstream.operate.health import Problem
from flagstream.outcomes import Proof
from flagstream.sinks.protocol import Delivery, Preview
from flagstream.sinks.settings import SinkSettings
from flagstream.window import ContentDigest, Manifest, OffsetRange
from tests.support.recording import StoredRecord, event

T = TypeVar("T")

BAD = b"{"
"""A value that is not an event: it becomes a dead letter."""
DEAD_LETTERS = "dead"


class Killed(BaseException):
    """The process was killed at a crash point."""


@dataclass(slots=True)
class Log:
    """One partition of the output topic. ``values`` keeps what retention has deleted, for the checks."""

    values: dict[int, bytes] = field(default_factory=dict)
    low: int = 0
    high: int = 0
    expected: dict[int, bytes] = field(default_factory=dict)
    """The events that have to be exported, by offset."""

    def append(self, kind: str) -> None:
        """Add one offset: an event, a bad record, or no record ("gap", as for a transaction marker)."""
        if kind == "event":
            self.values[self.high] = self.expected[self.high] = event(self.high)
        elif kind == "bad":
            self.values[self.high] = BAD
        self.high += 1

    def digest(self, offsets: Sequence[int]) -> str:
        digest = ContentDigest()
        digest.update(self.values[offset] for offset in offsets)
        return digest.hexdigest()


@dataclass(slots=True)
class World:
    """What all processes share. ``continues``: deleted records are passed over, as
    ``on_missing_records = "continue"`` says.
    """

    partitions: Sequence[Partition]
    continues: bool
    logs: dict[Partition, Log] = field(default_factory=dict)
    committed: dict[Partition, tuple[int, str]] = field(default_factory=dict)
    owners: dict[Partition, tuple["Process", int]] = field(default_factory=dict)
    stored: dict[OffsetRange, tuple[int, ...]] = field(default_factory=dict)
    """The offsets of the events in each object."""
    manifests: dict[OffsetRange, Manifest] = field(default_factory=dict)
    letters: dict[Partition, list[int]] = field(default_factory=dict)
    planned: dict[tuple[Partition, int, int], tuple[int, str]] = field(default_factory=dict)
    begun: dict[Partition, int] = field(default_factory=dict)
    """Where a group without a committed offset began: retention had deleted what lies before."""
    epoch: int = 0

    def __post_init__(self) -> None:
        for partition in self.partitions:
            self.logs[partition] = Log()
            self.letters[partition] = []

    # ── the group ─────────────────────────────────────────────────────────────────────────────────────────

    def check_owner(self, process: "Process", partition: Partition, epoch: int) -> None:
        if not process.alive or self.owners.get(partition) != (process, epoch):
            raise OwnershipLost(f"{partition} is not held in epoch {epoch}")

    def take(self, process: "Process", partition: Partition, to: int | None = None) -> Position:
        """``process`` owns the partition from here on, in a new epoch."""
        self.epoch += 1
        self.owners[partition] = (process, self.epoch)
        offset, metadata = self.committed.get(partition, (None, ""))
        log = self.logs[partition]
        at = to if to is not None else offset if offset is not None else log.low
        if offset is None:
            self.begun[partition] = at
        return Position(self.epoch, at, offset, metadata, log.low, log.high)

    def commit(self, partition: Partition, offset: int, text: str, letters: Sequence[int] = ()) -> None:
        """Accept a commit, together with the dead letters of its transaction. Raises AssertionError where it
        passes what is neither exported nor a dead letter, or where it goes back.
        """
        before = self.committed.get(partition, (0, ""))[0]
        assert offset >= before, f"{partition}: committed {offset} after {before}"
        self.letters[partition] += letters
        log = self.logs[partition]
        found = self.settled(partition)
        for at in range(self.begun.get(partition, 0), offset):
            if at in log.values and found.get(at, 0) != 1:
                deleted = self.continues and at < log.low and at not in found
                assert deleted, (
                    f"{partition}: {offset} is committed, {at} is settled {found.get(at, 0)} times"
                )
        self.committed[partition] = (offset, text)
        metadata = Metadata.parse(text)
        if metadata.plan is not None:
            start = offset if metadata.range_start is None else metadata.range_start
            key = (partition, start, metadata.plan.end)
            plan = (metadata.plan.records, metadata.plan.digest)
            assert self.planned.setdefault(key, plan) == plan, f"{key} is planned twice, differently"

    def settled(self, partition: Partition) -> dict[int, int]:
        """How often each offset is in an object or a dead letter."""
        found: dict[int, int] = {}
        for bounds, offsets in self.stored.items():
            if bounds.partition == partition:
                for at in offsets:
                    found[at] = found.get(at, 0) + 1
        for at in self.letters[partition]:
            found[at] = found.get(at, 0) + 1
        return found

    # ── the sink ──────────────────────────────────────────────────────────────────────────────────────────

    def store(self, manifest: Manifest, payload: Sequence[bytes]) -> bool:
        """Create the object of a window; returns whether it was there already. Raises AssertionError for a
        window that was never planned, or that is not what the topic holds.
        """
        bounds = manifest.range
        if bounds in self.stored:
            held = self.manifests[bounds]
            if (held.records, held.digest) != (manifest.records, manifest.digest):
                raise ObjectConflict(f"{bounds} holds something else")
            return True
        log = self.logs[bounds.partition]
        offsets = [at for at in log.expected if bounds.start <= at < bounds.end]
        content = b"".join(payload)
        taken = tuple(at for at in offsets if log.expected[at] + b"\n" in content)
        assert content == b"".join(log.expected[at] + b"\n" for at in taken), (
            f"{bounds} does not hold what the topic has"
        )
        key = (bounds.partition, bounds.start, bounds.end)
        assert key in self.planned, f"{bounds} is delivered without a plan"
        if self.planned[key] != (manifest.records, manifest.digest):
            missing = set(offsets) - set(taken)
            gone = all(at < log.low for at in missing)
            assert self.continues and gone, f"{bounds} is not as planned"  # noqa: PT018
        for other in self.stored:
            apart = other.end <= bounds.start or bounds.end <= other.start
            assert apart or other.partition != bounds.partition, f"{bounds} overlaps {other}"
        self.stored[bounds], self.manifests[bounds] = taken, manifest
        return False


class Process:
    """One worker: an export stage with a chunk source, a producer and a sink in the world.

    ``failures`` are raised by the next deliveries, one each: before the window is stored, or after it
    ("lost answer"). ``lost_commits`` and ``transactions`` say the same of commits.
    """

    def __init__(self, world: World, *, budget: int, **settings: Any) -> None:
        self.world = world
        self.alive = True
        self.failures: list[tuple[SinkError, bool]] = []
        self.lost_commits: list[bool] = []
        self.transactions: list[Exception | bool] = []
        self.dropped: list[Partition] = []
        self.errors: list[BaseException] = []
        self.next: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.account = Account(MemoryShare())
        self.budget = MemoryBudget(budget)
        self.holder = Holder(self)
        self.stage = ExportStage(
            "test",
            CheckedSink(self),
            SinkSettings(type="test", **settings),
            TopicSettings(output=world.partitions[0].topic, dead_letters=DEAD_LETTERS),
            self.budget,
            cast(TransactionalProducer, Producer(self)),
            revoke_budget=3.0,
            fail=self.errors.append,
        )
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue()

    async def start(self) -> None:
        await self.stage.open(TopicFacts(), str)
        self.running = asyncio.create_task(self.stage.run(self._all()))

    async def assign(self, *partitions: Partition) -> None:
        tenures = [
            Tenure(partition, self.world.take(self, partition), self.holder) for partition in partitions
        ]
        for tenure in tenures:
            self.next[tenure.partition] = tenure.position.offset
            self.paused.discard(tenure.partition)
        await self.stage.assigned(tenures)

    async def overtaken(self, partition: Partition) -> None:
        """Report that retention has deleted the record that comes next."""
        log, epoch = self.world.logs[partition], self.world.owners[partition][1]
        position = Position(epoch, self.next[partition], low=log.low, high=log.high)
        await self.stage.records_missing(Tenure(partition, position, self.holder), position)

    def held(self) -> list[Partition]:
        """The partitions that this process holds, as far as the group is concerned."""
        return [p for p, (process, _) in self.world.owners.items() if process is self]

    def release(self, *partitions: Partition) -> None:
        for partition in partitions:
            if self.world.owners.get(partition, (None, 0))[0] is self:
                del self.world.owners[partition]
            self.next.pop(partition, None)

    def fetch(self, partition: Partition, count: int, *, skip: int = 0) -> None:
        """Hand the next chunk of up to ``count`` offsets to the stage, after ``skip`` that are left out."""
        log, epoch = self.world.logs[partition], self.world.owners[partition][1]
        start = self.next[partition] + skip
        end = min(start + count, log.high)
        while end > start and end - 1 not in log.values:
            end -= 1  # a chunk ends with a record
        if start < log.low or end <= start:
            return
        records = [StoredRecord(at, log.values[at]) for at in range(start, end) if at in log.values]
        self.next[partition] = end
        weight = Weight(self.account, sum(len(record.content or b"") + 400 for record in records))
        self._chunks.put_nowait(Chunk(partition, epoch, start, end, records, weight))

    def inject(self, chunk: Chunk) -> None:
        """A chunk that is not what comes next."""
        self._chunks.put_nowait(chunk)

    def kill(self) -> None:
        """Nothing of the process acts any more."""
        self.alive = False

    async def _all(self) -> AsyncIterator[Chunk]:
        while True:
            chunk = await self._chunks.get()
            yield chunk
            del chunk


class Holder:
    """The consumer of a process, as its tenures see it: the world decides what is held and committed."""

    group = "flagstream.sink.test"
    group_start = None
    fresh = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self.progress = Progress("test", process.world.partitions[0].topic)

    async def call(self, function: Callable[[], T]) -> T:
        await asyncio.sleep(0.001)
        return function()

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        process = self._process
        process.world.check_owner(process, partition, epoch)
        if process.lost_commits:
            if process.lost_commits.pop(0):
                process.world.commit(partition, offset, metadata)
            process.dropped = process.held()
            process.release(*process.dropped)
            raise OwnershipLost(f"{partition}: the commit of {offset} has an unknown outcome")
        process.world.commit(partition, offset, metadata)
        return True

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        for partition, epoch in epochs.items():
            self._process.world.check_owner(self._process, partition, epoch)
        return dict(epochs)

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        process, positions = self._process, {}
        for partition, epoch in epochs.items():
            if process.alive and process.world.owners.get(partition) == (process, epoch):
                positions[partition] = process.world.take(process, partition, to)
                process.next[partition] = positions[partition].offset
                process.paused.discard(partition)
        return positions

    def pause(self, partition: Partition, epoch: int) -> None:
        self._process.world.check_owner(self._process, partition, epoch)
        self._process.paused.add(partition)

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        process = self._process
        process.world.check_owner(process, partition, epoch)
        before = process.next[partition]
        if start is not None:
            process.next[partition] = start
        process.paused.discard(partition)
        return before


class Producer:
    """A transactional producer for dead letters."""

    limit = 1_000_000
    stable = False

    def __init__(self, process: Process) -> None:
        self._process = process
        self._letters: list[int] = []

    def open(self) -> None:
        """Nothing has to be registered."""

    def problems(self) -> Iterator[Problem]:
        return iter(())

    def begin(self) -> None:
        self._letters = []

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self._letters.append(int(dict(headers)["flagstream-offset"] or b""))

    def abort(self) -> None:
        self._letters = []

    def commit(self, offsets: Mapping[Partition, tuple[int, str]], group: object) -> None:
        process, [(partition, (offset, text))] = self._process, offsets.items()
        if not process.alive:
            raise Killed
        failure = process.transactions.pop(0) if process.transactions else None
        owner, epoch = process.world.owners.get(partition, (None, 0))
        if owner is not process or cast(Any, group) != {partition: epoch}:
            raise TransactionAborted("ILLEGAL_GENERATION")
        if isinstance(failure, TransactionAborted):
            raise failure
        if failure is not False:
            process.world.commit(partition, offset, text, self._letters)
        if failure is not None:
            raise TransactionUncertain("the outcome is unknown")


class CheckedSink:
    """A create-only sink in the world."""

    fingerprint = "shape"

    def __init__(self, process: Process) -> None:
        self._process = process

    def open(self) -> None:
        """Nothing has to be opened."""

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        return JsonLinesEncoder(Compression("none", 1).output())

    def deliver(self, manifest: Manifest, payload: Sequence[bytes]) -> Delivery:
        process = self._process
        if not process.alive:
            raise Killed
        failure, stored = process.failures.pop(0) if process.failures else (None, True)
        if isinstance(failure, SinkRefused) and manifest.range in process.world.stored:
            failure = None  # what is there is found before anything is refused
            stored = True
        existing = process.world.store(manifest, payload) if stored else False
        if failure is not None:
            raise failure
        return Delivery(0 if existing else 1, 1 if existing else 0, sum(map(len, payload)))

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        stored = self._process.world.stored
        return sorted(held for held in stored if held.partition == partition and held.end > start)

    def probe(self) -> Iterator[Proof]:
        return iter(())

    def preview(self, manifest: Manifest, payload: Sequence[bytes]) -> Preview:
        return Preview((str(manifest.range),), "")

    def close(self) -> None:
        """Nothing is held."""
