"""The ways of a window to its sink, one chosen for each sink when the worker starts.

:class:`PlannedRoute`: plan, deliver, commit. :class:`PartsRoute`: the same for a sink that sends a window in
parts. :class:`TransactionalRoute`: records and offset are one transaction. :class:`DeadLetterRoute` takes the
place of a sink's route for a window that the sink refused.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from flagstream.chunk import Partition
from flagstream.crashpoints import crash_point
from flagstream.dead_letters import DeadLetter
from flagstream.errors import ObjectConflict, PartitionStopped, RangesRefused, RecordsMissing, SinkRefused
from flagstream.export.commits import PartitionCommits
from flagstream.export.parts import Course, Refusals
from flagstream.export.phases import Event
from flagstream.export.refused import DeadLetterSink
from flagstream.export.restarts import RefusedWindow, Restart, StartAgain
from flagstream.export.sending import send_in_parts
from flagstream.export.takeover import unit_of
from flagstream.export.windows import ClosedWindow
from flagstream.kafka.commit_metadata import Division, Plan
from flagstream.kafka.tenure import Tenure
from flagstream.operate import metrics
from flagstream.sinks.protocol import (
    ConfiguredTransactionalSink,
    Delivery,
    PartsSink,
    Sink,
    Transaction,
    TransactionalSink,
    WindowEncoder,
)
from flagstream.sinks.settings import SinkSettings
from flagstream.window import Manifest, OffsetRange

log = structlog.get_logger(__name__)
T = TypeVar("T")
Following = Callable[[], ClosedWindow | None]
"""Returns the window whose plan travels with the next commit."""


class Calls(Protocol):
    """See :class:`flagstream.export.sink_calls.SinkCalls`."""

    @property
    def opened(self) -> bool: ...
    async def call_sink(self, what: str, tenure: Tenure, function: Callable[[], T]) -> T: ...


class Transactions(Protocol):
    """See :class:`flagstream.export.transactions.WindowTransactions`."""

    async def transact(
        self,
        tenure: Tenure,
        produce: Callable[[Transaction], None],
        letters: list[DeadLetter],
        offset: int,
        metadata: str,
    ) -> None: ...


class Route(Protocol):
    """The way of windows to one sink. Called on the event loop, for several partitions at once."""

    @property
    def fingerprint(self) -> str:
        """The sink's."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the sink can be asked what it holds. If not, :meth:`holdings` waits."""
        ...

    def begin(self, partition: Partition, range_start: int) -> WindowEncoder[Any]:
        """Return the encoder of a new window. No I/O."""
        ...

    def next_start(self, range: OffsetRange, *, exported: bool) -> int:
        """Return where the range of the window after ``range`` starts; ``exported``: whether it has records
        that are exported.
        """
        ...

    def announces(self, following: ClosedWindow) -> bool:
        """Return whether the plan of the window after the one that is committed travels with that commit."""
        ...

    async def holdings(self, tenure: Tenure, range_start: int) -> Sequence[OffsetRange] | None:
        """Return the ranges from ``range_start`` on that the sink holds; None if it cannot know."""
        ...

    async def export(self, window: ClosedWindow, following: Following, commits: PartitionCommits) -> None:
        """Export ``window``, which was encoded. Returns when its end is committed, with the plan of the
        window that ``following`` returns then, if there is one.

        Raises OwnershipLost, StartAgain, and whatever stops the partition.
        """
        ...


