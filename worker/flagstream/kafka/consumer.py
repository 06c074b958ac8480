"""The thread that owns a confluent consumer: it polls, cuts chunks, commits, and answers the group.

Every call on the consumer belongs to it. The rebalance callbacks, which run inside ``consume()``, ask the
stage on the event loop (:class:`Stage`) and go on serving its calls while they wait, or a commit during a
revoke would deadlock.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagstream.chunk import Chunk, Partition, Position, Record
from flagstream.crashpoints import crash_point
from flagstream.errors import OwnershipLost
from flagstream.kafka.calls import Calls
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.progress import Progress
from flagstream.kafka.reports import Reports, raise_if_fatal
from flagstream.kafka.start_positions import StartPositions
from flagstream.kafka.tenure import Tenure
from flagstream.librdkafka_text import LOGGER
from flagstream.memory import RECORD_OVERHEAD, Account, MemoryShare, Weight
from flagstream.operate import metrics
from flagstream.operate.retry import Backoff
from flagstream.units import Start

T = TypeVar("T")

log = structlog.get_logger(__name__)

MAX_RECORDS = 10_000
"""Small records that a ``consume()`` asks for: some 30 ms of work, so that calls from the event loop never
wait longer than that.
"""
FIRST_RECORDS = 500
"""Those that the first one asks for, when nobody knows how large they are."""
POLL_SECONDS = 0.02
"""How long ``consume()`` collects: it waits for the whole time or ``MAX_RECORDS``, so this is the latency of
a quiet topic.
"""
STALL_SECONDS = 1.0
"""How long the thread waits for the stage to take chunks before it pauses the partitions and goes on
polling.
"""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the group is joined again, from the second time in a row on."""
STATISTICS_MILLISECONDS = 5_000
"""How often librdkafka reports how far it has looked, and the state of its connections."""

_NOT_LOST = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS,
}
"""Answers to a commit after which the member mostly still owns the partition: serve the callbacks, commit the
same again.
"""


class Stage(Protocol):
    """What consumes the chunks. All methods are called on the event loop; the consumer's thread waits for
    each.
    """

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        """The group gives these partitions to this member. Their chunks come after this has returned."""
        ...

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """The group takes these away and waits for us; they may still be committed until this returns."""
        ...

    async def lost(self, partitions: Collection[Partition]) -> None:
        """These are gone already: drop their work, commit nothing."""
        ...

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        """The topic does not hold the record at ``position.offset``, the next one of the partition, but the
        offsets from ``position.low`` to ``position.high``. The stage decides how the partition goes on.
        """
        ...


class Ration:
    """How many records a ``consume()`` asks for, so that they weigh about ``limit`` bytes.

    What comes next is as heavy as what came last, or as what came before that and is forgotten slowly.
    librdkafka holds what it returns once more while it is copied, so one that is too large costs twice.
    """

    def __init__(self, limit: int) -> None:
        self.records = FIRST_RECORDS
        self._limit = limit
        self._each = 0.0

    def took(self, records: int, weight: int) -> None:
        """``records`` (at least one) were returned, of ``weight`` bytes together."""
        self._each = max(weight / records, self._each * 0.9)
        self.records = max(1, min(MAX_RECORDS, 4 * self.records, int(self._limit / self._each)))


