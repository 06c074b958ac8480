"""The chunk source: a confluent consumer in a thread of its own, feeding chunks into a Faust channel.

Every call on the consumer belongs to that thread. The event loop asks it for commits, rewinds and the like
through :meth:`ChunkSource.call`; the rebalance callbacks, which run on the thread inside ``consume()``, ask
the stage on the event loop (:class:`Stage`) and go on serving those calls while they wait, or a commit during
a revoke would deadlock.

Each partition has an **epoch**, new on every gain, loss and rewind. Kafka checks who commits, never what:
whether work still counts is ours to check, here, in the same step in which the offset is committed, where no
rebalance can slip in between (design: "Epochs and commits").
"""

import asyncio
import itertools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import ChannelT
from mode import Service

from worker.chunk import Chunk, Partition, Position, Record
from worker.crashpoints import reached
from worker.errors import OwnershipLost
from worker.kafka.offsets import Committed
from worker.kafka.trouble import HINTS, lag, raise_if_fatal
from worker.operate import metrics
from worker.units import Start

log = structlog.get_logger(__name__)
T = TypeVar("T")

MAX_RECORDS = 5_000
"""Records a ``consume()`` asks for: some 20 ms of work, so that calls from the event loop never wait longer
than that.
"""
POLL_SECONDS = 0.02
"""How long ``consume()`` collects: it waits for the whole time or ``MAX_RECORDS``, so this is the latency of
a quiet topic.
"""
QUERY_SECONDS = 5.0
"""Bound of one try of a blocking query (committed offsets, watermarks); tried again until it answers."""
RETRY_SECONDS = 0.2
"""Between tries of such a query."""
STALL_SECONDS = 1.0
"""How long the thread waits for the stage to take chunks before it pauses the partitions and goes on
polling.
"""
REMIND_SECONDS = 60.0
"""How often the same error is logged: librdkafka tells it with every try to connect."""
SILENT_SECONDS = 10.0
"""Without a poll, after which people are told."""
STATISTICS_MILLISECONDS = 5_000
"""How often librdkafka reports the state of its partitions, from which the lag is computed."""

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

    async def assigned(self, positions: Mapping[Partition, Position]) -> None:
        """These partitions are ours from ``positions`` on; their chunks come only after this returned."""
        ...

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """The group takes these away and waits for us; they may still be committed until this returns."""
        ...

    async def lost(self, partitions: Collection[Partition]) -> None:
        """These are gone already: drop their work, commit nothing."""
        ...

    async def missing(self, partition: Partition, position: Position) -> None:
        """The topic no longer holds the record at ``position.offset``; the partition waits for a decision."""
        ...


