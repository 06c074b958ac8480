"""The chunk source: a confluent consumer in a thread of its own, feeding chunks into a Faust channel.

This is its side on the event loop, which asks the thread (:mod:`flagstream.kafka.consumer`) for commits,
rewinds and the like.

Each partition has an **epoch**, new on every gain, loss and rewind. Kafka checks who commits, never what:
whether work still counts is ours to check, in the thread, in the same step in which the offset is committed,
where no rebalance can slip in between (design: "Epochs and commits").
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import structlog
from faust.types import ChannelT
from mode import Service

from flagstream.chunk import Chunk, Partition, Position
from flagstream.kafka.consumer import ConsumerThread, Stage
from flagstream.kafka.progress import Progress
from flagstream.memory import MemoryShare
from flagstream.operate.health import Problem
from flagstream.units import Start

LAGS = "add workers, up to the number of partitions, or make the sink faster"
SILENT_SECONDS = 10.0
"""Without a poll, after which people are told."""
IDLE_SECONDS = 5.0
"""Without partitions, after which people are told: an undisturbed rebalance takes a second or two."""

log = structlog.get_logger(__name__)


class ChunkSource(Service):
    """Consumes one topic in one group and puts its records, as chunks of one partition, into ``channel``.

    ``properties`` is the complete librdkafka configuration; ``start`` applies to partitions without a
    committed offset. ``fail`` is called with an error that ends the process. ``session_timeout`` (seconds)
    bounds the age of the last poll at which a tenure is fresh. ``memory`` is what records may take that wait
    for the stage or in it; ``beside``: bytes that the stage holds in another form, which leave less room for
    them.
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
        memory: MemoryShare = MemoryShare(),  # noqa: B008  # frozen
        beside: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._session_timeout = session_timeout
        self._clock = clock
        self._idle_since: float | None = None
        self._told_idle = self._told_silent = self._told_lag = False
        self._told_blocked: set[tuple[Partition, int]] = set()
        self._log = log.bind(source=name, topic=topic)
        self._thread = ConsumerThread(
            name,
            properties=properties,
            topic=topic,
            put=lambda chunk: channel.put(cast(Any, chunk)),  # declared for events, but takes any value
            stage=stage,
            start=start,
            session_timeout=session_timeout,
            fail=fail,
            memory=memory,
            beside=beside,
        )

    async def on_start(self) -> None:
        self._thread.start()

    async def on_stop(self) -> None:
        """Leave the group. The host drains the stage before; whatever is in flight now belongs to the next
        owner.
        """
        await asyncio.to_thread(self._thread.stop)

    @property
    def positions(self) -> Mapping[Partition, Position]:
        """The partitions that are held, where each was begun, and in which epoch."""
        return self._thread.positions

    @property
    def last_active(self) -> float:
        """When the consumer's thread was last seen moving (monotonic seconds); now, while there is none."""
        return self._thread.last_active if self._thread.running else time.monotonic()

    @property
    def joined(self) -> bool:
        """Whether the group has this consumer as a member. One without partitions is a member too, for there
        may be more members than partitions.
        """
        return self._thread.running and self._thread.reports.member

    @property
    def progress(self) -> Progress:
        """How far the stage is with each partition. Offsets that are committed elsewhere, in transactions,
        have to be reported to it.
        """
        return self._thread.progress

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between us and Kafka."""
        if self._thread.reports.problem or not self._thread.running:
            if self._thread.reports.problem:
                yield Problem("kafka", self._thread.reports.problem)
        elif self._silent > SILENT_SECONDS:
            yield Problem(
                "kafka", f"the consumer has not polled for {self._silent:.0f} s; it waits for Kafka"
            )
        elif not self._thread.reports.member:
            yield Problem("group", self._waiting_for)
        if self._thread.rejoins > 1:
            yield Problem(
                "group",
                f"commits fail ({self._thread.rejoined_for}), so the group was left and joined again "
                f"{self._thread.rejoins} times in a row; look for the right to read the topic and to use the "
                "group, and at the group coordinator",
            )
        for blocked in self.progress.blocked():
            yield Problem("open_transaction", blocked.problem, str(blocked.partition))

    def lagging(self) -> Iterator[Problem]:
        """Yield whether more comes in than goes out; worth telling where nothing else is wrong."""
        if (growing := self.progress.growing()) is not None:
            records, seconds = growing
            text = f"{records:.0f} records wait, the oldest for {seconds:.0f} s, and more come in than go out"
            yield Problem("lag_grows", f"{text}; {LAGS}")

    def log_if_idle_or_silent(self, kinds: Collection[str] = ()) -> None:
        """Log what only time shows, once each time; to be called every second or so, on the event loop.
        ``kinds`` of problems are told of the source now: where something else is wrong, that is why the lag
        grows, and more workers are no help.
        """
        lagging = None if set(kinds) - {"lag_grows"} else next(self.lagging(), None)
        if lagging is not None and not self._told_lag:
            self._log.warning("lag_grows", problem=lagging.text)
        self._told_lag = lagging is not None
        silent = self._thread.running and self._silent > SILENT_SECONDS
        if silent and not self._told_silent:
            self._log.warning("consumer_silent", seconds=round(self._silent), waits_for="Kafka")
        self._told_silent = silent
        self._look_at_open_transactions()
        if self.positions or not self._thread.running or self._thread.reports.problem:
            self._idle_since, self._told_idle = None, False
            return
        self._idle_since = self._clock() if self._idle_since is None else self._idle_since
        if not self._told_idle and self._clock() - self._idle_since >= IDLE_SECONDS:
            self._told_idle = True
            self._log.info("holds_no_partitions", reason=self._waiting_for)

    def _look_at_open_transactions(self) -> None:
        blocked = {(found.partition, found.stable): found for found in self.progress.blocked()}
        for found in (blocked[key] for key in blocked.keys() - self._told_blocked):
            self._log.warning("open_transaction", partition=str(found.partition), problem=found.problem)
        for partition, stable in self._told_blocked - blocked.keys():
            self._log.info("open_transaction_ended", partition=str(partition), offset=stable)
        self._told_blocked = set(blocked)

    @property
    def _silent(self) -> float:
        return self._clock() - self._thread.polled_at

    @property
    def _waiting_for(self) -> str:
        dead = (
            "a member that died keeps its partitions until its session ends (up to "
            f"{self._session_timeout:g} s)"
        )
        if self._thread.reports.member:
            return f"other members of the group hold all partitions; {dead}"
        return f"waits for the group to take it in; {dead}"

    def when_full(self, function: Callable[[], None]) -> None:
        """Have ``function`` called, on the event loop, when the records that wait have taken all their memory
        for a while. The stage may drop those that it cannot use for now, and have them fetched again.
        """
        self._thread.on_full = function

    async def pause_all(self) -> None:
        """Fetch nothing more (the process is about to stop), but stay in the group."""
        self._thread.finishing = True
        await self._thread.call(self._thread.throttle)
