"""The thread that owns a confluent consumer: it polls, commits, and takes part in rebalances.

Every call of the consumer is made here. The rebalance callbacks, which run inside ``consume()``, ask the
stage on the event loop (:class:`~flagstream.kafka.tenure.Stage`). While they wait, the thread goes on serving
calls of the event loop: otherwise a commit during a revoke would deadlock.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagstream.chunk import Chunk, Partition, Position
from flagstream.crashpoints import crash_point
from flagstream.errors import OwnershipLost
from flagstream.kafka.assignment import Assignment
from flagstream.kafka.calls import Calls
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.consumer_settings import ConsumerSettings, Pulse
from flagstream.kafka.fetching import Fetching
from flagstream.kafka.handover import MAX_RECORDS, Handover
from flagstream.kafka.progress import Progress
from flagstream.kafka.rejoining import Departure, Rejoining
from flagstream.kafka.reports import Reports, raise_if_fatal
from flagstream.kafka.start_positions import StartPositions
from flagstream.kafka.tenure import Stage, Tenure
from flagstream.librdkafka_text import LOGGER
from flagstream.memory import MemoryShare, Weight
from flagstream.operate import metrics

T = TypeVar("T")

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.02
"""How long one ``consume()`` collects records. It returns earlier only when it has all that it was asked for,
so this is the latency of a quiet topic.
"""
SERVE_SECONDS = 0.1
"""How long the thread waits for calls at a time while a callback waits for the stage."""
STATISTICS_MILLISECONDS = 5_000
"""How often librdkafka reports how far it has looked, and the state of its connections."""

_NOT_LOST = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS,
}
"""Answers to a commit after which the member mostly still owns the partition: it polls, which runs the
callbacks, and commits the same again.
"""


class ConsumerThread:
    """Consumes one topic and gives its records, as chunks of one partition, to ``put``, a coroutine function
    that may take its time. Satisfies :class:`flagstream.kafka.tenure.Holder`.

    ``fail`` is called on the event loop with an error that ends the process. ``memory`` and ``beside``: see
    :class:`~flagstream.kafka.handover.Handover`. The methods of the second part run on the thread, through
    :meth:`call`.
    """

    _consumer: Consumer  # the thread makes it

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        put: Callable[[Chunk], Awaitable[None]],
        stage: Stage,
        fail: Callable[[BaseException], None],
        memory: MemoryShare,
        beside: Callable[[], int],
    ) -> None:
        name, topic = settings.name, settings.topic
        self.pulse = Pulse(time.monotonic(), time.monotonic())
        self.calls = Calls(name, fail)
        self.progress = Progress(name, topic)
        self.reports = Reports(name, topic, looked=self.progress.looked, group=settings.group)
        self.rejoining = Rejoining()
        self.handover = Handover(
            put, self.calls, memory, beside, metrics.WAITING_MEMORY.labels(name, "taken")
        )
        account = self.handover.account
        self.assignment = Assignment(topic, memory.chunk, lambda weight: Weight(account, weight))
        self._fetching = Fetching(self.assignment)
        self._settings = settings
        self._stage = stage
        self._stopping = threading.Event()
        self._starts = StartPositions(
            topic, settings.start, self.assignment.epochs, self.reports, self._stopping, self.pulse.beat
        )
        self._log = log.bind(source=name, topic=topic)
        self._thread = threading.Thread(target=self._run, name=f"consumer-{name}", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def group(self) -> str:
        """Return the name of the consumer group."""
        return self._settings.group

    @property
    def group_start(self) -> GroupStart | None:
        """See :class:`StartPositions`."""
        return self._starts.group_start

    @property
    def fresh(self) -> bool:
        """Whether the last poll is younger than the session time-out."""
        return time.monotonic() - self.pulse.polled_at < self._settings.session_timeout

    def start(self) -> None:
        """Start the thread. Called on the event loop on which the stage lives."""
        self.calls.attach()
        self._thread.start()

    def stop(self) -> None:
        """Leave the group. Returns when the thread has ended. From any thread but the event loop's."""
        self._stopping.set()
        self._thread.join()

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread, between two polls or while a rebalance callback waits."""
        return await self.calls.call(function)

    # ── on the thread, through call() ────────────────────────────────────────────────────────────

    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool:
        """Try once to commit. Returns False if the same commit has to be tried again, after a poll.

        Raises OwnershipLost if the partition is not held in ``epoch``, or if the outcome is not known.
        """
        self.assignment.check({partition: epoch})
        began = time.monotonic()
        try:
            answer = self._consumer.commit(
                offsets=[TopicPartition(partition.topic, partition.index, offset, metadata)],
                asynchronous=False,
            )
            error = answer[0].error if answer else None
        except KafkaException as failure:
            error = failure.args[0]
        self.pulse.beat()
        if error is None and self.pulse.last_active - began < self._settings.commit_limit:
            self.rejoining.committed()
            self.progress.committed(partition, offset)
            self._log.debug("offset_committed", partition=partition.index, offset=offset, metadata=metadata)
            return True
        if error is not None and error.code() in _NOT_LOST:
            return False
        raise_if_fatal(error)
        # UNKNOWN_MEMBER_ID: the group went on without this member. Anything else: the outcome is not known,
        # and a copy of this commit may land after a newer one. A new generation fences it, so leave the group
        # and join it again before anything else.
        reason = "slow" if error is None else error.name()
        self._log.warning("commit_failed", partition=str(partition), offset=offset, error=reason)
        self._drop_all(reason)
        raise OwnershipLost(f"{partition}: commit of {offset} failed: {reason}")

    def group_metadata(self, epochs: Mapping[Partition, int]) -> object:
        """Return the group's metadata. Raises OwnershipLost unless all partitions are held in their
        epochs.
        """
        self.assignment.check(epochs)
        return self._consumer.consumer_group_metadata()

    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> dict[Partition, Position]:
        """Start the partitions again at their committed offsets, or at ``to``, in new epochs.

        Returns their positions, without those of partitions that are not held in their epochs.
        """
        ended = self.assignment.end_tenures(epochs)
        positions = self._starts.resolve(ended)
        if to is not None:
            positions = {partition: replace(position, offset=to) for partition, position in positions.items()}
        for partition, position in positions.items():
            self._hold(partition, position)
            self._fetching.restart(partition)
        return positions

    def pause(self, partition: Partition, epoch: int) -> None:
        """Fetch nothing more of the partition. Raises OwnershipLost if it is not held in ``epoch``."""
        self.assignment.check({partition: epoch})
        self._log.debug("partition_paused", partition=partition.index)
        self._fetching.pause(partition)

    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int:
        """Fetch a paused partition again from ``start`` on, where chunks were given back, or else from the
        end of the last chunk. Returns where the last chunk ended. Raises OwnershipLost if the partition is
        not held in ``epoch``.
        """
        self.assignment.check({partition: epoch})
        end = self.assignment.next[partition]
        if start is not None:
            self.assignment.read_again(partition, start)
            self.progress.begin_again(partition, start)
        if partition in self.assignment.paused:
            self._log.debug("partition_resumed", partition=partition.index)
            self._fetching.resume(partition)
        return end

    def finish(self) -> None:
        """Fetch nothing more: the process is about to stop. The consumer stays in the group."""
        self._fetching.finished = True
        self._fetching.throttle()

    # ── on the thread ────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            properties = {
                **self._settings.properties,
                "error_cb": self.reports.error,
                "stats_cb": lambda text: self.reports.statistics(text, self.assignment.next),
                "statistics.interval.ms": STATISTICS_MILLISECONDS,
            }
            self._consumer = Consumer(properties, logger=LOGGER)
            self._starts.consumer = self._fetching.consumer = self._consumer
            try:
                self._subscribe()
                while not self._stopping.is_set():
                    self._poll()
            except BaseException as error:  # reported before close(), which may take its time
                self.calls.fail(error)
            self._consumer.close()
        except BaseException as error:
            self.calls.fail(error)
        finally:
            self.calls.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._settings.topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _poll(self) -> None:
        self._serve_calls()
        if (departure := self.rejoining.begin()) is not None:
            self._rejoin(departure)
        handover, fetching = self.handover, self._fetching
        if not fetching.throttled and not handover.wait_for_room(self._serve_calls, self._stopping.is_set):
            fetching.throttle()
            handover.ask_to_give_back()
        changes = self.assignment.changes
        messages = self._consumer.consume(handover.ration.records, POLL_SECONDS)
        self.pulse.polled()
        self.reports.raise_if_fatal()
        if messages:
            self._deliver(messages, changes)
        del messages  # so that this frame does not hold what waits, too
        handover.hand_over()
        if fetching.throttled and not fetching.finished:
            if handover.crowded:
                handover.ask_to_give_back_if_due()
            else:
                fetching.unthrottle()

    def _deliver(self, messages: list[Message], changes: int) -> None:
        errors: Sequence[Message] = ()
        if any(map(Message.error, messages)):
            errors = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
        cut = self.assignment.cut(messages, changes)
        for partition in cut.void:
            self._fetching.seek(partition)
        for chunk in cut.chunks:
            self.progress.read(chunk.partition, chunk.end, chunk.records[0].timestamp()[1] / 1000)
            self._log.debug(
                "chunk_read",
                partition=chunk.partition.index,
                start=chunk.start,
                end=chunk.end,
                records=len(chunk.records),
            )
        self.handover.add(cut.chunks)
        for message in errors:
            self._on_message_error(message)

    def _on_message_error(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        raise_if_fatal(error)
        index = message.partition()
        partition = Partition(self._settings.topic, -1 if index is None else index)
        position = self.assignment.positions.get(partition)
        out_of_range = error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
        if position is None or not out_of_range:
            self.reports.error(error)
            return
        low, high = self._starts.watermarks(partition)
        offset = self.assignment.next[partition]
        if low <= offset <= high or not self.handover.empty:
            # The error is of an offset before a rewind; or what was read has to be handed over first, and the
            # error comes again.
            self._fetching.seek(partition)
            return
        at = replace(position, offset=offset, low=low, high=high)
        self._ask(self._stage.records_missing(Tenure(partition, position, self), at))

    def _serve_calls(self, wait: float = 0.0) -> None:
        self.pulse.beat()
        self.calls.serve(wait)

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a method of the stage on the event loop, and serve its calls until it returns."""
        answer = self.calls.start(coroutine)
        while True:
            self._serve_calls(wait=SERVE_SECONDS)
            try:
                return answer.result(timeout=0)
            except FutureTimeout:
                continue
            except OwnershipLost as error:  # a commit failed meanwhile: the group is joined again next
                self._log.info("ownership_lost", error=str(error))
                return None

    # rebalance callbacks

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignment.changes += 1
        self.reports.member = True
        positions = self._starts.resolve([Partition(tp.topic, tp.partition) for tp in partitions])
        for partition, position in positions.items():
            self._hold(partition, position)
        self._fetching.assign(positions)
        if positions:
            self._log.info("partitions_assigned", partitions=[p.index for p in positions])
            tenures = [Tenure(partition, position, self) for partition, position in positions.items()]
            self._ask(self._stage.assigned(tenures))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignment.changes += 1
        taken = self._held_of(partitions)
        if taken:
            crash_point("source.revoking")
            self._ask(self._stage.revoked(taken))
            self._log.info("partitions_revoked", partitions=[p.index for p in taken])
        self._release(taken)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignment.changes += 1
        taken = self._held_of(partitions)
        self.reports.member = False
        if taken:
            self._log.warning("partitions_lost", partitions=[p.index for p in taken])
        self._release(taken)  # first: nothing of them can be committed from here on
        if taken:
            self._ask(self._stage.lost(taken))
        consumer.incremental_unassign(partitions)

    def _held_of(self, partitions: list[TopicPartition]) -> list[Partition]:
        found = [Partition(tp.topic, tp.partition) for tp in partitions]
        return [partition for partition in found if partition in self.assignment.positions]

    def _hold(self, partition: Partition, position: Position) -> None:
        self.assignment.hold(partition, position)
        self.progress.begin(partition, position)

    def _release(self, partitions: Sequence[Partition]) -> None:
        self.assignment.release(partitions)
        for partition in partitions:
            self.progress.end(partition)

    # leaving the group and joining it again

    def _drop_all(self, reason: str) -> None:
        """Hold nothing from now on. The next poll leaves the group, as a callback may be running now."""
        dropped = list(self.assignment.positions)
        self._release(dropped)
        self.rejoining.plan(reason, dropped)

    def _rejoin(self, departure: Departure) -> None:
        """Leave the group and join it again. The positions are read again on assignment."""
        metrics.rejoined(self._settings.name, departure.reason)
        self._ask(self._stage.lost(departure.dropped))
        self._consumer.unsubscribe()
        self.reports.member = False
        give_up = time.monotonic() + self._settings.session_timeout
        while self._consumer.assignment() and time.monotonic() < give_up and not self._stopping.is_set():
            self._consumer.consume(MAX_RECORDS, POLL_SECONDS)  # runs the revoke callback; nothing is held
        until = time.monotonic() + departure.pause
        while time.monotonic() < until and not self._stopping.is_set():
            self._serve_calls(wait=SERVE_SECONDS)
        self._subscribe()