class PlannedRoute:
    """Plan, deliver, commit: for a sink outside Kafka."""

    def __init__(
        self, name: str, sink: Sink[Any], settings: SinkSettings, calls: Calls, transactions: Transactions
    ) -> None:
        self._name = name
        self._sink = sink
        self._settings = settings
        self._calls = calls
        self._transactions = transactions

    @property
    def fingerprint(self) -> str:
        return self._sink.fingerprint

    @property
    def ready(self) -> bool:
        return self._calls.opened

    def begin(self, partition: Partition, range_start: int) -> WindowEncoder[Any]:
        return self._sink.begin(partition, range_start)

    def next_start(self, range: OffsetRange, *, exported: bool) -> int:
        return range.end if exported else range.start

    def announces(self, following: ClosedWindow) -> bool:
        return following.plan is None and following.manifest is not None and not following.rejects

    async def holdings(self, tenure: Tenure, range_start: int) -> Sequence[OffsetRange] | None:
        sink, partition = self._sink, tenure.partition
        return await self._calls.call_sink("holdings", tenure, lambda: sink.holdings(partition, range_start))

    async def export(self, window: ClosedWindow, following: Following, commits: PartitionCommits) -> None:
        if window.manifest is not None and await self._plan(window, commits):
            await self._deliver(window, window.manifest, commits)
        if window.rejects:
            then = following()
            offset, text = window.range.end, commits.end_text(window, then)
            await self._transactions.transact(commits.tenure, _nothing, window.rejects, offset, text)
            commits.planned = then
        else:
            await commits.end(window, following())
        crash_point("export.committed")
        metrics.EXPORTED.labels(self._name).inc(window.events)

    async def _plan(self, window: ClosedWindow, commits: PartitionCommits) -> bool:
        """Make the window's cut durable. Return False if there is nothing to deliver."""
        if window.plan is not None:
            if not self._as_planned(window, window.plan, commits.tenure.partition):
                return False
        elif window is not commits.planned and not commits.rediscovered(window):
            crash_point("export.planning")
            await commits.plan(window)
        crash_point("export.planned")
        return True

    def _as_planned(self, window: ClosedWindow, plan: Plan, partition: Partition) -> bool:
        """Check that a plan that is repeated finds the records that it was made of.

        If some are gone and the sink is configured to continue, what is left is delivered; return False if
        all of the window is stored already.
        """
        found = window.manifest
        if found is not None and (found.records, found.digest) == (plan.records, plan.digest):
            return True
        problem = (
            f"the window {window.range} cannot be delivered as it was planned: {plan.records} records were "
            f"planned, {window.events} are in the topic"
        )
        if self._settings.on_missing_records != "continue":
            raise RecordsMissing(problem)
        lost = 0 if window.held else plan.records - window.events
        self._log(partition).error("records_missing", problem=problem, stored_before=window.held, lost=lost)
        return not window.held

    async def _deliver(self, window: ClosedWindow, manifest: Manifest, commits: PartitionCommits) -> None:
        try:
            delivery = await self._delivered(window, manifest, commits)
        except ObjectConflict as error:
            if not commits.rediscovered(window):
                raise
            raise PartitionStopped(
                f"{error}. The group's offsets were lost, and this is not what the topic holds: it was "
                f"probably recreated. Way out: give the sink another place, or remove its "
                f"{unit_of(self._sink)}. If it was not recreated, reset the group's offset of this partition "
                f"to {window.range.end}"
            ) from error
        except SinkRefused as error:
            # Raised only if refused windows become dead letters. Their records are no longer in memory.
            self._log(commits.tenure.partition).error(
                "window_refused", range=str(window.range), events=window.events, error=str(error)
            )
            refused = RefusedWindow(error, window.position)
            raise StartAgain(Event.REFUSED, Restart(refused=refused)) from error
        crash_point("export.delivered")
        report_delivery(self._name, window, delivery)

    async def _delivered(
        self, window: ClosedWindow, manifest: Manifest, commits: PartitionCommits
    ) -> Delivery:
        """Deliver the window, and return what that came to."""

        def deliver() -> Delivery:
            delivery = self._sink.deliver(manifest, window.payload)
            crash_point("export.delivering")
            return delivery

        # A window that may be partly stored must not be dead-lettered, so a refusal of it is retried.
        what = "adopt" if commits.rediscovered(window) else "deliver"
        return await self._calls.call_sink(what, commits.tenure, deliver)

    def _log(self, partition: Partition) -> Any:
        return log.bind(sink=self._name, partition=str(partition))


class PartsRoute(PlannedRoute):
    """A :class:`PlannedRoute` for a sink that sends a window in parts."""

    def __init__(
        self,
        name: str,
        sink: PartsSink[Any],
        settings: SinkSettings,
        calls: Calls,
        transactions: Transactions,
    ) -> None:
        super().__init__(name, sink, settings, calls, transactions)
        self._parts = sink
        self._refusals = Refusals()

    def announces(self, following: ClosedWindow) -> bool:
        # A worker that takes over an undivided plan would not divide it.
        return super().announces(following) and not self._refusals.divided

    async def _delivered(
        self, window: ClosedWindow, manifest: Manifest, commits: PartitionCommits
    ) -> Delivery:
        course = Course(
            window.range,
            self._parts.parts(window.payload),
            self._refusals,
            inherited=window.plan is not None,
            division=window.plan.division if window.plan is not None else None,
            gives_up=self._settings.on_refused == "dead_letter",
        )

        async def commit(division: Division) -> None:
            await commits.plan(window, division)

        try:
            return await send_in_parts(
                self._parts,
                manifest,
                course,
                call_sink=lambda function: self._calls.call_sink("deliver", commits.tenure, function),
                commit=commit,
                refused=metrics.DELIVERY_FAILURES.labels(self._name, "refused").inc,
                log=self._log(commits.tenure.partition),
            )
        except RangesRefused:
            _count(self._name, course.delivery)
            raise


