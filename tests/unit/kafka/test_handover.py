"""Chunks on their way to the stage: how many records are asked for, their order, and waiting for room."""

import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from flagstream.chunk import Chunk, Partition
from flagstream.kafka import handover as module
from flagstream.kafka.calls import Calls
from flagstream.kafka.handover import FIRST_RECORDS, MAX_RECORDS, Handover, Ration
from flagstream.memory import MemoryShare, Weight
from flagstream.units import MIB

KIB = 1024


def test_small_records_are_taken_by_the_thousand() -> None:
    """A ration of small records grows to the maximum within a few polls."""
    ration = Ration(8 * MIB)
    for _ in range(5):
        ration.took(ration.records, ration.records * 600)

    assert ration.records == MAX_RECORDS


def test_large_records_are_taken_few_at_a_time() -> None:
    """Right after the first large records a ration holds only as many as weigh the limit."""
    ration = Ration(8 * MIB)
    ration.took(FIRST_RECORDS, FIRST_RECORDS * 80 * KIB)

    assert ration.records == 102


def test_a_record_that_is_larger_than_all_that_may_be_taken_is_taken_alone() -> None:
    """A record that is heavier than the limit is taken alone."""
    ration = Ration(MIB)
    ration.took(1, 100 * MIB)

    assert ration.records == 1


def test_large_records_among_small_ones_are_not_forgotten_at_once() -> None:
    """Records of alternating weight are rationed as if all had the larger one."""
    ration = Ration(MIB)
    ration.took(10, 10 * 100 * KIB)
    ration.took(10, 10 * KIB)
    assert ration.records < 20
    for _ in range(100):
        ration.took(10, 10 * KIB)
    assert ration.records > 500


@dataclass
class RecordedCalls:
    """The calls between thread and event loop: what was started, how often the thread was woken, and what the
    event loop was asked to run.
    """

    started: list[tuple[Coroutine[Any, Any, None], Future[None]]] = field(default_factory=list)
    wakes: int = 0
    soon: list[Callable[[], object]] = field(default_factory=list)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        future: Future[None] = Future()
        self.started.append((coroutine, future))
        weakref.finalize(self, coroutine.close)
        return future

    def finish(self, error: Exception | None = None) -> None:
        """The event loop runs what was started last, to its end."""
        coroutine, future = self.started.pop()
        if error is not None:
            coroutine.close()
            future.set_exception(error)
            return
        with pytest.raises(StopIteration):
            coroutine.send(None)
        future.set_result(None)

    def wake(self) -> None:
        self.wakes += 1

    def run_soon(self, function: Callable[[], object]) -> None:
        self.soon.append(function)


@dataclass
class Gauge:
    """Stands for a metric."""

    value: float = 0.0

    def set(self, value: float) -> None:
        self.value = value


class Rig:
    """A handover to a stage that keeps the chunks it gets, and a clock that the waits move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.taken: list[Chunk] = []
        self.calls = RecordedCalls()
        self.gauge = Gauge()
        self.memory = MemoryShare(4 * MIB)
        self.handover = Handover(self._take, cast(Calls, self.calls), self.memory, lambda: 0, self.gauge)
        self.while_serving: list[Callable[[], None]] = []
        monkeypatch.setattr("flagstream.kafka.handover.time.monotonic", lambda: self.now)

    async def _take(self, chunk: Chunk) -> None:
        self.taken.append(chunk)

    def chunk(self, number: int, weight: int = 1_000) -> Chunk:
        """Return the chunk `[number, number + 1)`, charged to the account."""
        charged = Weight(self.handover.account, weight)
        return Chunk(Partition("t", 0), 1, number, number + 1, cast(Any, ["a record"]), charged)

    def wait_for_room(self) -> bool:
        """Wait as the consumer's thread does; each time that it serves calls, one of `while_serving`
        happens.
        """

        def serve(seconds: float) -> None:
            if self.while_serving:
                self.while_serving.pop(0)()
            self.now += seconds

        return self.handover.wait_for_room(serve, lambda: False)


def test_chunks_are_put_in_order_and_no_sooner_than_those_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chunks wait until those before them are in the channel."""
    rig = Rig(monkeypatch)
    handover = rig.handover

    handover.add([rig.chunk(0), rig.chunk(1)])
    handover.add([rig.chunk(2)])
    assert len(rig.calls.started) == 1
    assert (handover.empty, handover.crowded) == (False, True)

    rig.calls.finish()
    handover.hand_over()
    assert (handover.empty, handover.crowded) == (True, False)
    rig.calls.finish()

    assert [chunk.start for chunk in rig.taken] == [0, 1, 2]
    assert rig.gauge.value == 3_000


