"""What the consumer's thread takes at a time: by weight, for records are small or large."""

from typing import Any, cast

import pytest
from confluent_kafka import Message

from flagstream.chunk import Chunk, Partition, Position
from flagstream.kafka.consumer import FIRST_RECORDS, MAX_RECORDS, ConsumerThread, Ration
from flagstream.memory import RECORD_OVERHEAD, MemoryShare
from flagstream.units import MIB

KIB = 1024


def test_small_records_are_taken_by_the_thousand() -> None:
    """After a few looks at how small they are."""
    ration = Ration(8 * MIB)
    for _ in range(5):
        ration.took(ration.records, ration.records * 600)

    assert ration.records == MAX_RECORDS


def test_large_records_are_taken_few_at_a_time() -> None:
    """As many as weigh what may be taken, at once after the first that were large."""
    ration = Ration(8 * MIB)
    ration.took(FIRST_RECORDS, FIRST_RECORDS * 80 * KIB)

    assert ration.records == 102


def test_a_record_that_is_larger_than_all_that_may_be_taken_is_taken_alone() -> None:
    """There is no other way to get past it."""
    ration = Ration(MIB)
    ration.took(1, 100 * MIB)

    assert ration.records == 1


def test_large_records_among_small_ones_are_not_forgotten_at_once() -> None:
    """What comes in turns is as heavy as the heavier of them."""
    ration = Ration(MIB)
    ration.took(10, 10 * 100 * KIB)
    ration.took(10, 10 * KIB)
    assert ration.records < 20
    for _ in range(100):
        ration.took(10, 10 * KIB)
    assert ration.records > 500


def thread(memory: MemoryShare) -> ConsumerThread:
    """One that holds partition 0 from offset 5 on, and is not started."""
    unused = cast(Any, None)
    made = ConsumerThread(
        "test",
        properties={"group.id": "g"},
        topic="t",
        put=unused,
        stage=unused,
        start="beginning",
        session_timeout=45.0,
        fail=unused,
        memory=memory,
        beside=lambda: 0,
    )
    made._hold(Partition("t", 0), Position(1, 5))
    return made


def cut(sizes: list[int], memory: MemoryShare) -> tuple[ConsumerThread, list[Chunk]]:
    """The chunks of records of these sizes, at the offsets 5, 7, 9 …"""
    made = thread(memory)
    messages = [
        Message(topic="t", partition=0, offset=5 + 2 * place, key=None, value=b"x" * size)
        for place, size in enumerate(sizes)
    ]
    return made, list(made._cut(messages))


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
    """They join without a hole, and none is heavier than a chunk may be unless it is a single record."""
    memory = MemoryShare(4 * MIB)
    assert memory.chunk == 256 * KIB
    made, chunks = cut(sizes, memory)

    assert [len(chunk.records) for chunk in chunks] == expected
    assert [chunk.start for chunk in chunks] == [5, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == 5 + 2 * len(sizes) - 1
    assert made.account.settle() == sum(sizes) + RECORD_OVERHEAD * len(sizes)
    chunks.clear()
    assert made.account.settle() == 0
