"""The export stage of one sink: brings the chunks of the output topic to its partitions, and starts each
partition's export when it is assigned and whenever it has to begin again.
"""

import asyncio
from collections.abc import AsyncIterable, Callable, Collection, Iterator, Mapping
from typing import Any

import structlog

from flagstream.chunk import Chunk, Partition, Position
from flagstream.config.settings import TopicSettings
from flagstream.errors import SinkRefused
from flagstream.export.budget import MemoryBudget
from flagstream.export.destination import Destination, Hole
from flagstream.export.partition import PartitionExport
from flagstream.export.restarts import RefusedWindow
from flagstream.export.routes import DeadLetterRoute, route_to
from flagstream.export.sink_calls import SinkCalls
from flagstream.export.takeover import unit_of
from flagstream.export.transactions import WindowTransactions
from flagstream.export.windows import Limits
from flagstream.kafka.gaps import Gap, describe_gap
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topic_id import TopicIdentity
from flagstream.kafka.topics import TopicFacts
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.operate.health import Problem
from flagstream.operate.stopped import StoppedPartitions
from flagstream.operate.tasks import Tasks
from flagstream.sinks.protocol import ConfiguredTransactionalSink, Sink
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder

log = structlog.get_logger(__name__)


class ExportStage:
    """Satisfies :class:`flagstream.kafka.tenure.Stage` and :class:`flagstream.export.destination.Services`.

    ``producer`` writes the dead letters and what a transactional sink delivers. For dead letters alone it is
    opened before the first one is written, unless its id is stable. ``revoke_budget``: seconds that a revoke
    may take. ``fail`` is called with an error that ends the process.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[Any] | ConfiguredTransactionalSink[Any],
        settings: SinkSettings,
        topics: TopicSettings,
        budget: MemoryBudget,
        producer: TransactionalProducer,
        *,
        revoke_budget: float,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.decoder: Decoder | None = None
        """Of an output topic that is not JSON; set before :meth:`open`."""
        self.fail = fail
        self._name = name
        self._sink = sink
        self._settings = settings
        self._budget = budget
        self._revoke_budget = revoke_budget
        self._calls = SinkCalls(name, settings)
        self._transactions = WindowTransactions(
            name, sink, producer, topics.dead_letters, self._calls, self.committed
        )
        self._to: Destination | None = None
        self._identity: TopicIdentity | None = None
        self._exports: dict[Partition, PartitionExport] = {}
        self._keepers: dict[Partition, asyncio.Task[None]] = {}
        self._tasks = Tasks(fail)
        self._stops = StoppedPartitions(self._look_again, lambda: asyncio.get_running_loop().time())

    async def open(self, facts: TopicFacts, topic_id: Callable[[], str]) -> None:
        """Get ready to join the group, and begin to open the sink. Partitions that come meanwhile are held:
        of each the first chunk is read, so that its lag and its age are known, and then it is paused.
        ``topic_id`` asks for the output topic's id: see :class:`TopicIdentity`.
        """
        self._identity = TopicIdentity(topic_id)
        settings, transactions, sink = self._settings, self._transactions, self._sink
        limit = transactions.learn_limits(facts)
        self._to = Destination(
            self._name,
            route_to(self._name, sink, settings, self._calls, transactions),
            settings,
            Limits(settings.max_events, settings.max_bytes, limit, settings.events),
            self._budget,
            self,
            self._refused_route,
            self.decoder,
            unit_of(sink),
        )
        if transactions.opens_early:
            self._tasks.start(f"sink {self._name}", transactions.open())
        if not isinstance(sink, ConfiguredTransactionalSink):
            self._tasks.start(f"sink {self._name}", self._calls.open(sink.open))

    def _refused_route(self, error: SinkRefused) -> DeadLetterRoute:
        transactions = self._transactions
        return DeadLetterRoute(
            self._name,
            self._sink.begin,
            transactions,
            error,
            transactions.dead_letters,
            lambda: transactions.limit,
        )

    async def run(self, chunks: AsyncIterable[Chunk]) -> None:
        """The agent's body. An error ends the process: Faust would restart the agent after the chunk."""
        try:
            async for chunk in chunks:
                if self.decoder is not None:
                    await self.decoder.prepare([record.value() for record in chunk.records])
                if export := self._exports.get(chunk.partition):
                    export.accept(chunk)
                else:
                    chunk.weight.release()
                del chunk
        except Exception as error:
            self.fail(error)
            raise

    # ── what people see ────────────────────────────────────────────────────────────────

    @property
    def stopped(self) -> dict[Partition, str]:
        """Partitions that wait for a person to act, with the reason."""
        return self._stops.problems | self._stopped_now

    @property
    def _stopped_now(self) -> dict[Partition, str]:
        return {partition: e.stopped for partition, e in self._exports.items() if e.stopped}

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps the sink from taking windows. Of a partition that has stopped, nothing else is
        said. On the event loop.
        """
        stopped = self.stopped
        for partition, text in stopped.items():
            yield Problem("partition_stopped", text, str(partition))
        yield from self._calls.status.problems(asyncio.get_running_loop().time(), leaving_out=stopped)
        yield from self._transactions.problems(leaving_out=stopped)
        if self._identity is not None and self._identity.problem:
            yield Problem("kafka", self._identity.problem)
        if self.decoder is not None and self.decoder.trouble:
            yield Problem("registry", self.decoder.trouble)

    def under_way(self) -> Mapping[Partition, float]:
        """Return for how many seconds the call of the sink that each partition waits for is under way."""
        found = self._calls.status.under_way(asyncio.get_running_loop().time())
        everybody = found.pop(None, 0.0)
        return {p: max(everybody, found.get(p, 0.0)) for p in (*self._exports, *found) if p is not None}

    def look(self) -> None:
        """Do and log what only time brings. Called every second or so, on the event loop."""
        self._stops.follow(self._stopped_now)
        self._calls.log_slow()

    def look_now(self) -> None:
        """Try at once what waits to be tried again. Called when a person says that it is mended."""
        self._stops.follow(self._stopped_now)
        self._stops.look_now()
        self._calls.hurry()

    def _look_again(self, partition: Partition) -> None:
        if export := self._exports.get(partition):
            export.look_again()

    def give_back(self) -> None:
        """Drop records for which there is no room in windows for now: they keep others from being fetched."""
        for export in self._exports.values():
            export.give_back()

    async def drain(self, deadline: float) -> None:
        """Close all windows and deliver what fits until ``deadline`` (event loop time). The rest is left to
        its plan.
        """
        await self._finish(list(self._exports), "shutdown", deadline)

    async def close(self) -> None:
        """Close the sink. Called after the consumer has left the group. A delivery that hangs is not waited
        for.
        """
        self._transactions.close()
        self._calls.close()
        if not isinstance(self._sink, ConfiguredTransactionalSink) and self._calls.opened:
            await asyncio.to_thread(self._sink.close)

    # ── what the chunk source calls ────────────────────────────────────────────────────

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        """Begin to export these partitions. Returns before the first look at them: a rebalance waits."""
        for tenure in tenures:
            hole = None if tenure.position.readable else self._hole(tenure, tenure.position)
            self._hold(tenure, hole)

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """Deliver what fits of these partitions, and let go of them."""
        await self._finish(partitions, "revoke", asyncio.get_running_loop().time() + self._revoke_budget)

    async def lost(self, partitions: Collection[Partition]) -> None:
        """Let go of these partitions; nothing of them can be committed."""
        for partition in partitions:
            self._let_go(partition)

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        """Deliver what is held already, which Kafka has no longer. Then the partition stops, or goes on after
        the records that are gone.
        """
        export, keeper = self._exports.get(tenure.partition), self._keepers.get(tenure.partition)
        if export is not None and export.ended and keeper is not None and not keeper.done():
            return  # it is about to be read from another offset
        # If nothing was overtaken the topic was cut: other records may get the offsets of those that are
        # held.
        held = (
            export is not None
            and not export.ended
            and export.tenure.epoch == tenure.epoch
            and self._gap(tenure, position).overtaken
        )
        if export is not None and held:
            if export.hole is not None:
                return
            export.overtaken(self._hole(tenure, position))
        else:
            hole = self._hole(tenure, position)
            self._hold(tenure, hole)
            if hole.resume_at is not None:
                return
        await tenure.pause()

    def _gap(self, tenure: Tenure, position: Position) -> Gap:
        return describe_gap(
            tenure.partition,
            position,
            doing="exported",
            group=tenure.group,
            setting=f"sinks.{self._name}.on_missing_records",
        )

    def _hole(self, tenure: Tenure, position: Position) -> Hole:
        """Log that the records at ``position`` are gone, and return what follows from it."""
        gap = self._gap(tenure, position)
        log_ = log.bind(sink=self._name, partition=str(tenure.partition), problem=gap.problem)
        if self._settings.on_missing_records == "continue" and gap.overtaken:
            log_.error("records_missing", continues_at=position.low)
            return Hole(gap.problem, position.offset, position.low)
        log_.error("partition_stopped", ways_out=gap.ways_out)
        return Hole(gap.problem, position.offset, None)

    # ── one partition ──────────────────────────────────────────────────────────────────

    def _hold(self, tenure: Tenure, hole: Hole | None) -> None:
        """Export a partition in ``tenure``, and in those that follow it, until it is let go of."""
        self._drop(tenure.partition)
        export = self._begin(tenure, None, hole)
        self._keepers[tenure.partition] = self._tasks.start(f"sink {self._name}", self._keep(export))

    def _begin(
        self, tenure: Tenure, refused: RefusedWindow | None, hole: Hole | None = None
    ) -> PartitionExport:
        assert self._to is not None  # no partition comes before open()
        partition = tenure.partition
        self._transactions.certain(partition, tenure.position.offset)
        export = PartitionExport(self._to, tenure, refused=refused, hole=hole)
        self._exports[partition] = export
        return export

    async def _keep(self, export: PartitionExport) -> None:
        """Run ``export`` and those that come after it. Each one begins in a tenure of its own."""
        while (restart := await export.run()) is not None:
            self._calls.status.forget(export.tenure.partition)
            # A transaction that is under way in the thread would be committed after the rewind: the
            # generation of the group stays the same.
            await self._transactions.idle()
            tenure = await export.tenure.rewind(restart.to)
            gone = restart.to is None and not tenure.position.readable
            hole = self._hole(tenure, tenure.position) if gone else None
            export = self._begin(tenure, restart.refused, hole)

    async def _finish(self, partitions: Collection[Partition], reason: str, deadline: float) -> None:
        ending = [export for p in partitions if (export := self._exports.get(p))]
        await asyncio.gather(*(export.finish(reason, deadline) for export in ending))
        for partition in partitions:
            self._let_go(partition)  # also one that was begun again meanwhile

    def _let_go(self, partition: Partition) -> None:
        self._drop(partition)
        self._transactions.forget(partition)
        self._calls.forget(partition)
        self._stops.forget(partition)

    def _drop(self, partition: Partition) -> None:
        self._calls.status.forget(partition)
        if export := self._exports.pop(partition, None):
            export.drop()
        if keeper := self._keepers.pop(partition, None):
            self._tasks.cancel(keeper)

    # ── what a partition calls ─────────────────────────────────────────────────────────

    async def topic_id(self) -> str:
        """Return the id that the output topic has now."""
        assert self._identity is not None  # no partition comes before open()
        return await self._identity.now()

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Do work that would hold up the event loop."""
        await self._calls.in_thread(function)

    def committed(self, partition: Partition, offset: int) -> None:
        """Learn that ``offset`` is committed. What stopped the partition did so at its committed offset, so
        it is over beyond that.
        """
        self._transactions.certain(partition, offset)
        export = self._exports.get(partition)
        if export is not None and not export.stopped and offset > export.tenure.position.offset:
            self._stops.forget(partition)