class TransactionalRoute:
    """The window's records and its end are one transaction. Nothing is planned, since nothing is delivered
    before the commit.
    """

    ready = True

    def __init__(self, name: str, sink: TransactionalSink[Any], transactions: Transactions) -> None:
        self._name = name
        self._sink = sink
        self._transactions = transactions

    @property
    def fingerprint(self) -> str:
        return self._sink.fingerprint

    def begin(self, partition: Partition, range_start: int) -> WindowEncoder[Any]:
        return self._sink.begin(partition, range_start)

    def next_start(self, range: OffsetRange, *, exported: bool) -> int:
        return range.end if exported else range.start

    def announces(self, following: ClosedWindow) -> bool:
        return False

    async def holdings(self, tenure: Tenure, range_start: int) -> Sequence[OffsetRange] | None:
        return None

    async def export(self, window: ClosedWindow, following: Following, commits: PartitionCommits) -> None:
        sink, manifest, payload = self._sink, window.manifest, window.payload
        then = following()
        offset, text = window.range.end, commits.end_text(window, then)
        if manifest is not None or window.rejects:
            await self._transactions.transact(
                commits.tenure,
                _nothing if manifest is None else lambda t: sink.deliver_in(t, manifest, payload),
                window.rejects,
                offset,
                text,
            )
        else:
            await commits.offset(offset, text)
        commits.planned = then
        self._report(window)
        crash_point("export.committed")

    def _report(self, window: ClosedWindow) -> None:
        if window.manifest is not None:
            report_delivery(self._name, window, Delivery(window.events, 0, window.size))
        metrics.EXPORTED.labels(self._name).inc(window.events)


class DeadLetterRoute(TransactionalRoute):
    """The way of a window that the sink refused with ``error``: its records become dead letters. ``sink``
    decides what it would have rejected itself.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[Partition, int], WindowEncoder[Any]],
        transactions: Transactions,
        error: SinkRefused,
        topic: str,
        limit: Callable[[], int],
    ) -> None:
        super().__init__(name, DeadLetterSink(begin, topic, f"sink.{name}", error, limit), transactions)
        self._error = error

    def next_start(self, range: OffsetRange, *, exported: bool) -> int:
        return self._error.taken_until(range.start, range.end)

    def _report(self, window: ClosedWindow) -> None:
        refused = len(window.payload or ())
        metrics.EXPORTED.labels(self._name).inc(window.events - refused)
        if refused:
            metrics.REJECTED.labels(self._name, "refused").inc(refused)


def route_to(
    name: str,
    sink: Sink[Any] | ConfiguredTransactionalSink[Any],
    settings: SinkSettings,
    calls: Calls,
    transactions: Transactions,
) -> Route:
    """Return the way of windows to ``sink``. Called once, when the stage opens."""
    if isinstance(sink, ConfiguredTransactionalSink):
        return TransactionalRoute(name, sink, transactions)
    if isinstance(sink, PartsSink):
        return PartsRoute(name, sink, settings, calls, transactions)
    return PlannedRoute(name, sink, settings, calls, transactions)


def report_delivery(name: str, window: ClosedWindow, delivery: Delivery) -> None:
    """Log and count a window that the sink ``name`` has taken."""
    log.info(
        "window_delivered",
        sink=name,
        partition=str(window.range.partition),
        range=str(window.range),
        events=window.events,
        bytes=delivery.bytes,
        closed_by=window.closed_by,
        already_there=delivery.existing,
        taken_over=window.plan is not None,
    )
    _count(name, delivery)


def _count(name: str, delivery: Delivery) -> None:
    metrics.OBJECTS.labels(name, "created").inc(delivery.created)
    metrics.OBJECTS.labels(name, "existing").inc(delivery.existing)
    metrics.EXPORTED_BYTES.labels(name).inc(delivery.bytes)


def _nothing(transaction: Transaction) -> None:
    """Produce nothing: the transaction has only dead letters and the offset."""
