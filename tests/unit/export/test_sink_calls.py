"""Calls of a sink: in a thread, one after the other until one succeeds, and what counts as a refusal."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flagstream.chunk import Position
from flagstream.errors import ObjectConflict, SinkRefused, SinkRefusesAll, SinkUnavailable
from flagstream.export.sink_calls import SinkCalls
from flagstream.kafka.tenure import Tenure
from flagstream.sinks.settings import SinkSettings
from tests.support.recording import EPOCH, PARTITION, RecordingKafka
from tests.support.virtual_time import in_virtual_time, passed, settled


class Failing:
    """A call that raises these errors, one each time, and then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def opened(**settings: Any) -> SinkCalls:
    calls = SinkCalls("test", SinkSettings(type="test", **settings))
    await calls.open(lambda: None)
    return calls


def tenure(kafka: RecordingKafka | None = None) -> Tenure:
    return Tenure(PARTITION, Position(EPOCH, 0), kafka or RecordingKafka([]))


async def outcome(calls: SinkCalls, what: str, function: Callable[[], str]) -> str:
    async with asyncio.timeout(3_600):
        return await calls.call_sink(what, tenure(), function)


@in_virtual_time
async def test_a_call_is_repeated_until_it_succeeds() -> None:
    """What is wrong is shown meanwhile, and forgotten then."""
    calls, failing = await opened(), Failing(SinkUnavailable("down"), SinkRefused("no right"), KeyError("x"))

    waiting = asyncio.create_task(outcome(calls, "deliver", failing))
    await settled()
    assert [problem.kind for problem in calls.status.problems(0.0)] == ["sink_unavailable"]

    assert await waiting == "done"
    assert failing.calls == 4
    assert list(calls.status.problems(0.0)) == []


@in_virtual_time
async def test_what_stops_a_partition_is_raised_at_once() -> None:
    """Trying again would not help."""
    failing = Failing(ObjectConflict("other content"))

    with pytest.raises(ObjectConflict):
        await outcome(await opened(), "deliver", failing)

    assert failing.calls == 1


@in_virtual_time
@pytest.mark.parametrize("what", ["deliver", "adopt", "holdings"])
async def test_a_refusal_is_raised_for_a_delivery_alone(what: str) -> None:
    """A window that may be partly stored, and a listing, are tried again, also when refused windows become
    dead letters.
    """
    calls, failing = await opened(on_refused="dead_letter"), Failing(SinkRefused("no"))

    if what == "deliver":
        with pytest.raises(SinkRefused):
            await outcome(calls, what, failing)
    else:
        assert await outcome(calls, what, failing) == "done"


@in_virtual_time
async def test_a_sink_that_refuses_everything_makes_no_dead_letters() -> None:
    """That says nothing about an event."""
    calls, failing = (
        await opened(on_refused="dead_letter"),
        Failing(SinkRefusesAll("all"), SinkRefusesAll("all")),
    )

    assert await outcome(calls, "deliver", failing) == "done"


@in_virtual_time
async def test_nothing_is_called_for_a_partition_before_the_sink_is_open() -> None:
    """It waits, however long that takes."""
    calls, first = SinkCalls("test", SinkSettings(type="test")), Failing()
    waiting = asyncio.create_task(outcome(calls, "holdings", first))
    await passed(100)
    assert (first.calls, calls.opened) == (0, False)

    await calls.open(lambda: None)

    assert await waiting == "done"
    assert calls.opened


@in_virtual_time
async def test_nothing_is_called_while_the_group_may_have_given_the_partition_away() -> None:
    """Not the first time, nor again."""
    calls, failing = await opened(), Failing(SinkUnavailable("down"))
    kafka = RecordingKafka([], fresh=False)
    waiting = asyncio.create_task(calls.call_sink("deliver", tenure(kafka), failing))
    await passed(100)
    assert failing.calls == 0

    kafka.fresh = True
    await passed(0.1)
    kafka.fresh = False
    await passed(100)
    assert failing.calls == 1

    kafka.fresh = True
    assert await waiting == "done"


@in_virtual_time
async def test_a_person_ends_the_pause() -> None:
    """The sink had asked for an hour."""
    calls, failing = await opened(), Failing(SinkUnavailable("busy", retry_after=3_600.0))
    waiting = asyncio.create_task(outcome(calls, "deliver", failing))
    await passed(10)
    assert failing.calls == 1

    calls.hurry()
    await settled()

    assert waiting.result() == "done"
