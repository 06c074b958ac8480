"""One partition of the output topic on its way to one sink, from assignment to loss.

Each window goes through the same steps: it fills, is **planned** (its end is written into the commit of its
start), **delivered** under names made of its range, and **committed**. A window never commits past an earlier
one. Whoever takes the partition over finds the plan beside the committed offset and delivers exactly the same
window again.

The agent calls :meth:`PartitionExport.accept`; a task of each partition runs :meth:`PartitionExport.run`.
Both live on the event loop, and every step between two ``await`` is atomic.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import structlog

from flagstream.chunk import Chunk, Partition
from flagstream.crashpoints import crash_point
from flagstream.dead_letters import DeadLetter
from flagstream.errors import (
    ObjectConflict,
    OwnershipLost,
    PartitionStopped,
    RangesRefused,
    RecordsMissing,
    SinkRefused,
)
from flagstream.export.budget import WINDOW_OVERHEAD, MemoryBudget
from flagstream.export.parts import Course, Refusals
from flagstream.export.sending import send_in_parts
from flagstream.export.takeover import (
    FixedWindow,
    Inheritance,
    adopt,
    check_names,
    check_topic,
    first_name,
    go_on_with,
    repeat,
)
from flagstream.export.windows import ClosedWindow, Limits, OpenWindow
from flagstream.kafka.commit_metadata import Committed, Division, MetadataUnreadable, Plan
from flagstream.kafka.tenure import Tenure
from flagstream.operate import metrics
from flagstream.operate.tasks import Tasks
from flagstream.sinks.protocol import (
    ConfiguredTransactionalSink,
    Delivery,
    PartsSink,
    Sink,
    Transaction,
    TransactionalSink,
)
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.protocol import Decoder
from flagstream.units import MIB
from flagstream.window import Manifest, OffsetRange

log = structlog.get_logger(__name__)
T = TypeVar("T")

SLICE = 1_000
"""Records taken at a time, after which size and memory are looked at."""
SLICE_BYTES = MIB
"""What they weigh at most, unless it is a single one: validation and encoding make copies."""
DROPPED = -1
"""The epoch of a partition that is let go of; no chunk has it."""
QUEUE = 2
"""Closed windows of a partition: one is delivered, one waits after it; the next one fills meanwhile."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """A planned window that is to become dead letters: the sink refused it with ``error``. ``position`` is
    the offset that was committed with its plan.
    """

    error: SinkRefused
    position: int | None


class Kafka(Protocol):
    """What a partition asks of the stage: transactions, and calls of the sink off the event loop."""

    async def topic_id(self) -> str: ...
    def committed(self, partition: Partition, offset: int) -> None: ...
    async def transact(
        self,
        tenure: Tenure,
        produce: Callable[[Transaction], None],
        letters: list[DeadLetter],
        offset: int,
        metadata: str,
    ) -> None: ...
    async def persist(self, what: str, tenure: Tenure, function: Callable[[], T]) -> T: ...
    async def in_thread(self, function: Callable[[], None]) -> None: ...
    def restart(
        self, tenure: Tenure, *, condemned: Condemned | None = None, to: int | None = None
    ) -> None: ...
    def fail(self, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where windows go and under which rules."""

    name: str
    sink: Sink[Any] | ConfiguredTransactionalSink[Any]
    settings: SinkSettings
    limits: Limits
    dead: Callable[[SinkRefused], TransactionalSink[Any]]
    """The dead-letter topic, for a window that the sink refused with this error."""
    decoder: Decoder | None = None
    """Of an output topic that is not JSON."""
    unit: str = "windows"
    """What the sink makes of windows, for texts."""
    refusals: Refusals = field(default_factory=Refusals)