class ChunkSource(Service):
    """Consumes one topic in one group and puts its records, as chunks of one partition, into ``channel``.

    ``properties`` is the complete librdkafka configuration; ``start`` applies to partitions without a
    committed offset. ``fail`` is told an error that ends the process. ``session_timeout`` (seconds) bounds
    how old the last poll may be for :attr:`fresh`.
    """

    def __init__(
        self,
        name: str,
        *,
        properties: Mapping[str, Any],
        topic: str,
        channel: ChannelT[Chunk],
        stage: Stage,
        start: Start,
        session_timeout: float,
        fail: Callable[[BaseException], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.topic = topic
        self.polled_at = time.monotonic()
        self.alive_at = time.monotonic()
        self.positions: dict[Partition, Position] = {}
        self.problem = ""
        self._properties = {
            **properties,
            "error_cb": self._on_error,
            "stats_cb": self._on_statistics,
            "statistics.interval.ms": STATISTICS_MILLISECONDS,
        }
        self._channel = channel
        self._stage = stage
        self._start_at = start
        self._session_timeout = session_timeout
        self._commit_limit = int(self._properties.get("socket.timeout.ms", 60_000)) / 2000
        self._fail = fail
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._waiting: list[Chunk] = []
        self._put: Future[None] | None = None
        self._next: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._epochs = itertools.count(1)
        self._rebalances = 0
        self._throttled = False
        self._finishing = False
        self._rejoin_reason: str | None = None
        self._dropped: list[Partition] = []
        self._fatal: KafkaError | None = None
        self._told: dict[int, float] = {}
        self._since: int | None = None
        self._stopping = threading.Event()
        self._closed = False
        self._log = log.bind(source=name, topic=topic)
        self._thread = threading.Thread(target=self._run, name=f"consumer-{name}", daemon=True)

    # ── on the event loop ────────────────────────────────────────────────────────────

    async def on_start(self) -> None:
        self._asyncio = asyncio.get_running_loop()
        self._thread.start()

    async def on_stop(self) -> None:
        """Leave the group. The host drains the stage before; whatever is in flight now belongs to the next
        owner.
        """
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    @property
    def moved_at(self) -> float:
        """When the consumer's thread was last seen moving (monotonic seconds); now, while there is none."""
        return self.alive_at if self._thread.is_alive() else time.monotonic()

    @property
    def fresh(self) -> bool:
        """Whether the group can not have given our partitions away for want of polls; no delivery starts
        otherwise.
        """
        return time.monotonic() - self.polled_at < self._session_timeout

    @property
    def trouble(self) -> str:
        """What is wrong between us and Kafka; empty if nothing is known."""
        silent = time.monotonic() - self.polled_at
        if not self.problem and self._thread.is_alive() and silent > SILENT_SECONDS:
            return f"the consumer has not polled for {silent:.0f} s; it waits for Kafka"
        return self.problem

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the consumer's thread, between two polls or while a rebalance callback
        waits.
        """
        future: Future[T] = Future()
        self._calls.put((function, future))
        if self._closed:
            self._refuse_calls()
        return await asyncio.wrap_future(future)

    async def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> None:
        """Commit ``offset`` with ``metadata`` if ``partition`` is still held in ``epoch``; returns when Kafka
        has it.

        Raises OwnershipLost; the caller drops its work for the partition, and whoever gets it reads what is
        committed.
        """
        while not await self.call(  # noqa: ASYNC110  # the answer is not ours to be told
            lambda: self._commit(partition, epoch, offset, metadata)
        ):
            await asyncio.sleep(POLL_SECONDS)  # lets the thread poll, which serves the rebalance

    async def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        """The group's metadata for a transaction, taken in the same step in which ``epochs`` are seen to
        stand.

        Raises OwnershipLost if one of them does not.
        """

        def check() -> object:
            for partition, epoch in epochs.items():
                self._check(partition, epoch)
            return self._consumer.consumer_group_metadata()

        return await self.call(check)

    async def rewind(
        self, epochs: Mapping[Partition, int], to: int | None = None
    ) -> dict[Partition, Position]:
        """Start over at the committed offsets (or at ``to``) with new epochs; chunks of the old ones are
        void.

        Partitions no longer held in the epoch given are left out of the answer.
        """
        return await self.call(lambda: self._rewind(epochs, to))

    async def pause(self, partition: Partition, epoch: int) -> None:
        """Fetch no more of ``partition``; chunks that are under way still arrive."""
        await self.call(lambda: self._set_paused(partition, epoch, True))

    async def resume(self, partition: Partition, epoch: int) -> None:
        """Go on fetching a paused partition where its last chunk ended."""
        await self.call(lambda: self._set_paused(partition, epoch, False))

    async def pause_all(self) -> None:
        """Fetch nothing more (the process is about to stop), but stay in the group."""
        self._finishing = True
        await self.call(self._throttle)

    # ── on the consumer's thread ────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._consumer = Consumer(self._properties, logger=logging.getLogger("librdkafka"))
            try:
                self._subscribe()
                while not self._stopping.is_set():
                    self._poll()
            except Exception as error:  # told before closing, which may take its time
                self._asyncio.call_soon_threadsafe(self._fail, error)
            self._consumer.close()
        except Exception as error:
            self._asyncio.call_soon_threadsafe(self._fail, error)
        finally:
            self._refuse_calls()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _poll(self) -> None:
        self._serve_calls()
        if self._rejoin_reason is not None:
            self._rejoin()
        rebalances = self._rebalances
        messages = self._consumer.consume(MAX_RECORDS, POLL_SECONDS)
        self.polled_at = self.alive_at = time.monotonic()
        raise_if_fatal(self._fatal)
        if messages:
            self._deliver(messages, rebalances)
        self._hand_over()
        if self._throttled and not self._waiting and not self._finishing:
            self._unthrottle()

    def _deliver(self, messages: list[Message], rebalances: int) -> None:
        errors = [message for message in messages if message.error() is not None]
        for message in errors:
            self._on_message_error(message)
        if errors:
            messages = [message for message in messages if message.error() is None]
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
        self._waiting += chunks
        self._hand_over()
        stalled = time.monotonic() + STALL_SECONDS
        while self._waiting and not self._stopping.is_set():
            self._serve_calls(wait=0.1)
            self._hand_over()
            if time.monotonic() > stalled:
                self._throttle()
                return

    def _hand_over(self) -> None:
        """Put the chunks that wait into the channel, once those before them are in: their order is their
        meaning.
        """
        if self._waiting and (self._put is None or self._put.done()):
            chunks, self._waiting = self._waiting, []
            self._put = asyncio.run_coroutine_threadsafe(self._put_all(chunks), self._asyncio)
            self._put.add_done_callback(self._wake)

    def _cut(self, messages: Iterable[Message]) -> Iterable[Chunk]:
        """Cut fetched messages into chunks: runs of one partition, each joining onto the one before."""
        for index, run in itertools.groupby(messages, Message.partition):
            partition = Partition(self.topic, int(index or 0))
            position = self.positions.get(partition)
            if position is None:
                continue
            records = list(run)
            start, end = self._next[partition], int(records[-1].offset() or 0) + 1
            if int(records[0].offset() or 0) < start:
                self._seek(partition)  # left over from before a rewind; all of it comes again
                continue
            self._next[partition] = end
            yield Chunk(partition, position.epoch, start, end, cast(list[Record], records))

    async def _put_all(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            await self._channel.put(cast(Any, chunk))  # Faust declares events only, but takes any value

    def _serve_calls(self, wait: float = 0.0) -> None:
        self.alive_at = time.monotonic()
        while True:
            try:
                function, future = self._calls.get(timeout=wait) if wait else self._calls.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _wake(self, done: Future[None]) -> None:
        """End the wait of :meth:`_serve_calls` at once: what the thread waits for has happened."""
        self._calls.put((_nothing, Future()))

    def _refuse_calls(self) -> None:
        """Nobody serves calls any more: end those that wait, and those that still come."""
        self._closed = True
        while True:
            try:
                _, future = self._calls.get_nowait()
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(OwnershipLost(f"{self.name}: the consumer is closed"))

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a method of the stage on the event loop, serving its calls until it is through."""
        answer = asyncio.run_coroutine_threadsafe(coroutine, self._asyncio)
        answer.add_done_callback(self._wake)
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
        gained = [Partition(tp.topic, tp.partition) for tp in partitions]
        positions = self._resolve(gained)
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
            self._ask(self._stage.assigned(positions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        taken = [p for tp in partitions if (p := Partition(tp.topic, tp.partition)) in self.positions]
        if taken:
            reached("source.revoking")
            self._ask(self._stage.revoked(taken))
            self._log.info("partitions_revoked", partitions=[p.index for p in taken])
        self._release(taken)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalances += 1
        taken = [p for tp in partitions if (p := Partition(tp.topic, tp.partition)) in self.positions]
        self._log.warning("partitions_lost", partitions=[p.index for p in taken])
        self._lose(taken)
        consumer.incremental_unassign(partitions)

    def _hold(self, partition: Partition, position: Position) -> None:
        self.positions[partition] = position
        self._next[partition] = position.offset

    def _release(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)
            self._next.pop(partition, None)
            self._paused.discard(partition)
            with suppress(KeyError):  # not reported on yet
                metrics.LAG.remove(self.name, self.topic, str(partition.index))

    def _lose(self, partitions: list[Partition]) -> None:
        self._release(partitions)  # first: nothing of them can be committed from here on
        if partitions:
            self._ask(self._stage.lost(partitions))

    # positions

    def _resolve(self, partitions: list[Partition]) -> dict[Partition, Position]:
        """Where to start: the committed offset, else what ``start`` says. Asks until Kafka answers."""
        if not partitions:
            return {}
        wanted = [TopicPartition(p.topic, p.index) for p in partitions]
        positions = {}
        for partition, tp in zip(partitions, self._committed(wanted), strict=True):
            low, high = self._watermarks(partition)
            metadata = tp.metadata or ""
            known = tp.offset if tp.offset >= 0 else None
            offset = known if known is not None else self._first(partition, low, high)
            positions[partition] = Position(next(self._epochs), offset, known, metadata, low, high)
        return positions

    def _committed(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        def ask() -> list[TopicPartition]:
            found = self._consumer.committed(wanted, timeout=QUERY_SECONDS)
            for tp in found:
                if tp.error is not None:
                    raise KafkaException(tp.error)
            return found

        return self._query(ask)

    def _first(self, partition: Partition, low: int, high: int) -> int:
        if self._start_at == "beginning":
            return low
        if isinstance(self._start_at, datetime):
            millis = int(self._start_at.timestamp() * 1000)
        else:
            millis = self._group_start()
        wanted = [TopicPartition(partition.topic, partition.index, millis)]
        found = self._query(lambda: self._consumer.offsets_for_times(wanted, timeout=QUERY_SECONDS))[0]
        return found.offset if found.offset >= 0 else high

    def _group_start(self) -> int:
        """When the group began, in ms since the epoch: what "latest" means for a partition without an offset.

        The first member to ask decides; all commits carry the time on (:attr:`since`). So a partition that is
        added later, or first assigned later, starts where the group did and not at a moment at which it holds
        events already.
        """
        if self._since is None:
            topic = self._query(lambda: self._consumer.list_topics(self.topic, timeout=QUERY_SECONDS))
            every = [TopicPartition(self.topic, index) for index in topic.topics[self.topic].partitions]
            committed = self._committed(every)
            known = [Committed.parse(tp.metadata or "").since for tp in committed if tp.offset >= 0]
            self._since = min((since for since in known if since), default=int(time.time() * 1000))
        return self._since

    @property
    def since(self) -> int | None:
        """When the group began (ms since the epoch), if ``start`` is "latest"; belongs into every commit's
        metadata.
        """
        return self._since

    def _watermarks(self, partition: Partition) -> tuple[int, int]:
        wanted = TopicPartition(partition.topic, partition.index)
        low, high = self._query(
            lambda: self._consumer.get_watermark_offsets(wanted, timeout=QUERY_SECONDS, cached=False),
        )
        return int(low), int(high)

    def _query(self, function: Callable[[], T | None]) -> T:
        while not self._stopping.is_set():
            self.alive_at = time.monotonic()
            try:
                answer = function()
            except KafkaException as error:
                raise_if_fatal(error.args[0])
                self._on_error(error.args[0])
                self._stopping.wait(RETRY_SECONDS)
            else:
                if answer is not None:
                    return answer
        raise OwnershipLost(f"{self.name}: stopped while Kafka was asked for positions")

    def _rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        held = [p for p, epoch in epochs.items() if p in self.positions and self.positions[p].epoch == epoch]
        for partition in held:  # from here on nothing of the old epoch can be committed
            self.positions[partition] = replace(self.positions[partition], epoch=next(self._epochs))
        positions = self._resolve(held)
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

    # commits

    def _commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        """One try. True: done; False: commit the same again after a poll. Raises OwnershipLost."""
        self._check(partition, epoch)
        target = TopicPartition(partition.topic, partition.index, offset, metadata)
        began = time.monotonic()
        try:
            answer = self._consumer.commit(offsets=[target], asynchronous=False)
            error = answer[0].error if answer else None
        except KafkaException as failure:
            error = failure.args[0]
        self.alive_at = time.monotonic()
        if error is None and self.alive_at - began < self._commit_limit:
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
        metrics.REJOINS.labels(self.name, reason).inc()
        taken, self._dropped = self._dropped, []
        self._ask(self._stage.lost(taken))
        self._consumer.unsubscribe()
        deadline = time.monotonic() + self._session_timeout
        while self._consumer.assignment() and time.monotonic() < deadline and not self._stopping.is_set():
            self._consumer.consume(
                MAX_RECORDS, POLL_SECONDS
            )  # runs the revoke callback; nothing is held any more
        self._subscribe()

    # flow

    def _throttle(self) -> None:
        self._throttled = True
        self._consumer.pause([TopicPartition(p.topic, p.index) for p in self.positions])

    def _unthrottle(self) -> None:
        self._throttled = False
        for partition in self.positions.keys() - self._paused:
            self._go_on(partition)

    def _set_paused(self, partition: Partition, epoch: int, paused: bool) -> None:
        self._check(partition, epoch)
        if paused:
            self._paused.add(partition)
            self._consumer.pause([TopicPartition(partition.topic, partition.index)])
        elif partition in self._paused:
            self._paused.remove(partition)
            if not self._throttled:
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
            self.topic, -1 if message.partition() is None else int(message.partition() or 0)
        )
        position = self.positions.get(partition)
        if (
            error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            and position is not None
        ):
            low, high = self._watermarks(partition)
            if low <= self._next[partition] <= high:
                self._seek(partition)  # said of an earlier position, before a rewind
                return
            at = replace(position, offset=self._next[partition], low=low, high=high)
            self._ask(self._stage.missing(partition, at))
            return
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka goes on trying by itself; people have to see why nothing moves."""
        if error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            self._fatal = error
            return
        hint = HINTS.get(error.code(), "retried until it passes")
        metrics.KAFKA_ERRORS.labels(self.name, error.name()).inc()
        now = time.monotonic()
        if now - self._told.get(error.code(), -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told[error.code()] = now
            self._log.error("kafka_error", error=f"{error.name()}: {error.str()}", hint=hint)
        self.problem = f"{error.name()}: {hint}"

    def _on_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        if self.problem and statistics.get("cgrp", {}).get("join_state") == "steady":
            self._log.info("kafka_recovered", problem=self.problem)
            self.problem = ""
            self._told.clear()
        partitions = statistics.get("topics", {}).get(self.topic, {}).get("partitions", {})
        for index, found in partitions.items():
            partition = Partition(self.topic, int(index))
            if partition in self._next:
                metrics.LAG.labels(self.name, self.topic, index).set(lag(found, self._next[partition]))


def _nothing() -> None:
    """A call that only wakes."""
