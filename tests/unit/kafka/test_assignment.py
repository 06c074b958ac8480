"""Which work counts: partitions in their epochs, and the chunks that fetched messages become."""

import pytest

from flagstream.chunk import Chunk, Partition, Position
from flagstream.errors import OwnershipLost
from flagstream.kafka.assignment import Assignment, Cut
from flagstream.memory import RECORD_OVERHEAD, Account, MemoryShare, Weight
from flagstream.units import MIB
from tests.unit.kafka.fake_consumer import TOPIC, records

KIB = 1024
FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)


class Rig:
    """An assignment of two partitions, the first from offset 5 on, the second from 7 on."""

    def __init__(self, memory: MemoryShare = MemoryShare()) -> None:  # noqa: B008  # frozen
        self.account = Account(memory)
        self.assignment = Assignment(TOPIC, memory.chunk, lambda weight: Weight(self.account, weight))
        self.assignment.hold(FIRST, Position(next(self.assignment.epochs), 5))
        self.assignment.hold(SECOND, Position(next(self.assignment.epochs), 7))

    def epoch(self, partition: Partition) -> int:
        return self.assignment.positions[partition].epoch

    def cut(self, *runs: tuple[int, int, int], size: int = 5) -> Cut:
        """Cut records of `(partition, start, end)` that were fetched with no callback in between."""
        found = [message for index, start, end in runs for message in records(index, start, end, size)]
        return self.assignment.cut(found, self.assignment.changes)


def covered(chunks: Cut) -> list[tuple[int, int, int]]:
    """Return the partition and the offsets `[start, end)` of each chunk."""
    return [(chunk.partition.index, chunk.start, chunk.end) for chunk in chunks.chunks]


def test_chunks_of_a_partition_join() -> None:
    """Each begins where the one before it ended, whatever offsets have no record."""
    rig = Rig()

    assert covered(rig.cut((0, 5, 8), (1, 9, 11), (0, 10, 12))) == [(0, 5, 8), (1, 7, 11), (0, 8, 12)]
    assert covered(rig.cut((0, 20, 21))) == [(0, 12, 21)]
    assert rig.assignment.next == {FIRST: 21, SECOND: 11}


def test_a_chunk_carries_the_epoch_in_which_it_was_fetched() -> None:
    """A chunk carries the epoch of its tenure, which the stage checks."""
    rig = Rig()

    [chunk] = rig.cut((1, 7, 9)).chunks

    assert chunk.epoch == rig.epoch(SECOND)


def test_messages_of_a_partition_that_is_not_held_are_dropped() -> None:
    """Messages of a partition that is not held are dropped, and nothing is sought."""
    rig = Rig()
    rig.assignment.release([FIRST])

    assert rig.cut((0, 5, 8)) == Cut([], [])


def test_messages_from_before_a_rewind_are_void() -> None:
    """Messages before the next offset are void; the partition is fetched again, so that nothing is stepped
    over.
    """
    rig = Rig()

    assert rig.cut((0, 3, 9)) == Cut([], [FIRST])
    assert rig.assignment.next[FIRST] == 5


def test_messages_around_a_callback_are_void() -> None:
    """Messages that come with a callback are void: they may be of an earlier tenure, at offsets that look
    right.
    """
    rig = Rig()
    before = rig.assignment.changes
    rig.assignment.changes += 1

    cut = rig.assignment.cut(records(0, 9, 12) + records(1, 7, 8) + records(5, 1, 2), before)

    assert list(cut.chunks) == []
    assert sorted(cut.void) == [FIRST, SECOND]
    assert rig.assignment.next == {FIRST: 5, SECOND: 7}


def test_a_rewind_and_a_give_back_make_fetched_messages_void() -> None:
    """A rewind and a give-back that run inside a `consume()` make what it returns void."""
    rig = Rig()
    rig.cut((0, 5, 20))
    before = rig.assignment.changes

    rig.assignment.read_again(FIRST, 10)
    assert rig.assignment.next[FIRST] == 10
    assert list(rig.assignment.cut(records(0, 20, 22), before).chunks) == []

    before = rig.assignment.changes
    [ended] = rig.assignment.end_tenures({FIRST: rig.epoch(FIRST)})
    rig.assignment.hold(ended, Position(next(rig.assignment.epochs), 5))
    assert list(rig.assignment.cut(records(0, 20, 22), before).chunks) == []


def test_work_counts_in_its_own_epoch_only() -> None:
    """A partition that is not held, or is held in another epoch, commits nothing; one such partition is
    enough.
    """
    rig = Rig()
    held = {FIRST: rig.epoch(FIRST), SECOND: rig.epoch(SECOND)}
    rig.assignment.check(held)

    with pytest.raises(OwnershipLost, match="t-1"):
        rig.assignment.check({**held, SECOND: held[SECOND] + 1})
    rig.assignment.release([FIRST])
    with pytest.raises(OwnershipLost, match="t-0"):
        rig.assignment.check(held)


def test_a_tenure_that_is_ended_commits_nothing_from_then_on() -> None:
    """A tenure that is ended commits nothing, even before the new position is known. Only tenures whose
    epochs stand are ended.
    """
    rig = Rig()
    first, second = rig.epoch(FIRST), rig.epoch(SECOND)

    assert rig.assignment.end_tenures({FIRST: first, SECOND: second + 1, Partition(TOPIC, 9): 1}) == [FIRST]

    with pytest.raises(OwnershipLost):
        rig.assignment.check({FIRST: first})
    rig.assignment.check({SECOND: second})
    assert rig.assignment.positions[FIRST].offset == 5


def test_what_is_released_is_forgotten() -> None:
    """A released partition is forgotten, with its pause: it may come back."""
    rig = Rig()
    rig.assignment.paused.add(FIRST)

    rig.assignment.release([FIRST, Partition(TOPIC, 9)])

    assert (list(rig.assignment.positions), rig.assignment.next) == ([SECOND], {SECOND: 7})
    assert rig.assignment.paused == set()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([180] * 10, [10]),
        ([20 * KIB] * 100, [12] * 8 + [4]),
        ([10, 10, 2 * MIB, 10, 10], [2, 1, 2]),
        ([2 * MIB, 2 * MIB], [1, 1]),
        ([0], [1]),
    ],
    ids=["small", "large", "one too large", "each too large", "a tombstone"],
)
def test_chunks_are_cut_by_weight(sizes: list[int], expected: list[int]) -> None:
    """Chunks join without a hole, and none is heavier than allowed unless it is a single record."""
    memory = MemoryShare(4 * MIB)
    assert memory.chunk == 256 * KIB
    rig = Rig(memory)
    messages = [
        message
        for place, size in enumerate(sizes)
        for message in records(0, 5 + 2 * place, 6 + 2 * place, size)
    ]

    chunks: list[Chunk] = list(rig.assignment.cut(messages, rig.assignment.changes).chunks)

    assert [len(chunk.records) for chunk in chunks] == expected
    assert [chunk.start for chunk in chunks] == [5, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == 5 + 2 * len(sizes) - 1
    assert rig.account.settle() == sum(sizes) + RECORD_OVERHEAD * len(sizes)
    chunks.clear()
    assert rig.account.settle() == 0