class PartitionExport:
    """``condemned`` says nothing of a partition that has been committed beyond it: a transaction may have
    ended while the partition was begun again.
    """

    def __init__(
        self,
        to: Destination,
        tenure: Tenure,
        kafka: Kafka,
        budget: MemoryBudget,
        condemned: Condemned | None = None,
    ) -> None:
        self.partition = partition = tenure.partition
        self.epoch = tenure.epoch
        self.stopped: str | None = None
        self.overtaken = False
        """Retention has deleted what comes next: windows close when no more is held."""
        self._to = to
        self._tenure = tenure
        self._origin = position = tenure.position
        self._kafka = kafka
        self._budget = budget
        self._condemned: SinkRefused | None = None
        if condemned is not None and condemned.position == position.committed:
            self._condemned = condemned.error
        self._log = log.bind(sink=to.name, partition=str(partition))
        self._topic_id = ""
        self._position = self._named = position.offset
        self._fixed: deque[FixedWindow] = deque()
        self._filling: OpenWindow | None = None
        self._queue: deque[ClosedWindow] = deque()
        self._planned: ClosedWindow | None = None
        self._leftover: deque[Chunk] = deque()
        self._given_back_to = 0.0
        """Chunks up to this offset may arrive that were under way when those before them were given back."""
        self._held: Sequence[OffsetRange] = ()
        self._ready = False
        self._paused = False
        self._given_back = self._waits_for_room = False
        self._finishing = False
        self._filling_up = False
        self._charged = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks = Tasks(kafka.fail)
        self._task = self._tasks.start(f"export {partition}", self.run())
        budget.enter(self)

    @property
    def origin(self) -> int:
        """The offset that it was begun at."""
        return self._origin.offset

    @property
    def busy(self) -> bool:
        """Whether it still delivers what it held when it stopped, or when retention overtook it."""
        return bool(self._queue) or (self.overtaken and (bool(self._leftover) or self._filling is not None))

    # ── filling ────────────────────────────────────────────────────────────

    def accept(self, chunk: Chunk) -> None:
        """Take the next chunk of the partition; whatever does not join onto the last one starts the partition
        over.
        """
        if chunk.epoch != self.epoch or self._finishing or self.stopped:
            chunk.weight.release()
            return
        if chunk.start != self._expected:
            chunk.weight.release()
            if chunk.end > self._given_back_to:
                self._start_over(chunk)
            return
        self._given_back_to = 0.0
        self._leftover.append(chunk)
        self.unblock()
        self._happened()

    @property
    def _expected(self) -> int:
        """The offset that the next chunk has to start at: nothing before it may be stepped over."""
        return self._leftover[-1].end if self._leftover else self._next_offset

    @property
    def _next_offset(self) -> int:
        """The first offset that is in no window yet."""
        return self._position if self._filling is None else self._filling.next

    def _start_over(self, chunk: Chunk) -> None:
        self._log.error("chunk_out_of_order", expected=self._expected, found=chunk.start)
        self._kafka.restart(self._tenure, condemned=self._still_condemned)
        self.drop()

    @property
    def _still_condemned(self) -> Condemned | None:
        return None if self._condemned is None else Condemned(self._condemned, self._origin.committed)

    def unblock(self) -> None:
        """Fill windows with the chunks that wait, as far as there is room; pause or resume fetching
        accordingly.
        """
        if self._filling_up or self.epoch == DROPPED:
            return  # memory that this very loop has freed; it will look again
        with self._failing_whole():
            self._fill()
            self._charge()
            if self.stopped or self.overtaken or self.epoch == DROPPED:
                return
            if self._leftover and not self._paused:
                self._paused = True
                self._call(self._tenure.pause())
            elif self._paused and not self._leftover and not self._waits_for_room:
                self._paused = False
                if self._given_back:
                    self._given_back = False
                    self._call(self._fetch_again(self._next_offset))
                else:
                    self._call(self._tenure.resume())

    async def _fetch_again(self, start: int) -> None:
        until = await self._tenure.fetch_again(start)
        if self._given_back_to == math.inf:  # none of them is there yet
            self._given_back_to = until

    def give_back(self) -> None:
        """Drop the chunks that wait for room; they are fetched again when there is some. What retention has
        overtaken is kept: nobody else has it.
        """
        if self._leftover and self._paused and not self.stopped and not self.overtaken:
            self._forget_leftover()
            self._given_back_to = math.inf
            self._given_back = self._waits_for_room = True

    def _fill(self) -> None:
        self._filling_up = True
        try:
            while self._ready and not self.stopped and self._leftover and self._has_room():
                self._take()
            self._close_if_full()
            if self._waits_for_room and self._ready and not self.stopped and self._has_room():
                self._waits_for_room = False
        except (RecordsMissing, PartitionStopped) as error:
            self._stop_filling(error)
        finally:
            self._filling_up = False

    @contextmanager
    def _failing_whole(self) -> Iterator[None]:
        """Around whatever the agent, a timer or another partition calls here. What nobody foresaw may have
        left half of a chunk in a window, and none of them would stop for it: the partition commits nothing
        from here on, not even what a shutdown would still deliver, and the process ends.
        """
        try:
            yield
        except Exception as error:
            self._kafka.fail(error)
            self.drop()

    def _has_room(self) -> bool:
        self._close_if_full()
        if self._filling is not None and self._filling.full_by:
            return False
        if self._fixed or (self._filling is not None and self._filling.until is not None):
            return True  # repeating a plan comes first and above the budget
        if self._budget.full:
            self._charge()
            self._budget.relieve()
            if self.epoch == DROPPED:  # by what its own window ran into
                return False
        return not self._budget.full or (self._filling is None and not self._queue)

    def _take(self) -> None:
        chunk = self._leftover[0]
        if chunk.start != self._next_offset:
            self._start_over(chunk)
            return
        filling = self._filling or self._begin()
        count = filling.room(chunk.records[: self._slice(chunk)])
        if count:
            filling.add(chunk.records[:count])
        elif self._to.settings.on_missing_records == "continue":
            filling.end_early()
        else:
            raise RecordsMissing(
                f"the window [{filling.named}, {filling.until}) of {self.partition} cannot be delivered as "
                "it was planned: its last record is no longer in the topic"
            )
        if count < len(chunk.records):
            left = chunk.records[count:]
            chunk.weight.become(chunk.weight.bytes * len(left) // len(chunk.records))
            self._leftover[0] = replace(chunk, start=filling.next, records=left)
        else:
            self._leftover.popleft().weight.release()
        self._charge()

    @staticmethod
    def _slice(chunk: Chunk) -> int:
        """How many records of ``chunk`` are taken at a time."""
        if chunk.weight.bytes <= SLICE_BYTES:
            return SLICE
        return max(1, min(SLICE, SLICE_BYTES * len(chunk.records) // chunk.weight.bytes))

    def _begin(self) -> OpenWindow:
        fixed = self._fixed.popleft() if self._fixed else None
        until, plan = (fixed.end, fixed.plan) if fixed else (None, None)
        sink: Any = self._to.sink
        if self._condemned is not None and plan is not None:
            sink = self._to.dead(self._condemned)
        self._filling = OpenWindow(
            sink,
            self.partition,
            self._position,
            self._named,
            limits=self._to.limits,
            sink_name=self._to.name,
            until=until,
            plan=plan,
            decoder=self._to.decoder,
        )
        if until is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._to.settings.flush_interval, self._due)
        return self._filling

    def _due(self) -> None:
        self._timer = None
        if self._filling is not None and len(self._queue) < QUEUE:
            with self._failing_whole():
                self._close("time")
        # else it is closed as soon as there is a place behind the window that is being delivered

    def _close_if_full(self) -> None:
        if self._filling is None or len(self._queue) >= QUEUE:
            return
        if reason := self._filling.full_by:
            self._close(reason)
        elif self._timer is None and self._filling.until is None:
            self._close("time")
        elif self.overtaken and self._filling.until is None and not self._leftover:
            self._close("overtaken")

    def _close(self, reason: str) -> None:
        assert self._filling is not None
        closed = self._filling.close(reason, self._topic_id)
        closed.unknown = tuple(sorted(self._filling.unknown))
        self._filling = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._position = closed.range.end
        self._named = self._next_name(closed)
        self._queue.append(closed)
        self._charge()
        self._log.debug(
            "window_closed", range=str(closed.range), events=closed.events, bytes=closed.size, by=reason
        )
        self._happened()

    def _next_name(self, window: ClosedWindow) -> int:
        """Where the range of the window behind ``window`` starts: one that left no object is part of it, so
        ranges tile.
        """
        if window.range in self._held or (window.manifest is not None and window.sink is self._to.sink):
            return window.range.end
        if self._condemned is not None and window.plan is not None:
            return self._condemned.taken_until(window.range.start, window.range.end)
        return window.range.start

    @property
    def closable(self) -> int:
        """See :class:`flagstream.export.budget.Tenant`: only what could be delivered right away helps."""
        if self._filling is None or self._filling.until is not None or self._queue or self._filling.empty:
            return 0
        return self._filling.memory + WINDOW_OVERHEAD

    def close_for_memory(self) -> None:
        with self._failing_whole():
            self._close("memory")

    def _charge(self) -> None:
        held = sum(closed.bytes + WINDOW_OVERHEAD for closed in self._queue)
        if self._filling is not None:
            held += self._filling.memory + WINDOW_OVERHEAD
        change, self._charged = held - self._charged, held
        if change:
            self._budget.charge(change)

    # ── delivering ────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Take the partition over, then export one window after the other until cancelled, or until a record
        stops it and the windows before that are committed.
        """
        try:
            await self._take_over()
            while (window := await self._next()) is not None:
                await self._export(window)
                self._queue.popleft()
                self.unblock()
                self._happened()
        except OwnershipLost as error:
            self._log.info("ownership_lost", error=str(error))
        except (ObjectConflict, RecordsMissing, PartitionStopped, MetadataUnreadable) as error:
            self._stop(error)
        except Exception as error:
            self._kafka.fail(error)
            self.drop()

    def _happened(self) -> None:
        """Wake who waits for it: the export itself, and who waits for the export. Each has an event of its
        own, or one would clear it before the other has begun to wait.
        """
        self._wake.set()
        self._changed.set()

    async def _next(self) -> ClosedWindow | None:
        """The next window; None: the partition has stopped, and there will be none."""
        while not self._queue:
            if self.stopped:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._queue[0]

    async def _export(self, window: ClosedWindow) -> None:
        # Its records are of the topic that has the name now, or of the one that we took over.
        topic_id = await self._kafka.topic_id()
        check_topic(self.partition, self._topic_id, topic_id, self._to.unit)
        self._topic_id = self._topic_id or topic_id
        # Before it is planned: what a revoke interrupts here is cut anew by the next owner.
        await self._kafka.in_thread(window.encode)
        self._charge()  # what waited to be encoded is gone
        if isinstance(window.sink, TransactionalSink):
            await self._commit(window)
            if window.manifest is not None and window.sink is self._to.sink:
                self._delivered(window, Delivery(created=window.events, existing=0, bytes=window.size))
        else:
            if window.manifest is not None and await self._plan(window):
                await self._deliver(window, window.sink)
            await self._commit(window)
        if window.plan is not None:
            self._condemned = None  # it was this window that the sink refused
        crash_point("export.committed")
        metrics.WINDOWS.labels(self._to.name, window.closed_by).inc()
        refused = 0 if window.sink is self._to.sink else len(window.payload or ())
        metrics.EXPORTED.labels(self._to.name).inc(window.events - refused)
        if refused:
            metrics.REJECTED.labels(self._to.name, "refused").inc(refused)

    async def _plan(self, window: ClosedWindow) -> bool:
        """Make the window's cut durable. False: there is nothing to deliver."""
        if window.plan is not None:
            if not self._as_planned(window, window.plan):
                return False
        elif window is not self._planned and not self._rediscovered(window):
            crash_point("export.planning")
            text = self._metadata(window.position, window.range.start, window)
            await self._commit_offset(window.position, text)
        crash_point("export.planned")
        return True

    def _rediscovered(self, window: ClosedWindow) -> bool:
        """Whether it is the window that was found after the group's offsets were lost. Its cut needs no plan,
        as the sink holds it; and nothing is committed before it is seen to be of this topic.
        """
        return self._origin.committed is None and window.range in self._held

    def _as_planned(self, window: ClosedWindow, plan: Plan) -> bool:
        """A plan that is repeated has to find the records that it was made of. Where they are gone and we are
        told to go on, what is left is delivered, unless all of it is stored already (False).
        """
        found = window.manifest
        if found is not None and (found.records, found.digest) == (plan.records, plan.digest):
            return True
        problem = (
            f"the window {window.range} cannot be delivered as it was planned: {plan.records} records were "
            f"planned, {window.events} are in the topic"
        )
        if self._to.settings.on_missing_records != "continue":
            raise RecordsMissing(problem)
        stored = window.range in self._held
        lost = 0 if stored else plan.records - window.events
        self._log.error("records_missing", problem=problem, stored_before=stored, lost=lost)
        return not stored

    async def _deliver(self, window: ClosedWindow, sink: Sink[Any]) -> None:
        manifest = window.manifest
        assert manifest is not None

        def deliver() -> Delivery:
            delivery = sink.deliver(manifest, window.payload)
            crash_point("export.delivering")
            return delivery

        # What is there in part can not become dead letters: a refusal of it is not told.
        what = "adopt" if self._rediscovered(window) else "deliver"
        try:
            if isinstance(sink, PartsSink):
                delivery = await self._deliver_in_parts(window, manifest, sink)
            else:
                delivery = await self._kafka.persist(what, self._tenure, deliver)
        except ObjectConflict as error:
            if not self._rediscovered(window):
                raise
            raise PartitionStopped(
                f"{error}. The group's offsets were lost, and this is not what the topic holds: it was "
                f"probably recreated. Way out: give the sink another place, or remove its {self._to.unit}. "
                f"If it was not recreated, reset the group's offset of this partition to {window.range.end}"
            ) from error
        except SinkRefused as error:
            # Only told when refused windows are to become dead letters. Their records are no longer in
            # memory.
            self._log.error("window_refused", range=str(window.range), events=window.events, error=str(error))
            condemned = Condemned(error, window.position)
            self._kafka.restart(self._tenure, condemned=condemned)
            raise OwnershipLost(f"{window.range} was refused and becomes dead letters") from error
        crash_point("export.delivered")
        self._delivered(window, delivery)

    async def _deliver_in_parts(
        self, window: ClosedWindow, manifest: Manifest, sink: PartsSink[Any]
    ) -> Delivery:
        course = Course(
            window.range,
            sink.parts(window.payload),
            self._to.refusals,
            inherited=window.plan is not None,
            division=window.plan.division if window.plan is not None else None,
            gives_up=self._to.settings.on_refused == "dead_letter",
        )

        async def commit(division: Division) -> None:
            text = self._metadata(window.position, window.range.start, window, division)
            await self._commit_offset(window.position, text)

        try:
            return await send_in_parts(
                sink,
                manifest,
                course,
                persist=lambda function: self._kafka.persist("deliver", self._tenure, function),
                commit=commit,
                refused=metrics.DELIVERY_FAILURES.labels(self._to.name, "refused").inc,
                log=self._log,
            )
        except RangesRefused:
            self._count(Delivery(course.accepted, 0, course.bytes))
            raise

    def _delivered(self, window: ClosedWindow, delivery: Delivery) -> None:
        self._log.info(
            "window_delivered",
            range=str(window.range),
            events=window.events,
            bytes=delivery.bytes,
            closed_by=window.closed_by,
            already_there=delivery.existing,
            taken_over=window.plan is not None,
        )
        self._count(delivery)

    def _count(self, delivery: Delivery) -> None:
        metrics.OBJECTS.labels(self._to.name, "created").inc(delivery.created)
        metrics.OBJECTS.labels(self._to.name, "existing").inc(delivery.existing)
        metrics.EXPORTED_BYTES.labels(self._to.name).inc(delivery.bytes)

    async def _commit(self, window: ClosedWindow) -> None:
        """Commit the window's end; the plan of the window behind it travels along."""
        following = self._queue[1] if len(self._queue) > 1 else None
        if following is not None and (following.plan or following.manifest is None or following.rejects):
            following = None
        if isinstance(self._to.sink, TransactionalSink):
            following = None  # what is committed together with its records needs no plan
        if self._to.refusals.divided:
            following = None  # an undivided plan that somebody takes over would not be divided
        text = self._metadata(window.range.end, self._next_name(window), following)
        produce = _nothing
        if window.manifest is not None and isinstance(window.sink, TransactionalSink):
            sink, manifest, payload = window.sink, window.manifest, window.payload
            produce = lambda transaction: sink.deliver_in(transaction, manifest, payload)  # noqa: E731
        if produce is not _nothing or window.rejects:
            await self._kafka.transact(self._tenure, produce, window.rejects, window.range.end, text)
        else:
            await self._commit_offset(window.range.end, text)
        self._planned = following

    async def _commit_offset(self, offset: int, text: str) -> None:
        await self._tenure.commit(offset, text)
        self._kafka.committed(self.partition, offset)

    def _metadata(
        self,
        offset: int,
        named: int,
        planned: ClosedWindow | None,
        division: Division | None = None,
        *,
        asked: bool = True,
    ) -> str:
        plan = None
        if planned is not None and planned.manifest is not None:
            manifest = planned.manifest
            plan = Plan(
                manifest.range.end,
                manifest.records,
                manifest.digest,
                manifest.config,
                planned.unknown,
                division,
            )
        return Committed(
            plan,
            range_start=None if named == offset and asked else named,
            topic_id=self._topic_id,
            group_start=self._tenure.group_start,
        ).text()

    # ── taking over ────────────────────────────────────────────────────────────

    async def _take_over(self) -> None:
        """Find out where the last owner left off: its plan, or objects that it stored without our knowing."""
        origin, settings = self._origin, self._to.settings
        found = Committed.parse(origin.metadata)
        if found.unasked(origin.committed):
            origin = self._origin = replace(origin, committed=None)
        topic_id = await self._kafka.topic_id()
        check_topic(self.partition, found.topic_id, topic_id, self._to.unit)
        self._topic_id = topic_id or found.topic_id
        self._named = first_name(origin, found)
        held = None
        sink = self._to.sink
        # A sink that refuses a window may refuse to list as well.
        if self._condemned is None and not isinstance(sink, TransactionalSink):
            # Lost offsets may have led to a start behind what is held, as "latest" does.
            start = self._named if origin.committed is not None else min(origin.low, self._named)
            held = await self._kafka.persist(
                "holdings", self._tenure, lambda: sink.holdings(self.partition, start)
            )
        self._held = held or ()
        if found.plan is not None:
            inherited = repeat(
                self.partition,
                origin,
                found.plan,
                self._named,
                held,
                self._to.sink.fingerprint,
                self._to.unit,
            )
        elif not held:
            inherited = Inheritance(self._named, [])
        else:
            if origin.committed is None:
                at = go_on_with(self.partition, origin, held, settings.on_lost_offsets, self._to.unit)
                if at != origin.offset:
                    self._kafka.restart(self._tenure, to=at)
                    raise OwnershipLost(f"{self.partition} starts again at {at}")
                self._log.error("offsets_lost", continues_at=at)
                held = self._held = [window for window in held if window.end > at]
            inherited = adopt(self.partition, origin, self._named, held, self._to.unit)
        check_names(self.partition, self._held, inherited)
        if held and found.plan is None:
            self._log.warning("objects_adopted", windows=len(held), start=held[0].start, end=held[-1].end)
        for window in inherited.windows:
            if window.plan is not None:
                self._log.info(
                    "plan_taken_over", start=self._named, end=window.end, records=window.plan.records
                )
        self._named = inherited.named
        self._fixed.extend(inherited.windows)
        if isinstance(self._condemned, RangesRefused) and self._condemned.until is not None:
            # The rest of the window was never accepted under any id: it is planned again.
            self._fixed[0] = replace(self._fixed[0], end=self._condemned.until)
        await self.commit_start()
        self._ready = True
        self.unblock()

    async def commit_start(self, *, asked: bool = True) -> None:
        """Commit where "latest" is, for that is decided once, also if nothing comes before the next start.
        Unless the sink was ``asked`` what it holds, the next owner asks it as if nothing were committed.
        """
        origin = self._origin
        if origin.committed is None and self._tenure.group_start is not None:
            text = self._metadata(origin.offset, self._named, None, asked=asked)
            await self._commit_offset(origin.offset, text)

    # ── the end ────────────────────────────────────────────────────────────

    def _stop(self, problem: Exception) -> None:
        self._queue.clear()
        self._stop_filling(problem)

    def _stop_filling(self, problem: Exception) -> None:
        """Windows that are closed come before the record that is the problem, and may be nowhere else by now:
        they are still delivered.
        """
        self.stopped = str(problem)
        self._forget_open()
        self._happened()
        self._log.error("partition_stopped", problem=self.stopped)
        self._call(self._tenure.pause())
        if isinstance(problem, PartitionStopped) and problem.look_again is not None:
            self._timer = asyncio.get_running_loop().call_later(problem.look_again, self.begin_again)

    def begin_again(self) -> None:
        """Start over at the committed offset, as another owner would: what stopped the partition may be
        mended.
        """
        with self._failing_whole():
            self._kafka.restart(self._tenure, condemned=self._still_condemned)

    async def deliver_held(self, end: int) -> None:
        """Deliver all records before the offset ``end``, however long it takes: what comes next was deleted,
        and so may they have been. The caller has paused the partition. Returns when it has been done, or, if
        the partition has stopped or been dropped, when nothing more will be delivered.

        Records that were given back are held no longer.

        Of a window that is repeated and whose end was deleted, nothing is delivered: its successor does that.
        """
        self.overtaken = True
        self.unblock()
        end = min(end, self._expected) if self._given_back_to else end
        while self._queue or (not self.stopped and (self._expected < end or self._leftover)):
            if not await self._woken():
                return

    async def _woken(self, seconds: float | None = None) -> bool:
        """Wait until something has happened, at most for ``seconds``. False: nothing will any more."""
        self._changed.clear()
        waiter = asyncio.create_task(self._changed.wait())
        await asyncio.wait([waiter, self._task], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        return not self._task.done()

    async def finish(self, reason: str, deadline: float) -> None:
        """Close the filling window and deliver what fits until ``deadline`` (event loop time); then
        :meth:`drop`.
        """
        self._finishing = True
        filling = self._filling
        if filling is not None and filling.until is None and not filling.empty and len(self._queue) < QUEUE:
            with self._failing_whole():
                self._close(reason)
        loop = asyncio.get_running_loop()
        while self._queue and not self._task.done() and loop.time() < deadline:
            await self._woken(deadline - loop.time())
        if self._queue:
            self._log.info("left_to_next_owner", windows=len(self._queue), next=str(self._queue[0].range))
        self.drop()

    def drop(self) -> None:
        """Forget everything; nothing of it is committed from here on."""
        if self.epoch == DROPPED:
            return
        self.epoch = DROPPED
        self._tasks.cancel(self._task)
        self._empty()
        self._budget.leave(self)

    def _empty(self) -> None:
        self._queue.clear()
        self._forget_open()

    def _forget_open(self) -> None:
        """What is in no closed window."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget_leftover()
        self._filling = None
        self._charge()

    def _forget_leftover(self) -> None:
        for chunk in self._leftover:
            chunk.weight.release()
        self._leftover.clear()

    def _call(self, awaitable: Awaitable[object]) -> None:
        """Start a call whose outcome nobody waits for; it fails only when the partition is no longer ours."""

        async def call() -> None:
            await awaitable

        self._tasks.start(f"call for {self.partition}", call())


def _nothing(transaction: Transaction) -> None:
    """Only dead letters and the offset."""
