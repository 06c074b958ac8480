"""Transactions that hold records of two partitions: what becomes of one concerns the other."""

import asyncio
from typing import Any

import pytest

from flagstream.chunk import Position
from flagstream.errors import TransactionAborted, TransactionUncertain
from flagstream.kafka.transactions import NotQueued, RecordTooLarge, TransactionRefused
from flagstream.operate import metrics
from tests.support.virtual_time import in_virtual_time, settled
from tests.unit.enrich.rig import (
    FIRST,
    SECOND,
    Aborted,
    Answer,
    Begun,
    Committed,
    FakeKafka,
    Rewound,
    Rig,
    ids,
    produced,
    threads,
)

BOTH = [*ids(FIRST, 0, 3), *ids(SECOND, 0, 2)]


async def with_both_in_a_transaction(**settings: Any) -> Rig:
    """Return a stage whose open transaction holds three records of one partition and two of another."""
    rig = Rig(**settings)
    await rig.begin(FIRST, SECOND)
    rig.give(FIRST, 0, 3)
    rig.give(SECOND, 0, 2)
    await settled()
    assert rig.kafka.trace == [Begun(), produced(FIRST, 0, 3), produced(SECOND, 0, 2)]
    return rig


def counted(outcome: str) -> float:
    """Return how many transactions the metric counts with ``outcome``."""
    labels = {"stage": "enrich", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("flagstream_transactions_total", labels) or 0.0


@in_virtual_time
async def test_one_transaction_holds_both() -> None:
    """One commit carries the offsets of both partitions."""
    rig = await with_both_in_a_transaction()
    await asyncio.sleep(1)

    assert rig.kafka.trace[3:] == [Committed(((0, 3), (1, 2)))]
    assert rig.kafka.visible == BOTH


@in_virtual_time
@pytest.mark.parametrize(
    "error",
    [
        TransactionAborted("no"),
        TransactionUncertain("no"),
        RecordTooLarge("no"),
        TransactionRefused("no", of_a_record=False),
        TransactionRefused("no", of_a_record=True),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_commit_that_fails_rewinds_both(error: Exception) -> None:
    """Nothing of the transaction was committed, so both partitions are read again, and come out once."""
    rig = await with_both_in_a_transaction()
    rig.kafka.answers.append(Answer(error))
    await asyncio.sleep(1)
    assert rig.kafka.trace[3:] == [Committed(((0, 3), (1, 2))), Rewound(0, 0), Rewound(1, 0)]

    await rig.give_again(3, FIRST)
    await rig.give_again(2, SECOND)
    assert sorted(rig.kafka.visible) == BOTH


@in_virtual_time
@pytest.mark.parametrize("landed", [False, True])
async def test_a_commit_of_unknown_outcome_is_neither_repeated_nor_counted(landed: bool) -> None:
    """Only the committed offsets say what became of it. So the stage asks for them, and reads what they do
    not cover."""
    committed, aborted = counted("committed"), counted("aborted")
    rig = await with_both_in_a_transaction()
    rig.kafka.answers.append(Answer(TransactionUncertain("no answer"), landed=landed))
    await asyncio.sleep(1)

    offsets = (3, 2) if landed else (0, 0)
    assert rig.kafka.trace[3:] == [
        Committed(((0, 3), (1, 2))),
        Rewound(0, offsets[0]),
        Rewound(1, offsets[1]),
    ]
    assert (counted("committed"), counted("aborted")) == (committed, aborted + 1)

    await rig.give_again(4, FIRST)
    await rig.give_again(4, SECOND)
    assert sorted(rig.kafka.visible) == [*ids(FIRST, 0, 4), *ids(SECOND, 0, 4)]


@in_virtual_time
@pytest.mark.parametrize(("start", "end"), [(4, 6), (2, 5), (0, 3)], ids=["gap", "overlap", "again"])
async def test_a_chunk_that_does_not_join_rolls_both_back(start: int, end: int) -> None:
    """A chunk that starts anywhere but where the last one ended would lose or double records."""
    rig = await with_both_in_a_transaction()
    rig.give(FIRST, start, end)
    await asyncio.sleep(1)

    assert rig.kafka.trace[3:] == [Aborted(), Rewound(0, 0), Rewound(1, 0)]
    await rig.give_again(6, FIRST)
    await rig.give_again(2, SECOND)
    assert sorted(rig.kafka.visible) == [*ids(FIRST, 0, 6), *ids(SECOND, 0, 2)]


@in_virtual_time
async def test_a_chunk_that_does_not_join_needs_no_transaction_to_be_refused() -> None:
    """The first chunk of a transaction has to join what the one before it committed."""
    rig = Rig()
    await rig.begin(FIRST)
    rig.give(FIRST, 1, 3)
    await asyncio.sleep(1)

    assert rig.kafka.trace == [Rewound(0, 0)]


@in_virtual_time
async def test_a_chunk_of_an_earlier_epoch_is_dropped() -> None:
    """Its records come again in the present epoch, though it would join by its offsets."""
    rig = Rig()
    await rig.begin(FIRST, SECOND)
    old = rig.kafka.positions[FIRST].epoch
    await rig.lose(FIRST)
    await rig.assign(FIRST)
    rig.give(FIRST, 0, 3, epoch=old)
    await asyncio.sleep(1)
    assert rig.kafka.trace == []

    await rig.give_again(3, FIRST)
    assert rig.kafka.visible == list(ids(FIRST, 0, 3))


@in_virtual_time
async def test_a_chunk_of_a_partition_that_is_not_held_is_dropped() -> None:
    """Its next owner reads it."""
    rig = Rig()
    await rig.begin(FIRST, SECOND)
    old = rig.kafka.positions[FIRST].epoch
    await rig.lose(FIRST)
    rig.give(FIRST, 0, 3, epoch=old)
    await asyncio.sleep(1)

    assert rig.kafka.trace == []
    assert rig.account.settle() == 0


@in_virtual_time
async def test_two_epochs_of_a_partition_never_share_a_transaction() -> None:
    """The commit checks one epoch for each partition, so it would commit what was fetched in a dead one."""
    rig = await with_both_in_a_transaction()
    rig.kafka.committed[FIRST] = 3
    await rig.assign(FIRST)
    rig.give(FIRST, 3, 5)
    await asyncio.sleep(1)

    assert rig.kafka.trace[3:] == [Aborted(), Rewound(0, 3), Rewound(1, 0)]


class FullOfFaults(FakeKafka):
    """The producer takes no record of the second partition."""

    def produce_batch(self, topic: str, records: object) -> None:
        if self.trace and self.trace[-1] == produced(FIRST, 0, 3):
            raise NotQueued("broken")
        super().produce_batch(topic, records)  # type: ignore[arg-type]


@in_virtual_time
async def test_a_record_that_is_not_queued_rolls_both_back() -> None:
    """The transaction takes no more records, so what it holds of the other partition goes with it."""
    rig = Rig()
    rig.kafka.__class__ = FullOfFaults
    await rig.begin(FIRST, SECOND)
    rig.give(FIRST, 0, 3)
    rig.give(SECOND, 0, 2)
    await asyncio.sleep(1)

    assert rig.kafka.trace == [
        Begun(),
        produced(FIRST, 0, 3),
        Aborted(),
        Rewound(0, 0),
        Rewound(1, 0),
    ]


@in_virtual_time
async def test_the_loss_of_one_ends_the_transaction_of_both() -> None:
    """What the transaction holds of the lost partition must never be committed. The rest is read again."""
    rig = await with_both_in_a_transaction()
    await rig.lose(FIRST)
    assert rig.kafka.trace[3:] == [Aborted(), Rewound(1, 0)]

    await rig.give_again(4, SECOND)
    assert rig.kafka.visible == list(ids(SECOND, 0, 4))
    assert rig.kafka.committed == {SECOND: 4}


@in_virtual_time
async def test_a_loss_that_shows_only_at_the_commit_rolls_both_back() -> None:
    """The epochs of all partitions are checked in the step that answers with the group's metadata."""
    rig = await with_both_in_a_transaction()
    rig.kafka.take_away(FIRST)
    await asyncio.sleep(1)

    assert rig.kafka.trace[3:] == [Aborted(), Rewound(1, 0)]
    assert rig.kafka.visible == []


@in_virtual_time
async def test_a_revoke_commits_both_and_the_other_goes_on() -> None:
    """The group waits, so nothing has to be read twice."""
    rig = await with_both_in_a_transaction()
    await rig.revoke(FIRST)
    assert rig.kafka.trace[3:] == [Committed(((0, 3), (1, 2)))]

    rig.give(SECOND, 2, 4)
    await asyncio.sleep(1)
    assert rig.kafka.visible == [*BOTH, *ids(SECOND, 2, 4)]


# ── while a commit is in the thread ─────────────────────────────────────────────────────────────────────


async def with_a_commit_in_the_thread() -> Rig:
    """Return a stage whose transaction is being committed, and stays so until threads are released."""
    rig = await with_both_in_a_transaction()
    threads().hold_threads()
    await asyncio.sleep(1)
    assert Committed(((0, 3), (1, 2))) not in rig.kafka.trace
    return rig


@in_virtual_time
@pytest.mark.parametrize("how", ["revoke", "lose"])
async def test_what_is_taken_away_waits_for_the_commit_in_the_thread(how: str) -> None:
    """The next owner begins at what is committed when this returns, so nothing may be committed later."""
    rig = await with_a_commit_in_the_thread()
    leaving = asyncio.create_task(getattr(rig, how)(FIRST))
    await asyncio.sleep(5)
    assert not leaving.done()

    threads().release_threads()
    await leaving
    assert rig.kafka.trace[3:] == [Committed(((0, 3), (1, 2)))]


@in_virtual_time
@pytest.mark.parametrize("landed", [True, False])
async def test_a_partition_starts_over_after_the_commit_in_the_thread(landed: bool) -> None:
    """Rewound before, it would begin at an offset that the commit then passes, and read records twice."""
    rig = await with_a_commit_in_the_thread()
    rig.kafka.answers.append(Answer(landed=landed, error=None if landed else TransactionAborted("no")))
    rig.give(FIRST, 7, 9)  # does not join: the partition starts over
    await asyncio.sleep(5)
    assert len(rig.kafka.trace) == 3

    threads().release_threads()
    await asyncio.sleep(5)
    assert Rewound(0, 3 if landed else 0) in rig.kafka.trace
    assert rig.kafka.trace[3] == Committed(((0, 3), (1, 2)))


@in_virtual_time
async def test_a_stopped_partition_looks_again_after_the_commit_in_the_thread() -> None:
    """The transaction may hold what was read before the partition stopped."""
    rig = await with_a_commit_in_the_thread()
    position = rig.kafka.positions[FIRST]
    await rig.stage.records_missing(rig.tenure(FIRST, position), position)
    rig.stage.look_now()
    await asyncio.sleep(5)
    assert not any(isinstance(step, Rewound) for step in rig.kafka.trace)

    threads().release_threads()
    await asyncio.sleep(1)
    assert rig.kafka.trace[-2:] == [Committed(((0, 3), (1, 2))), Rewound(0, 3)]


@in_virtual_time
async def test_the_next_chunk_waits_for_the_commit_in_the_thread() -> None:
    """One transaction at a time: it is enriched meanwhile, and produced when the commit is through."""
    rig = await with_a_commit_in_the_thread()
    rig.give(FIRST, 3, 5)
    await asyncio.sleep(5)
    assert len(rig.kafka.trace) == 3

    threads().release_threads()
    await asyncio.sleep(1)
    assert rig.kafka.trace[3:] == [
        Committed(((0, 3), (1, 2))),
        Begun(),
        produced(FIRST, 3, 5),
        Committed(((0, 5),)),
    ]


@in_virtual_time
async def test_what_was_read_before_records_were_deleted_comes_out_first() -> None:
    """The chunk is still on its way when the next record turns out to be gone. Read from after the gap at
    once, it would be void, and its own records lost as well."""
    rig = Rig(on_missing_records="continue")
    await rig.begin(FIRST)
    position = rig.kafka.positions[FIRST]
    rig.kafka.low[FIRST] = 8
    rig.give(FIRST, 0, 5)
    gone = Position(position.epoch, 5, None, "", 8, 20)
    await rig.stage.records_missing(rig.tenure(FIRST, position), gone)
    await asyncio.sleep(1)

    assert rig.kafka.trace == [Begun(), produced(FIRST, 0, 5), Committed(((0, 5),)), Rewound(0, 8)]
