"""One owner of tasks: no task ends unseen."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from flagstream.errors import OwnershipLost
from flagstream.operate.tasks import TaskEnded, Tasks


class Owner:
    """Owns tasks, and keeps what they reported."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.tasks = Tasks(self.failures.append)


async def fails(error: BaseException) -> None:
    raise error


async def waits() -> None:
    await asyncio.Event().wait()


async def returns() -> None:
    pass


def run(scenario: Callable[[Owner], Coroutine[Any, Any, None]]) -> Owner:
    owner = Owner()
    asyncio.run(scenario(owner))
    return owner


def test_a_task_that_raises_is_reported() -> None:
    """An error that leaves a task reaches the owner's ``fail`` as it is, and the task's name is kept."""
    error = ValueError("broken")

    async def scenario(owner: Owner) -> None:
        await asyncio.wait([owner.tasks.start("flags", fails(error))])

    owner = run(scenario)

    assert owner.failures == [error]
    assert owner.tasks.dead == ["flags"]


def test_a_task_that_somebody_else_cancels_is_reported() -> None:
    """Only the owner may end a task without a word."""

    async def scenario(owner: Owner) -> None:
        task = owner.tasks.start("flags", waits())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    owner = run(scenario)

    assert [type(error) for error in owner.failures] == [TaskEnded]


@pytest.mark.parametrize(("lasts", "reported"), [(True, 1), (False, 0)])
def test_the_return_of_a_task_counts_where_it_has_to_last(lasts: bool, reported: int) -> None:
    """A watch that returns watches no more, which is a death; a task with an end of its own just ends."""

    async def scenario(owner: Owner) -> None:
        await asyncio.wait([owner.tasks.start("watch", returns(), lasts=lasts)])

    assert len(run(scenario).failures) == reported


def test_a_lost_partition_is_not_a_death() -> None:
    """Work on a partition that moved to another worker ends, and nothing is wrong."""

    async def scenario(owner: Owner) -> None:
        await asyncio.wait([owner.tasks.start("take over", fails(OwnershipLost("moved on")))])

    owner = run(scenario)

    assert owner.failures == []
    assert len(owner.tasks) == 0


def test_what_the_owner_cancels_is_not_reported() -> None:
    """Cancelling through the owner is an orderly end, for one task or for all."""

    async def scenario(owner: Owner) -> None:
        tasks = [owner.tasks.start(name, waits(), lasts=True) for name in "abc"]
        await asyncio.sleep(0)
        owner.tasks.cancel(tasks[0])
        assert len(owner.tasks) == 2
        owner.tasks.cancel()
        await asyncio.wait(tasks)

    owner = run(scenario)

    assert owner.failures == []
    assert owner.tasks.dead == []
