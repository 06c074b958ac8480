"""Chunks on their way from the consumer's thread to the stage, and what happens when the stage takes no more.

The consumer's thread first waits a while for room. Then it throttles
(:class:`~flagstream.kafka.fetching.Fetching`): it fetches nothing, but goes on polling, so that it stays in
the group, and asks the stage to give back records that the stage cannot use for now.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from flagstream.chunk import Chunk
from flagstream.kafka.calls import Calls
from flagstream.memory import Account, MemoryShare

MAX_RECORDS = 10_000
"""The most records that one ``consume()`` asks for: some 30 ms of work, so that calls from the event loop
never wait longer than that.
"""
FIRST_RECORDS = 500
"""The records that the first ``consume()`` asks for, when their size is not known yet."""
STALL_SECONDS = 1.0
"""How long the thread waits for the stage to take chunks before it throttles, and how long it waits between
two requests to give records back.
"""
WAIT_SECONDS = 0.1
"""The longest wait for room between two looks."""


class Gauge(Protocol):
    """A metric that shows the bytes that wait."""

    def set(self, value: float) -> None: ...


class Ration:
    """How many records a ``consume()`` asks for, so that they weigh about ``limit`` bytes.

    The next records are assumed to be as heavy as the last ones, or as heavier ones before them, which are
    forgotten slowly. While librdkafka copies what it returns, it holds that twice, so a ration that is too
    large costs twice.
    """

    def __init__(self, limit: int) -> None:
        self.records = FIRST_RECORDS
        self._limit = limit
        self._each = 0.0

    def took(self, records: int, weight: int) -> None:
        """A ``consume()`` returned ``records`` (at least one), of ``weight`` bytes together."""
        self._each = max(weight / records, self._each * 0.9)
        self.records = max(1, min(MAX_RECORDS, 4 * self.records, int(self._limit / self._each)))


class Handover:
    """Gives chunks to ``put``, a coroutine function that may take its time, in the order in which they come.

    ``memory`` is what the chunks may weigh that wait here or in the stage; ``beside`` returns the bytes that
    the stage holds in another form, which leave less room. The consumer's thread calls all methods, and
    ``gauge`` shows what waits. ``on_full`` is called on the event loop when the stage should give records
    back.
    """

    def __init__(
        self,
        put: Callable[[Chunk], Awaitable[None]],
        calls: Calls,
        memory: MemoryShare,
        beside: Callable[[], int],
        gauge: Gauge,
    ) -> None:
        self.account = Account(memory, beside=beside, released=self._released)
        self.ration = Ration(memory.chunk)
        self.on_full: Callable[[], None] = _nothing
        self._put_chunk = put
        self._calls = calls
        self._gauge = gauge
        self._waiting: list[Chunk] = []
        self._put: Future[None] | None = None
        self._missing = 0
        """The bytes whose release the thread waits for."""
        self._give_back_at = 0.0

    @property
    def empty(self) -> bool:
        """Whether every chunk is with the stage, or about to be put there."""
        return not self._waiting

    @property
    def crowded(self) -> bool:
        """Whether the stage has to take or release records before more are fetched."""
        return bool(self._waiting) or self.account.full

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Put these chunks into the channel as soon as those before them are in it."""
        if not chunks:
            return
        records = sum(len(chunk.records) for chunk in chunks)
        self.ration.took(records, sum(chunk.weight.bytes for chunk in chunks))
        self._waiting += chunks
        self.hand_over()

    def wait_for_room(self, serve: Callable[[float], None], stopping: Callable[[], bool]) -> bool:
        """Wait until there is room, but not longer than :data:`STALL_SECONDS`.

        Mostly the stage is at work, and to throttle would throw away what librdkafka has fetched. ``serve``
        serves calls, and waits up to the seconds given for one. Returns False if the consumer has to
        throttle.
        """
        until = time.monotonic() + STALL_SECONDS
        try:
            while self.crowded and not stopping():
                self._missing = self.account.missing
                if self._missing > 0 and not self.account.full:
                    continue  # something was released before the count of what is missing was stored
                serve(WAIT_SECONDS)
                self.hand_over()
                if time.monotonic() > until:
                    return False
            return True
        finally:
            self._missing = 0

    def ask_to_give_back(self) -> None:
        """Ask the stage for records that it cannot use for now, so that others have room."""
        self._give_back_at = time.monotonic() + STALL_SECONDS
        if self.account.full:
            self._calls.run_soon(self.on_full)

    def ask_to_give_back_if_due(self) -> None:
        """Ask again, if the last time was more than :data:`STALL_SECONDS` ago."""
        if time.monotonic() > self._give_back_at:
            self.ask_to_give_back()

    def hand_over(self) -> None:
        """Put what waits into the channel, if all chunks before it are there."""
        if self._put is not None and self._put.done():
            self._put.result()  # raises the error that kept chunks from the channel
            self._put = None
        if self._waiting and self._put is None:
            chunks, self._waiting = self._waiting, []
            self._put = self._calls.start(self._put_all(chunks))
        self._gauge.set(self.account.settle())

    async def _put_all(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            await self._put_chunk(chunk)

    def _released(self, count: int) -> None:
        """``count`` bytes were released. Called in any thread, often: the thread is woken only when there is
        room again.
        """
        if self._missing > 0:
            self._missing -= count
            if self._missing <= 0:
                self._calls.wake()


def _nothing() -> None:
    """The answer of a stage that has nothing to give back."""
