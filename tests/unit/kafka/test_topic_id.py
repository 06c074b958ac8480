"""The id of the topic that has a name now: it is asked for late enough, and no more often than necessary."""

import asyncio
import threading

from flagstream.kafka.topic_id import TopicIdentity
from flagstream.kafka.topics import TopicsNotReady
from tests.support.virtual_time import in_virtual_time


class Brokers:
    """Report `id` once `answering` is set. `asked` counts the questions; `silent` of them get no answer
    first.
    """

    def __init__(self, silent: int = 0) -> None:
        self.id = "old"
        self.asked = 0
        self.silent = silent
        self.answering = threading.Event()

    async def are_asked(self) -> None:
        while not self.asked:  # noqa: ASYNC110  # another thread counts
            await asyncio.sleep(0)

    def __call__(self) -> str:
        id_ = self.id
        self.asked += 1
        assert self.answering.wait(timeout=30)
        if self.asked <= self.silent:
            raise TopicsNotReady("no answer")
        return id_


def test_who_asks_while_others_wait_shares_an_answer_that_is_late_enough() -> None:
    """A question that is under way may have been answered before these records were fetched, so the next
    answer counts.
    """

    async def ask() -> None:
        brokers = Brokers()
        identity = TopicIdentity(brokers)
        first = asyncio.create_task(identity.now())
        await brokers.are_asked()

        brokers.id = "new"
        others = [asyncio.create_task(identity.now()) for _ in range(50)]
        await asyncio.sleep(0)
        brokers.answering.set()

        assert await first == "old"
        assert await asyncio.gather(*others) == ["new"] * 50
        assert brokers.asked == 2

    asyncio.run(ask())


def test_who_gives_up_leaves_no_answer_to_others() -> None:
    """A partition that ends while its question is under way leaves no answer: the next partition asks
    again.
    """

    async def ask() -> None:
        brokers = Brokers()
        identity = TopicIdentity(brokers)
        first = asyncio.create_task(identity.now())
        await brokers.are_asked()
        other = asyncio.create_task(identity.now())
        await asyncio.sleep(0)

        first.cancel()
        brokers.answering.set()

        assert await other == "old"
        assert brokers.asked == 2

    asyncio.run(ask())


@in_virtual_time
async def test_brokers_that_do_not_answer_are_asked_again() -> None:
    """Brokers that do not answer are asked again for as long as it takes, and the problem shows meanwhile."""
    brokers = Brokers(silent=3)
    brokers.answering.set()
    identity = TopicIdentity(brokers)
    asking = asyncio.create_task(identity.now())

    while brokers.asked < 3:  # noqa: ASYNC110  # another thread counts
        await asyncio.sleep(0.1)
    assert identity.problem == "no answer"

    assert await asking == "old"
    assert identity.problem == ""
