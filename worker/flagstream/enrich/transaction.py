"""The transaction of the enrich stage: batches of several partitions and their offsets, committed as one.

::

    IDLE ──▶ OPEN ──▶ ENDING ──▶ IDLE
               └──(discarded)────▲

OPEN begins with the first batch. ENDING begins at a limit of size, when the commit interval is over, when
somebody flushes, or when the transaction has to be rolled back. What has to happen after the end, such as
reading partitions again, belongs to it: the next transaction begins only after that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from flagstream.chunk import Partition
from flagstream.config.settings import EnrichSettings, TopicSettings
from flagstream.crashpoints import crash_point
from flagstream.enrich.batch import Batch
from flagstream.enrich.ingest_topic import IngestTopic
from flagstream.enrich.thread import TransactionThread
from flagstream.errors import OwnershipLost, TransactionAborted
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.transactions import NotQueued, QueueFull, TransactionalProducer
from flagstream.operate.dead_letters import Summary, add, summary
from flagstream.operate.tasks import Tasks

ROOM_SECONDS = 0.005
"""Between looks at whether the producer's queue has room again."""
ROOM_SHARE = 0.75
"""Part of the transaction time-out for which room in the queue is awaited: the rest is for the commit."""


class Phase(Enum):
    """What the transaction does now."""

    IDLE = auto()
    OPEN = auto()
    ENDING = auto()


NEXT = {
    Phase.IDLE: {Phase.OPEN},
    Phase.OPEN: {Phase.ENDING, Phase.IDLE},
    Phase.ENDING: {Phase.IDLE},
}
"""The phases that may follow each phase."""