class ConsumerThread:
    """Consumes ``topic`` and gives its records, as chunks of one partition, to ``put``, a coroutine function
    that may take its time.

    ``memory`` is what may wait of them, ``beside`` what the stage holds in another form. When records that
    the stage does not take have filled it for a while, ``on_full`` is called on the event loop, so that it
    may give some back (:meth:`resume`).

    ``positions`` says which partitions are held, and in which epoch. ``polled_at`` and ``last_active`` are
    when the thread last polled, and when it was last seen moving (monotonic seconds). The event loop has the
    methods below run by ``calls``.
    """

    def __init__(
        self,
        name: str,
        *,
        properties: Mapping[str, Any],
        topic: str,
        put: Callable[[Chunk], Awaitable[None]],
        stage: Stage,
        start: Start,
        session_timeout: float,
        fail: Callable[[BaseException], None],
        memory: MemoryShare,
        beside: Callable[[], int],
    ) -> None:
        self.polled_at = self.last_active = time.monotonic()
        self.positions: dict[Partition, Position] = {}
        self.calls = Calls(name)
        self.progress = Progress(name, topic)
        self.reports = reports = Reports(
            name, topic, looked=self.progress.looked, group=str(properties["group.id"])
        )
        self.finishing = False
        """Fetch nothing more."""
        self.rejoins = 0
        """Times in a row that the group was left and joined again, with no commit in between."""
        self.rejoined_for = ""
        """Why it was left the last time."""
        self._rejoins = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self.on_full: Callable[[], None] = _nothing
        self.account = Account(memory, beside=beside, released=self._wake)
        self.group = str(properties["group.id"])
        self._name = name
        self._topic = topic
        self._put_chunk = put
        self._stage = stage
        self._session_timeout = session_timeout
        self._fail = fail
        self._next: dict[Partition, int] = {}
        self._properties = {
            **properties,
            "error_cb": reports.error,
            "stats_cb": lambda text: reports.statistics(text, self._next),
            "statistics.interval.ms": STATISTICS_MILLISECONDS,
        }
        self._commit_limit = int(self._properties.get("socket.timeout.ms", 60_000)) / 2000
        self._ration = Ration(memory.chunk)
        self._most = memory.chunk
        self._stalled = False
        self._give_back_at = 0.0
        self._taken = metrics.WAITING_MEMORY.labels(name, "taken")
        self._waiting: list[Chunk] = []
        self._put: Future[None] | None = None
        self._paused: set[Partition] = set()
        self._epochs = itertools.count(1)
        self._rebalances = 0
        self._throttled = False
        self._rejoin_reason: str | None = None
        self._dropped: list[Partition] = []
        self._stopping = threading.Event()
        self._starts = StartPositions(topic, start, self._epochs, reports, self._stopping, self._alive)
        self._log = log.bind(source=name, topic=topic)
        self._thread = threading.Thread(target=self._run, name=f"consumer-{name}", daemon=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def fresh(self) -> bool:
        """Whether the last poll is younger than the session time-out."""
        return time.monotonic() - self.polled_at < self._session_timeout

    @property
    def group_start(self) -> GroupStart | None:
        """See :class:`StartPositions`."""
        return self._starts.group_start

    def start(self) -> None:
        """From the event loop that the stage lives on."""
        self._asyncio = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Leave the group; returns when the thread has ended. From any thread but the event loop's."""
        self._stopping.set()
        self._thread.join()

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread, between two polls or while a rebalance callback waits."""
        return await self.calls.call(function)

    # ── called through ``calls`` ────────────────────────────────────────────────────────────

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        """One try. True: done; False: commit the same again after a poll. Raises OwnershipLost."""
        self._check(partition, epoch)
        target = TopicPartition(partition.topic, partition.index, offset, metadata)
        began = time.monotonic()
        try:
            answer = self._consumer.commit(offsets=[target], asynchronous=False)
            error = answer[0].error if answer else None
        except KafkaException as failure:
            error = failure.args[0]
        self.last_active = time.monotonic()
        if error is None and self.last_active - began < self._commit_limit:
            self._rejoins.reset()
            self.rejoins = 0
            self.progress.committed(partition, offset)
            self._log.debug("offset_committed", partition=partition.index, offset=offset, metadata=metadata)
            return True
        if error is not None and error.code() in _NOT_LOST:
            return False
        raise_if_fatal(error)
        # UNKNOWN_MEMBER_ID: the group went on without us. Anything else: the outcome is unknown, and a copy
        # of this commit may land after a newer one. A new generation fences it, so leave and join again
        # before anything else.
        reason = "slow" if error is None else error.name()
        self._log.warning("commit_failed", partition=str(partition), offset=offset, error=reason)
        self._drop_all(reason)
        raise OwnershipLost(f"{partition}: commit of {offset} failed: {reason}")

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        """The group's metadata, if ``epochs`` stand. Raises OwnershipLost."""
        for partition, epoch in epochs.items():
            self._check(partition, epoch)
        return self._consumer.consumer_group_metadata()

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        held = [p for p, epoch in epochs.items() if p in self.positions and self.positions[p].epoch == epoch]
        for partition in held:  # from here on nothing of the old epoch can be committed
            self.positions[partition] = replace(self.positions[partition], epoch=next(self._epochs))
        positions = self._starts.resolve(held)
        if to is not None:
            positions = {partition: replace(position, offset=to) for partition, position in positions.items()}
        self._rebalances += 1  # records that consume() has returned already are not of these positions
        for partition, position in positions.items():
            self._hold(partition, position)
            if partition in self._paused:  # by the work that is void now
                self._paused.remove(partition)
                if not self._throttled:
                    self._consumer.resume([TopicPartition(partition.topic, partition.index)])
            self._seek(partition)
        return positions

    def pause(self, partition: Partition, epoch: int) -> None:
        """Fetch nothing more of the partition."""
        self._check(partition, epoch)
        self._log.debug("partition_paused", partition=partition.index)
        self._paused.add(partition)
        self._consumer.pause([TopicPartition(partition.topic, partition.index)])

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        """Fetch a paused partition again from ``start`` on, where chunks were given back, or else from the
        end of the last chunk. Returns where the last chunk ended.
        """
        self._check(partition, epoch)
        before = self._next[partition]
        if start is not None:
            self._next[partition] = start
            self.progress.begin_again(partition, start)
            self._rebalances += 1  # records that consume() has returned already lie behind it
        if partition in self._paused:
            self._log.debug("partition_resumed", partition=partition.index)
            self._paused.remove(partition)
            if not self._throttled:
                self._go_on(partition)
        return before

    def throttle(self) -> None:
        """Fetch nothing for a while, but go on polling."""
        self._throttled = True
        self._consumer.pause([TopicPartition(p.topic, p.index) for p in self.positions])

    # ── the thread ────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._consumer = Consumer(self._properties, logger=LOGGER)
            self._starts.consumer = self._consumer
            try:
                self._subscribe()
                while not self._stopping.is_set():
                    self._poll()
            except BaseException as error:  # told before closing, which may take its time
                self._asyncio.call_soon_threadsafe(self._fail, error)
            self._consumer.close()
        except BaseException as error:
            self._asyncio.call_soon_threadsafe(self._fail, error)
        finally:
            self.calls.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _poll(self) -> None:
        self._serve_calls()
        if self._rejoin_reason is not None:
            self._rejoin()
        if self._crowded and not self._throttled:
            self._wait_for_room()
        rebalances = self._rebalances
        messages = self._consumer.consume(self._ration.records, POLL_SECONDS)
        self.polled_at = self.last_active = time.monotonic()
        self.reports.raise_if_fatal()
        if messages:
            self._deliver(messages, rebalances)
        del messages  # what waits must not be held by this frame, too
        self._hand_over()
        self._taken.set(self.account.settle())
        if self._throttled and not self.finishing:
            if not self._crowded:
                self._unthrottle()
            elif time.monotonic() > self._give_back_at:
                self._give_back()

    @property
    def _crowded(self) -> bool:
        """Whether what was taken has to be let go of before more is."""
        return bool(self._waiting) or self.account.full

    def _wait_for_room(self) -> None:
        """Poll no more for a while: mostly the stage is at work, and a pause would throw away what librdkafka
        has fetched. Then nothing is fetched until there is room.
        """
        until = time.monotonic() + STALL_SECONDS
        self._stalled = True
        while self._crowded and not self._stopping.is_set():
            self._serve_calls(wait=0.1)
            self._hand_over()
            if time.monotonic() > until:
                self.throttle()
                self._give_back()
                break
        self._stalled = False

    def _give_back(self) -> None:
        """Ask the stage for records that it cannot do anything with for now, so that others have room."""
        self._give_back_at = time.monotonic() + STALL_SECONDS
        if self.account.full:
            self._asyncio.call_soon_threadsafe(self.on_full)

    def _wake(self) -> None:
        """There may be room. Called in any thread."""
        if self._stalled:
            self.calls.wake()

    def _deliver(self, messages: list[Message], rebalances: int) -> None:
        errors = [message for message in messages if message.error() is not None]
        if errors:
            messages = [message for message in messages if message.error() is None]
        self._pass_on(messages, rebalances)
        for message in errors:
            self._on_message_error(message)

    def _pass_on(self, messages: list[Message], rebalances: int) -> None:
        if rebalances != self._rebalances:
            # A callback ran inside this consume(): what it returned may belong to an earlier tenure. Fetch
            # again.
            for partition in {Partition(str(m.topic()), int(m.partition() or 0)) for m in messages}:
                if partition in self._next:
                    self._seek(partition)
            return
        chunks = list(self._cut(messages))
        if not chunks:
            return
        records = sum(len(chunk.records) for chunk in chunks)
        self._ration.took(records, sum(chunk.weight.bytes for chunk in chunks))
        self._waiting += chunks
        self._hand_over()

    def _hand_over(self) -> None:
        """Put the chunks that wait into the channel, once those before them are in: their order is their
        meaning.
        """
        if self._put is not None and self._put.done():
            self._put.result()  # raises what kept chunks from getting there
            self._put = None
        if self._waiting and self._put is None:
            chunks, self._waiting = self._waiting, []
            self._put = asyncio.run_coroutine_threadsafe(self._put_all(chunks), self._asyncio)
            self._put.add_done_callback(self.calls.wake)

    def _cut(self, messages: Iterable[Message]) -> Iterable[Chunk]:
        """Cut fetched messages into chunks: runs of one partition, each joining onto the one before, and none
        heavier than a chunk may be, unless it is a single record.
        """
        for index, run in itertools.groupby(messages, Message.partition):
            partition = Partition(self._topic, int(index or 0))
            position = self.positions.get(partition)
            if position is None:
                continue
            records = list(run)
            if int(records[0].offset() or 0) < self._next[partition]:
                self._seek(partition)  # left over from before a rewind; all of it comes again
                continue
            for part, weight in self._parts(records):
                start, end = self._next[partition], int(part[-1].offset() or 0) + 1
                self._next[partition] = end
                self.progress.read(partition, end, part[0].timestamp()[1] / 1000)
                self._log.debug(
                    "chunk_read", partition=partition.index, start=start, end=end, records=len(part)
                )
                charged = Weight(self.account, weight)
                yield Chunk(partition, position.epoch, start, end, cast(list[Record], part), charged)

    def _parts(self, records: list[Message]) -> Iterator[tuple[list[Message], int]]:
        """What chunks are made of, and what each weighs."""
        weight = sum(map(len, records)) + RECORD_OVERHEAD * len(records)
        if weight <= self._most:  # nearly always; adding up costs 0.02 µs a record
            yield records, weight
            return
        begin = weight = 0
        for index, record in enumerate(records):
            size = len(record) + RECORD_OVERHEAD
            if weight and weight + size > self._most:
                yield records[begin:index], weight
                begin, weight = index, 0
            weight += size
        yield records[begin:], weight

    async def _put_all(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            await self._put_chunk(chunk)

    def _serve_calls(self, wait: float = 0.0) -> None:
        self._alive()
        self.calls.serve(wait)

    def _alive(self) -> None:
        self.last_active = time.monotonic()

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a method of the stage on the event loop, serving its calls until it is through."""
        answer = asyncio.run_coroutine_threadsafe(coroutine, self._asyncio)
        answer.add_done_callback(self.calls.wake)
        while True:
            self._serve_calls(wait=0.1)
            try:
                return answer.result(timeout=0)
            except FutureTimeout:
                continue
            except OwnershipLost as error:  # a commit failed meanwhile: the group is joined again next
                self._log.info("ownership_lost", error=str(error))
                return None

    # rebalance callbacks

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        self.reports.member = True
        gained = [Partition(tp.topic, tp.partition) for tp in partitions]
        positions = self._starts.resolve(gained)
        for partition, position in positions.items():
            self._hold(partition, position)
        consumer.incremental_assign(
            [TopicPartition(p.topic, p.index, x.offset) for p, x in positions.items()]
        )
        if positions:
            # Both need saying: librdkafka keeps a partition paused that was taken away while it was.
            fetch = consumer.pause if self._throttled else consumer.resume
            fetch([TopicPartition(p.topic, p.index) for p in positions])
            self._log.info("partitions_assigned", partitions=[p.index for p in positions])
            self._ask(self._stage.assigned([Tenure(p, x, self) for p, x in positions.items()]))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        taken = [p for tp in partitions if (p := Partition(tp.topic, tp.partition)) in self.positions]
        if taken:
            crash_point("source.revoking")
            self._ask(self._stage.revoked(taken))
            self._log.info("partitions_revoked", partitions=[p.index for p in taken])
        self._release(taken)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        taken = [p for tp in partitions if (p := Partition(tp.topic, tp.partition)) in self.positions]
        self.reports.member = False
        if taken:
            self._log.warning("partitions_lost", partitions=[p.index for p in taken])
        self._lose(taken)
        consumer.incremental_unassign(partitions)

    def _hold(self, partition: Partition, position: Position) -> None:
        self.positions[partition] = position
        self._next[partition] = position.offset
        self.progress.begin(partition, position)

    def _release(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)
            self._next.pop(partition, None)
            self._paused.discard(partition)
            self.progress.end(partition)

    def _lose(self, partitions: list[Partition]) -> None:
        self._release(partitions)  # first: nothing of them can be committed from here on
        if partitions:
            self._ask(self._stage.lost(partitions))

    def _seek(self, partition: Partition) -> None:
        """Fetch the partition from its next position on."""
        target = [TopicPartition(partition.topic, partition.index, self._next[partition])]
        try:
            self._consumer.seek(target[0])
        except KafkaException as failure:
            if failure.args[0].code() != KafkaError._STATE:
                raise
            # Assigned a moment ago and not fetching yet: librdkafka cannot seek then, but it can start there.
            self._consumer.incremental_unassign(target)
            self._consumer.incremental_assign(target)
            if self._throttled or partition in self._paused:
                self._consumer.pause(target)

    def _check(self, partition: Partition, epoch: int) -> None:
        position = self.positions.get(partition)
        if position is None or position.epoch != epoch:
            raise OwnershipLost(f"{partition} is no longer held in epoch {epoch}")

    # leaving and joining again

    def _drop_all(self, reason: str) -> None:
        """Hold nothing from now on; the next poll leaves the group (this may run inside a rebalance
        callback).
        """
        self._rejoin_reason = reason
        self._dropped = list(self.positions)
        self._release(self._dropped)

    def _rejoin(self) -> None:
        """Leave the group and join it again, with nothing held; the positions are read again on
        assignment.
        """
        reason, self._rejoin_reason = self._rejoin_reason, None
        metrics.rejoined(self._name, reason)
        taken, self._dropped = self._dropped, []
        self._ask(self._stage.lost(taken))
        self._consumer.unsubscribe()
        self.reports.member = False
        self.rejoins += 1
        self.rejoined_for = str(reason)
        pause = self._rejoins.next_pause() if self.rejoins > 1 else 0.0
        deadline = time.monotonic() + self._session_timeout
        while self._consumer.assignment() and time.monotonic() < deadline and not self._stopping.is_set():
            self._consumer.consume(
                MAX_RECORDS, POLL_SECONDS
            )  # runs the revoke callback; nothing is held any more
        # Each joining makes the whole group share out anew, so one whose commits always fail pauses.
        until = time.monotonic() + pause
        while time.monotonic() < until and not self._stopping.is_set():
            self._serve_calls(wait=0.1)
        self._subscribe()

    # flow

    def _unthrottle(self) -> None:
        self._throttled = False
        for partition in self.positions.keys() - self._paused:
            self._go_on(partition)

    def _go_on(self, partition: Partition) -> None:
        self._consumer.resume([TopicPartition(partition.topic, partition.index)])
        self._seek(partition)  # said rather than trusted: whatever was fetched before the pause comes again

    # what librdkafka reports

    def _on_message_error(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        raise_if_fatal(error)
        partition = Partition(
            self._topic, -1 if message.partition() is None else int(message.partition() or 0)
        )
        position = self.positions.get(partition)
        if (
            error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            and position is not None
        ):
            low, high = self._starts.watermarks(partition)
            if low <= self._next[partition] <= high or self._waiting:
                # Said of an earlier position, before a rewind; or what was read has to be handed over first,
                # and the error comes again.
                self._seek(partition)
                return
            at = replace(position, offset=self._next[partition], low=low, high=high)
            self._ask(self._stage.records_missing(Tenure(partition, position, self), at))
            return
        self.reports.error(error)


def _nothing() -> None:
    """A stage that has nothing to give back."""