def test_an_error_of_the_channel_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the channel is raised in the thread, as the chunks would be missing."""
    rig = Rig(monkeypatch)
    rig.handover.add([rig.chunk(0)])
    rig.calls.finish(SystemError("nobody foresaw this"))

    with pytest.raises(SystemError, match="nobody foresaw this"):
        rig.handover.hand_over()


def test_room_that_comes_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread waits for room that comes in time, because to throttle drops what librdkafka has fetched."""
    rig = Rig(monkeypatch)
    rig.handover.add([rig.chunk(0)])
    rig.handover.add([rig.chunk(1)])
    rig.while_serving = [lambda: None, rig.calls.finish]

    assert rig.wait_for_room()
    assert rig.handover.empty


def test_a_stage_that_takes_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the stage takes nothing, the wait ends so that the consumer can throttle and stay in the group."""
    rig = Rig(monkeypatch)
    rig.handover.add([rig.chunk(0)])
    rig.handover.add([rig.chunk(1)])

    assert not rig.wait_for_room()
    assert rig.now - 100 <= module.STALL_SECONDS + 2 * module.WAIT_SECONDS


def test_a_consumer_that_stops_waits_for_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that stops does not wait for room."""
    rig = Rig(monkeypatch)
    rig.handover.add([rig.chunk(0)])
    rig.handover.add([rig.chunk(1)])

    assert rig.handover.wait_for_room(lambda seconds: None, lambda: True)


def test_the_thread_is_woken_once_and_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many releases only the one that makes room wakes the thread, and none does when nobody waits."""
    rig = Rig(monkeypatch)
    weights = [Weight(rig.handover.account, 100 * KIB) for _ in range(15)]
    weights.pop().release()
    assert rig.calls.wakes == 0
    wakes: list[int] = []

    def release() -> None:
        for weight in weights:
            weight.release()
            wakes.append(rig.calls.wakes)

    rig.while_serving = [release]
    assert rig.handover.crowded
    assert rig.wait_for_room()

    assert rig.memory.taken == 1_024 * KIB
    assert wakes == [0] * 3 + [1] * 11


def test_what_is_released_before_the_wait_begins_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release between the look at the account and the wait ends the wait at once."""
    rig = Rig(monkeypatch)
    weight = Weight(rig.handover.account, 2 * MIB)
    missing = type(rig.handover.account).missing
    looks: list[int] = []

    def look(account: Any) -> int:
        found = cast(int, missing.fget(account))  # type: ignore[attr-defined]
        looks.append(found)
        if len(looks) == 2:  # the first one asks whether to wait at all
            weight.release()
        return found

    monkeypatch.setattr(type(rig.handover.account), "missing", property(look))

    assert rig.wait_for_room()
    assert rig.now == 100.0


def test_the_stage_is_asked_to_give_back_what_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is asked to give records back once a second, and only while the memory is full."""
    rig = Rig(monkeypatch)
    rig.handover.on_full = lambda: None
    rig.handover.ask_to_give_back()
    assert rig.calls.soon == []

    weight = Weight(rig.handover.account, 2 * MIB)
    rig.handover.ask_to_give_back()
    rig.handover.ask_to_give_back_if_due()
    assert rig.calls.soon == [rig.handover.on_full]

    rig.now += module.STALL_SECONDS + 0.1
    rig.handover.ask_to_give_back_if_due()
    assert len(rig.calls.soon) == 2
    weight.release()