class Added(Enum):
    """What became of a batch that was handed in."""

    WHOLE = auto()
    """All of it is in the transaction."""
    NO_ROOM = auto()
    """Nothing of it is in the transaction, which is committed to make room: hand the batch in again."""
    GIVEN_UP = auto()
    """The transaction was rolled back. The batch is void: its records are read again."""


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Contents:
    """What one transaction holds. ``began`` is a time of the event loop."""

    began: float
    tenures: dict[Partition, Tenure] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    """The next offset of each partition. It covers whole batches only."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead: Summary = field(default_factory=dict)
    events: int = 0
    bytes: int = 0
    alone: Batch | None = None
    """All that it holds, if that is one batch of a partition that has transactions of its own."""
    whole: asyncio.Event = field(default_factory=_set)
    """Cleared while a batch is in it only in part, which must not be committed."""
    due: bool = False
    """It is to be committed as soon as it is whole."""
    timer: asyncio.TimerHandle | None = None

    def take(self, batch: Batch, tenure: Tenure) -> None:
        """Count a batch of which all records are in the transaction now."""
        self.tenures[batch.partition] = tenure
        self.offsets[batch.partition] = batch.end
        self.outcomes.update(batch.outcomes)
        add(self.dead, summary(batch.dead))
        self.events += batch.count
        self.bytes += batch.bytes


class Aftermath(Protocol):
    """What happens after a transaction; the next one does not begin before that is done."""

    def committed(self, contents: Contents, seconds: float) -> None:
        """The transaction is committed; its end took ``seconds``."""
        ...

    async def rolled_back(self, contents: Contents, error: Exception) -> None:
        """Nothing of the transaction is visible, or only the committed offsets show whether it is: let its
        partitions be read again.
        """
        ...


class EnrichTransaction:
    """One transaction at a time, over and over. All methods are called on the event loop; what happens
    between two ``await`` is one step. :meth:`add` is called by one task only.
    """

    def __init__(
        self,
        settings: EnrichSettings,
        topics: TopicSettings,
        producer: TransactionalProducer,
        thread: TransactionThread,
        ingest: IngestTopic,
        aftermath: Aftermath,
        tasks: Tasks,
    ) -> None:
        self.phase = Phase.IDLE
        self.failed = False
        """Whether the end of a transaction raised what nobody can answer: the process ends. Batches that come
        after it must not be committed, since those of the transaction are not.
        """
        self._contents: Contents | None = None
        self._ending: asyncio.Task[None] | None = None
        self._settings = settings
        self._topics = topics
        self._producer = producer
        self._thread = thread
        self._ingest = ingest
        self._aftermath = aftermath
        self._tasks = tasks

    # ── filling ────────────────────────────────────────────────────────────

    def tenure_of(self, partition: Partition) -> Tenure | None:
        """Return the tenure from which the open transaction holds records of the partition, if it does."""
        return None if self._contents is None else self._contents.tenures.get(partition)

    async def add(self, batch: Batch, tenure: Tenure, *, alone: bool) -> Added:
        """Put a batch of ``tenure`` into the open transaction; begin one if none is open. None may be ending.

        ``alone``: the transaction holds nothing else. Waits while the producer's queue is full.
        """
        try:
            contents = self._contents or self._begun()
            contents.alone = batch if alone else None
            self._producer.release_delivered()
            queued = self._queue(batch, 0)
            if queued == 0 and batch.count and contents.offsets:
                # The queue is full of what the transaction holds already: nothing of that has to wait.
                self.close()
                return Added.NO_ROOM
            if queued < batch.count and not await self._queue_rest(contents, batch, tenure, queued):
                return Added.GIVEN_UP
        except NotQueued as error:
            await self.abort(error, tenure)
            return Added.GIVEN_UP
        crash_point("enrich.produced")
        contents.take(batch, tenure)
        if (
            alone
            or contents.due
            or contents.events >= self._settings.max_transaction_events
            or contents.bytes >= self._settings.max_transaction_bytes
        ):
            self.close()
        return Added.WHOLE

    def _begun(self) -> Contents:
        """Begin a transaction. Raises NotQueued if none begins; then it has to be rolled back."""
        self._enter(Phase.OPEN)
        loop = asyncio.get_running_loop()
        self._contents = contents = Contents(began=loop.time())
        self._producer.begin()
        contents.timer = loop.call_later(self._settings.commit_interval, self.close)
        return contents

    def _queue(self, batch: Batch, queued: int) -> int:
        """Hand in what follows the first ``queued`` records and dead letters of the batch, as far as the
        producer's queue has room. Returns how many of them are in it now. Raises NotQueued.
        """
        records = batch.records
        output = self._topics.output
        try:
            if batch.plain and queued < len(records):
                self._producer.produce_batch(output, records[queued:] if queued else records)
                queued = len(records)
            for record in records[queued:]:
                self._producer.produce(output, wait=0.0, **record)
                queued += 1
            for letter in batch.dead[queued - len(records) :]:
                self._producer.produce(
                    self._topics.dead_letters,
                    key=letter.key,
                    value=letter.value,
                    headers=letter.headers,
                    wait=0.0,
                )
                queued += 1
        except QueueFull as full:
            queued += full.queued
        return queued

    async def _queue_rest(self, contents: Contents, batch: Batch, tenure: Tenure, queued: int) -> bool:
        """Wait for brokers to take records until all of the batch is in the queue, but no longer than leaves
        time for the commit. Returns False if the transaction was rolled back meanwhile. Raises NotQueued.
        """
        loop = asyncio.get_running_loop()
        give_up = contents.began + self._settings.transaction_timeout * ROOM_SHARE
        contents.tenures[batch.partition] = tenure
        contents.whole.clear()
        try:
            while queued < batch.count:
                if loop.time() > give_up:
                    raise QueueFull(queued)
                await asyncio.sleep(ROOM_SECONDS)
                if self._contents is not contents:
                    return False
                self._producer.release_delivered()
                queued = self._queue(batch, queued)
        finally:
            contents.whole.set()
        return True

    # ── ending ────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Begin to commit the open transaction, if there is one; :meth:`ended` waits for the end. A
        transaction that is not whole is committed as soon as it is.
        """
        if self._contents is None:
            return
        if not self._contents.whole.is_set():
            self._contents.due = True
            return
        self._end("enrich commit", self._commit(self._taken_out()))

    async def flush(self) -> None:
        """Commit what is in the open transaction. Returns when it has ended, one way or the other."""
        await self.ended()
        while self._contents is not None and not self._contents.whole.is_set():
            await self._contents.whole.wait()
        self.close()
        await self.ended()

    async def abort(self, error: Exception, *more: Tenure) -> None:
        """Roll the open transaction back because of ``error``. Returns when its partitions, and those of
        ``more``, are read again.
        """
        contents = self._taken_out()
        contents.tenures.update({tenure.partition: tenure for tenure in more})
        self._end("enrich abort", self._roll_back(contents, error))
        await self.ended()

    async def ended(self) -> None:
        """Wait until no transaction is ending."""
        while self._ending is not None:
            await asyncio.wait([self._ending])

    def discard(self) -> None:
        """Leave an open transaction as it is, so that nobody commits it. The process has to end."""
        if self._contents is not None:
            self._taken_out()
            self._enter(Phase.IDLE)

    def _taken_out(self) -> Contents:
        """Return the contents of the open transaction, to which nothing is added from now on."""
        contents, self._contents = self._contents, None
        assert contents is not None, "no transaction is open"
        if contents.timer is not None:
            contents.timer.cancel()
        return contents

    def _end(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._enter(Phase.ENDING)

        async def run() -> None:
            try:
                await work
            except OwnershipLost:
                raise
            except Exception:
                self.failed = True
                raise
            finally:
                self._ending = None
                self._enter(Phase.IDLE)

        self._ending = self._tasks.start(name, run())

    async def _commit(self, contents: Contents) -> None:
        """Commit records and offsets together. This is the only place where the offsets of records are
        committed; the offset at which a group with start = "latest" begins is committed where a partition
        is entered (:mod:`flagstream.enrich.partitions`).
        """
        began = time.monotonic()
        try:
            await self._ingest.check(contents.tenures)
            # After that check: if it learned the topic's id, this very commit carries it.
            offsets = {
                partition: (offset, self._ingest.metadata(contents.tenures[partition]))
                for partition, offset in contents.offsets.items()
            }
            first, *others = contents.tenures.values()
            group = await first.group_metadata(*others)
        except OwnershipLost as error:
            await self._roll_back(contents, error)
            return
        try:
            await self._thread.end(lambda: self._producer.commit(offsets, group))
        except TransactionAborted as error:
            await self._aftermath.rolled_back(contents, error)
            return
        crash_point("enrich.committed")
        self._aftermath.committed(contents, time.monotonic() - began)

    async def _roll_back(self, contents: Contents, error: Exception) -> None:
        try:
            await self._thread.end(self._producer.abort)
        except TransactionAborted as reason:  # what had broken it before anybody gave it up
            error = reason
        await self._aftermath.rolled_back(contents, error)

    def _enter(self, phase: Phase) -> None:
        if phase not in NEXT[self.phase]:
            raise RuntimeError(f"an enrich transaction goes from {self.phase.name} to {phase.name}")
        self.phase = phase
