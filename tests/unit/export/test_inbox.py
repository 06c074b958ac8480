"""The chunks that wait: which one joins, what is left of one, and what is fetched again."""

import asyncio
from dataclasses import replace

from flagstream.chunk import Position
from flagstream.export.inbox import Inbox
from flagstream.kafka.tenure import Tenure
from flagstream.memory import Account, MemoryShare, Weight
from tests.support.recording import EPOCH, PARTITION, Paused, RecordingKafka, Resumed, Step, chunk


def inbox(at: int = 0, fetched: int = 0) -> tuple[Inbox, list[Step]]:
    trace: list[Step] = []
    kafka = RecordingKafka(trace, fetched=fetched)
    return Inbox(Tenure(PARTITION, Position(EPOCH, at), kafka)), trace


def test_chunks_join_at_the_end_of_the_last_one() -> None:
    """After [4, 10) only a chunk that starts at 10 joins, neither one at 9 nor one at 11."""
    box, _ = inbox(4)

    assert box.add(chunk(4, 10))
    assert not box.add(chunk(9, 12))
    assert not box.add(chunk(11, 12))
    assert box.add(chunk(10, 12))

    assert (len(box), box.expected) == (2, 12)


def test_a_chunk_that_does_not_join_weighs_nothing() -> None:
    """Nobody holds it any more."""
    account = Account(MemoryShare())
    box, _ = inbox()

    box.add(replace(chunk(5, 6), weight=Weight(account, 100)))

    assert account.settle() == 0


def test_what_is_left_of_a_chunk_starts_where_the_window_ends() -> None:
    """Two of four records are taken, up to the offset 7: the rest weighs half."""
    account = Account(MemoryShare())
    box, _ = inbox()
    box.add(replace(chunk(0, 10, without=[1, 2, 3, 4, 7, 8]), weight=Weight(account, 100)))

    box.taken(2, 6)

    assert (box.first().start, [record.offset() for record in box.first().records]) == (6, [6, 9])
    assert account.settle() == 50
    box.taken(2, 10)
    assert (len(box), account.settle(), box.expected) == (0, 0, 10)


def test_nothing_is_given_back_while_more_is_fetched() -> None:
    """Chunks that wait are taken in a moment."""
    box, _ = inbox()
    box.add(chunk(0, 10))

    box.give_back()

    assert len(box) == 1


def test_what_was_given_back_is_fetched_again_and_passed_over_until_then() -> None:
    """[0, 4) was given back, [4, 8) was under way: it is released, and comes again after [0, 4). What starts
    at 8 was never fetched before, so it does not join.
    """
    box, trace = inbox(fetched=8)
    box.add(chunk(0, 4))

    async def fetch() -> None:
        await box.pause()
        box.give_back()
        assert box.add(chunk(4, 8))
        await box.resume()

    asyncio.run(fetch())

    assert trace == [Paused(), Resumed(0)]
    assert (len(box), box.expected) == (0, 0)
    assert not box.add(chunk(8, 9))
    assert box.add(chunk(0, 8))
    assert not box.add(chunk(4, 8))


def test_fetching_is_paused_once() -> None:
    """The consumer's thread is asked once, however often the partition finds that it has no room."""
    box, trace = inbox()

    async def fetch() -> None:
        await box.pause()
        await box.pause()
        await box.resume()

    asyncio.run(fetch())

    assert trace == [Paused(), Resumed()]
