"""One partition of the output topic on its way to one sink, in one tenure.

Two tasks share the work. One **fills**: it takes the chunks that wait in the inbox, cuts them into windows as
far as there is room, and asks for more or fewer chunks. The other one **delivers**: it takes the partition
over, and exports one closed window after the other. Whoever takes the partition over next finds the plan
beside the committed offset and delivers exactly the same window again.

The stage starts :meth:`PartitionExport.run` and calls the other methods. Everything lives on the event loop.
What happens between two ``await`` is atomic: in particular a slice of a chunk is in a window as a whole or
not at all. :mod:`flagstream.export.phases` has the phases.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from flagstream.chunk import Chunk
from flagstream.errors import OwnershipLost, PartitionStopped, SinkRefused
from flagstream.export.commits import PartitionCommits
from flagstream.export.cutter import Cutter
from flagstream.export.destination import Destination, Hole, Stop
from flagstream.export.filling import Filling
from flagstream.export.first_look import first_look
from flagstream.export.phases import Event, Phase, Phases, UnknownTransition
from flagstream.export.restarts import RefusedWindow, Restart, StartAgain
from flagstream.export.takeover import check_topic
from flagstream.export.windows import ClosedWindow
from flagstream.kafka.tenure import Tenure
from flagstream.operate import metrics
from flagstream.operate.tasks import TaskEnded

log = structlog.get_logger(__name__)


class PartitionExport:
    """Exports a partition from the position of ``tenure`` on, until :meth:`run` returns.

    ``refused`` is a window that becomes dead letters, unless the partition has been committed beyond it: a
    transaction may have ended while the partition was started again. ``hole``: the records at the position
    are deleted.
    """

    def __init__(
        self,
        to: Destination,
        tenure: Tenure,
        *,
        refused: RefusedWindow | None = None,
        hole: Hole | None = None,
    ) -> None:
        self.tenure = tenure
        self.hole = hole
        self._at_hole = hole is not None
        """Whether the export begins at a hole: it takes nothing, whatever its tenure read before."""
        self._to = to
        self._refused: SinkRefused | None = None
        if refused is not None and refused.position == tenure.position.committed:
            self._refused = refused.error
        self._phases = Phases(to.name, tenure.partition)
        self._stop: Stop | None = None
        self._restart: Restart | None = None
        self._commits = PartitionCommits(tenure, to.services.committed)
        self._filling = Filling(to, self._commits, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def stopped(self) -> str | None:
        """Why the partition waits for a person, or will after what it holds is delivered."""
        if self._phases.ended:
            return None
        if self._stop is not None:
            return self._stop.problem
        return self.hole.problem if self.hole is not None and self.hole.resume_at is None else None

    @property
    def ended(self) -> bool:
        """Whether nothing of this export happens any more."""
        return self._phases.ended

    # ── what the stage calls ────────────────────────────────────────────────────────────

    async def run(self) -> Restart | None:
        """Take the partition over, then export it until the export ends. Return how the stage starts the
        partition again; None if it does not.
        """
        if not self.ended:
            self._tasks = [
                asyncio.create_task(self._guarded(work), name=f"export {self.tenure.partition}")
                for work in (self._fill, self._deliver)
            ]
            try:
                await asyncio.wait(self._tasks)
            finally:
                self.drop()
        return self._restart

    def accept(self, chunk: Chunk) -> None:
        """Take the next chunk of the partition. One that does not join onto the last one ends the export, and
        the partition is started again.
        """
        if self._at_hole or chunk.epoch != self.tenure.epoch or not self._phases.duties.takes:
            chunk.weight.release()
            return
        if not self._filling.inbox.add(chunk):
            self._not_joined(chunk)
        self._turn.set()

    def give_back(self) -> None:
        """Drop the chunks that wait for room; they are fetched again when there is some. What comes before a
        hole is kept: Kafka has it no longer.
        """
        if self._phases.phase in (Phase.TAKING_OVER, Phase.EXPORTING) and self.hole is None:
            self._filling.inbox.give_back()
            self._turn.set()

    def overtaken(self, hole: Hole) -> None:
        """Deliver all records before ``hole``, however long it takes, then do what it says. The stage has
        paused the partition.

        Of a window that is repeated and whose end was deleted, nothing is delivered: the next export does
        that.
        """
        self.hole = hole
        if self._phases.phase is Phase.EXPORTING:
            self._phases.enter(Event.HOLE)
        self._turn.set()

    def look_again(self) -> None:
        """Start again at the committed offset, as another owner would, if the partition has stopped: the
        reason may be gone.
        """
        if self._phases.phase is Phase.STOPPED:
            self._end(Event.LOOK_AGAIN, self._again)

    async def finish(self, reason: str, deadline: float) -> None:
        """Close the open window and deliver what fits until ``deadline`` (event loop time). Then the export
        has ended.
        """
        if self.ended:
            return
        self._phases.enter(Event.GIVEN_AWAY)
        cutter, queue = self._filling.cutter, self._filling.queue
        if cutter is not None:
            cutter.asked = reason
            self._turn.set()
            loop = asyncio.get_running_loop()
            while (cutter.asked or queue) and not self._phases.ended and loop.time() < deadline:
                await self._change(deadline)
        if queue:
            self._log.info("left_to_next_owner", windows=len(queue), next=str(queue[0].range))
        self._end(Event.FINISHED)

    def drop(self) -> None:
        """End the export; nothing of it is committed from here on."""
        self._end(Event.LOST)

    # ── what the memory budget calls ────────────────────────────────────────────────────

    @property
    def closable(self) -> int:
        """See :class:`flagstream.export.budget.Tenant`: only what could be delivered right away helps."""
        return self._filling.closable

    def close_for_memory(self) -> None:
        """Close the open window. Another partition may be the caller: an error is this partition's."""
        try:
            self._filling.close("memory")
            self._changed.set()
        except Exception as error:
            self._unforeseen(error)

    def wake(self) -> None:
        """Look again whether there is room."""
        self._turn.set()

    # ── filling: the first task ─────────────────────────────────────────────────────────

    async def _fill(self) -> None:
        """Cut what waits into windows, whenever something has happened."""
        now = asyncio.get_running_loop().time()
        while not self.ended:
            self._turn.clear()
            self._advance(now)
            await self._fetch()
            now = await self._next_turn()

    async def _next_turn(self) -> float:
        """Wait until something has happened or is due. Return the time then."""
        until = self._filling.deadline
        if self._stop is not None and self._phases.phase is Phase.STOPPED:
            until = self._stop.look_at
        try:
            async with asyncio.timeout_at(until):
                await self._turn.wait()
        except TimeoutError:
            return max(until or 0.0, asyncio.get_running_loop().time())  # a timer may fire a little early
        return asyncio.get_running_loop().time()

    def _advance(self, now: float) -> None:
        """Take and cut all that is possible now, then follow what came of it."""
        early = "overtaken" if self._phases.phase is Phase.CATCHING_UP else None
        filling = self._filling
        try:
            while self._phases.duties.cuts and filling.joins and filling.step(now, early):
                self._changed.set()
        except PartitionStopped as error:
            self._wait_for_a_person(error, at=Event.BAD_RECORD)
        if not filling.joins:
            self._not_joined(filling.inbox.first())
        match self._phases.phase:
            case Phase.STOPPING if not filling.queue:
                self._phases.enter(Event.QUEUE_EMPTY)
            case Phase.STOPPED if self._stop and self._stop.look_at is not None and now >= self._stop.look_at:
                self._end(Event.LOOK_AGAIN, self._again)
            case Phase.CATCHING_UP if self.hole is not None and self._caught_up(self.hole):
                if self.hole.resume_at is not None:
                    self._end(Event.BEFORE_HOLE_COMMITTED, Restart(to=self.hole.resume_at))
                else:
                    self._phases.enter(Event.STOPPED_AT_HOLE)
                    self._stop = Stop(self.hole.problem)
                    filling.forget_open()
        self._changed.set()

    def _caught_up(self, hole: Hole) -> bool:
        """Return whether all that can be had of the records before ``hole`` is committed. What was given back
        cannot be had.
        """
        inbox = self._filling.inbox
        return self._filling.empty and (inbox.given_back or inbox.expected >= hole.start)

    async def _fetch(self) -> None:
        """Have Kafka fetch more or nothing, after what is in the inbox. At a hole and at the end nothing
        comes anyway.
        """
        inbox, phase = self._filling.inbox, self._phases.phase
        if phase in (Phase.STOPPING, Phase.STOPPED):
            await inbox.pause()
        elif phase in (Phase.TAKING_OVER, Phase.EXPORTING) and self.hole is None:
            if inbox:
                await inbox.pause()
            elif inbox.paused and (not inbox.waits_for_room or self._filling.has_room()):
                await inbox.resume()

    # ── delivering: the second task ─────────────────────────────────────────────────────

    async def _deliver(self) -> None:
        """Take the partition over, then export one window after the other."""
        if self._at_hole and self.hole is not None:
            self._begin_at_hole(self.hole)
            return
        self._filling.cutter = await first_look(self._to, self._commits, self._refused)
        self._phases.enter(Event.TAKEN_OVER)
        if self.hole is not None:
            self._phases.enter(Event.HOLE)
        self._turn.set()
        while True:
            while not self._filling.queue:
                await self._change()
            await self._export(self._filling.queue[0], self._filling.cutter)
            self._filling.exported()
            self._turn.set()
            self._changed.set()

    def _begin_at_hole(self, hole: Hole) -> None:
        if hole.resume_at is not None:
            raise StartAgain(Event.OFFSETS_LOST, Restart(to=hole.resume_at))
        self._phases.enter(Event.NOT_TAKEN_OVER)
        self._stop = Stop(hole.problem)
        self._turn.set()

    async def _export(self, window: ClosedWindow, cutter: Cutter) -> None:
        """Bring ``window`` to its sink and commit its end."""
        commits, to = self._commits, self._to
        # Its records are of the topic that has the name now, or of the one that we took over.
        topic_id = await to.services.topic_id()
        check_topic(self.tenure.partition, commits.topic_id, topic_id, to.unit)
        commits.topic_id = commits.topic_id or topic_id
        # Before it is planned: what a revoke interrupts here is cut again by the next owner.
        await to.services.in_thread(window.encode)
        self._filling.charge()  # what waited to be encoded is gone
        await cutter.route_of(window).export(window, lambda: self._filling.following, commits)
        if window.plan is not None:
            self._refused = None  # it was this window that the sink refused
        metrics.WINDOWS.labels(to.name, window.closed_by).inc()

    # ── the end ────────────────────────────────────────────────────────────────────────

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run :meth:`_contain`; a transition that the table does not have is an error of its own handlers."""
        try:
            await self._contain(work)
        except UnknownTransition as error:
            self._unforeseen(error)

    async def _contain(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one of the two tasks. Whatever it raises ends the export or stops the partition, at once: after
        an error that nobody foresaw, half of a slice may be in a window, and nothing more of it is committed.
        """
        try:
            await work()
        except asyncio.CancelledError:
            if not self.ended:
                self._unforeseen(TaskEnded(f"a task of {self.tenure.partition} was cancelled"))
            raise
        except StartAgain as again:
            self._end(again.event, again.restart)
        except OwnershipLost as error:
            self._log.info("ownership_lost", error=str(error))
            self.drop()
        except PartitionStopped as error:
            self._filling.queue.clear()
            self._wait_for_a_person(error, at=Event.CANNOT_DELIVER)
        except Exception as error:
            self._unforeseen(error)

    def _wait_for_a_person(self, error: PartitionStopped, at: Event) -> None:
        """Note why the partition stops. Windows that were closed before a record that is the problem may be
        nowhere else by now: they are still delivered.
        """
        self._log.error("partition_stopped", problem=str(error))
        if self._phases.phase is Phase.ENDING and at is Event.CANNOT_DELIVER:
            self._end(at)
            return
        self._phases.enter(Event.NOT_TAKEN_OVER if self._phases.phase is Phase.TAKING_OVER else at)
        now = asyncio.get_running_loop().time()
        self._stop = Stop(str(error), None if error.look_again is None else now + error.look_again)
        self._filling.forget_open()
        self._turn.set()
        self._changed.set()

    def _not_joined(self, chunk: Chunk) -> None:
        self._log.error("chunk_out_of_order", expected=self._filling.inbox.expected, found=chunk.start)
        self._end(Event.NOT_JOINED, self._again)

    def _unforeseen(self, error: Exception) -> None:
        self._to.services.fail(error)
        self._end(Event.UNFORESEEN)

    @property
    def _again(self) -> Restart:
        """From the committed offset. A refused window is still to become dead letters."""
        if self._refused is None:
            return Restart()
        return Restart(refused=RefusedWindow(self._refused, self._commits.origin.committed))

    def _end(self, event: Event, restart: Restart | None = None) -> None:
        """Do nothing more, and give all memory back."""
        if self.ended:
            return
        self._phases.enter(event)
        self._restart = restart
        self._filling.forget_all()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._turn.set()
        self._changed.set()

    async def _change(self, until: float | None = None) -> None:
        """Wait until a window was closed or exported, or the export has ended, at most until ``until``."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()

    @property
    def _log(self) -> Any:
        return log.bind(sink=self._to.name, partition=str(self.tenure.partition))
