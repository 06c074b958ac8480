"""The chunk source: a confluent consumer in a thread of its own, which feeds chunks into a Faust channel.

This is its side on the event loop; :mod:`flagstream.kafka.consumer` is the thread. A stage works with the
source through the tenures that the source hands to it (:mod:`flagstream.kafka.tenure`).

Each partition is held in an **epoch**, a new one after every gain, loss and rewind. Kafka checks which member
commits, but not for which work. So the thread checks the epoch in the step that commits the offset, and no
rebalance can come in between (design: "Epochs and commits").
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import structlog
from faust.types import ChannelT
from mode import Service

from flagstream.chunk import Chunk, Partition, Position
from flagstream.kafka.consumer import ConsumerThread
from flagstream.kafka.consumer_settings import ConsumerSettings
from flagstream.kafka.progress import Progress
from flagstream.kafka.tenure import Stage
from flagstream.memory import MemoryShare
from flagstream.operate.health import Problem
from flagstream.units import Start

LAGS = "add workers, up to the number of partitions, or make the sink faster"
SILENT_SECONDS = 10.0
"""Seconds without a poll after which that is a problem."""
IDLE_SECONDS = 5.0
"""Seconds without partitions after which that is logged: an undisturbed rebalance takes a second or two."""

log = structlog.get_logger(__name__)


class ChunkSource(Service):
    """Consumes one topic in one group and puts its records, as chunks of one partition, into ``channel``.

    ``properties`` is the complete librdkafka configuration; ``start`` applies to partitions without a
    committed offset. ``fail`` is called with an error that ends the process. ``session_timeout`` (seconds)
    bounds the age of the last poll at which a tenure is fresh. ``memory`` is what records may take that wait
    for the stage or in it; ``beside`` returns the bytes that the stage holds in another form, which leave
    less room for them.
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
        self._logged_idle = self._logged_silent = self._logged_lag = False
        self._logged_blocked: set[tuple[Partition, int]] = set()
        self._log = log.bind(source=name, topic=topic)
        self._thread = ConsumerThread(
            ConsumerSettings(name, properties, topic, start, session_timeout),
            put=lambda chunk: channel.put(cast(Any, chunk)),  # declared for events, but takes any value
            stage=stage,
            fail=fail,
            memory=memory,
            beside=beside,
        )

    async def on_start(self) -> None:
        """Join the group. Faust calls this when the source is started."""
        self._thread.start()

    async def on_stop(self) -> None:
        """Leave the group. The host drains the stage before; whatever is in flight now belongs to the next
        owner.
        """
        await asyncio.to_thread(self._thread.stop)

    @property
    def positions(self) -> Mapping[Partition, Position]:
        """The partitions that are held, where each was begun, and in which epoch."""
        return self._thread.assignment.positions

    @property
    def last_active(self) -> float:
        """When the consumer's thread was last seen moving (monotonic seconds); now, while there is none."""
        return self._thread.pulse.last_active if self._thread.running else time.monotonic()

    @property
    def joined(self) -> bool:
        """Whether this consumer is a member of the group. It may be one without partitions, as there may be
        more members than partitions.
        """
        return self._thread.running and self._thread.reports.member

    @property
    def progress(self) -> Progress:
        """How far the stage is with each partition."""
        return self._thread.progress

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between this consumer and Kafka."""
        rejoining = self._thread.rejoining
        if self._thread.reports.problem or not self._thread.running:
            if self._thread.reports.problem:
                yield Problem("kafka", self._thread.reports.problem)
        elif self._silent > SILENT_SECONDS:
            yield Problem(
                "kafka", f"the consumer has not polled for {self._silent:.0f} s; it waits for Kafka"
            )
        elif not self._thread.reports.member:
            yield Problem("group", self._waiting_for)
        if rejoining.count > 1:
            yield Problem(
                "group",
                f"commits fail ({rejoining.reason}), so the group was left and joined again "
                f"{rejoining.count} times in a row; look for the right to read the topic and to use the "
                "group, and at the group coordinator",
            )
        for blocked in self.progress.blocked():
            yield Problem("open_transaction", blocked.problem, str(blocked.partition))

    def lagging(self) -> Iterator[Problem]:
        """Yield a problem if more comes in than goes out. It matters only where nothing else is wrong."""
        if (growing := self.progress.growing()) is not None:
            records, seconds = growing
            text = f"{records:.0f} records wait, the oldest for {seconds:.0f} s, and more come in than go out"
            yield Problem("lag_grows", f"{text}; {LAGS}")

    def log_if_idle_or_silent(self, kinds: Collection[str] = ()) -> None:
        """Log what only time shows, each once until it is over. The host calls this every second or so, on
        the event loop.

        ``kinds`` are those of the problems that the source and its stage have now. A lag that grows is logged
        only where nothing else is wrong: otherwise that is the reason, and more workers do not help.
        """
        lagging = None if set(kinds) - {"lag_grows"} else next(self.lagging(), None)
        if lagging is not None and not self._logged_lag:
            self._log.warning("lag_grows", problem=lagging.text)
        self._logged_lag = lagging is not None
        silent = self._thread.running and self._silent > SILENT_SECONDS
        if silent and not self._logged_silent:
            self._log.warning("consumer_silent", seconds=round(self._silent), waits_for="Kafka")
        self._logged_silent = silent
        self._log_open_transactions()
        if self.positions or not self._thread.running or self._thread.reports.problem:
            self._idle_since, self._logged_idle = None, False
            return
        self._idle_since = self._clock() if self._idle_since is None else self._idle_since
        if not self._logged_idle and self._clock() - self._idle_since >= IDLE_SECONDS:
            self._logged_idle = True
            self._log.info("holds_no_partitions", reason=self._waiting_for)

    def _log_open_transactions(self) -> None:
        blocked = {(found.partition, found.stable): found for found in self.progress.blocked()}
        for found in (blocked[key] for key in blocked.keys() - self._logged_blocked):
            self._log.warning("open_transaction", partition=str(found.partition), problem=found.problem)
        for partition, stable in self._logged_blocked - blocked.keys():
            self._log.info("open_transaction_ended", partition=str(partition), offset=stable)
        self._logged_blocked = set(blocked)

    @property
    def _silent(self) -> float:
        return self._clock() - self._thread.pulse.polled_at

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
        self._thread.handover.on_full = function

    async def pause_all(self) -> None:
        """Fetch nothing more, but stay in the group: the process is about to stop."""
        await self._thread.call(self._thread.finish)
