"""What must not be committed, and what must not be let go too early: each would lose, double or overflow."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.virtual_time import in_virtual_time, settled
from tests.unit.enrich.rig import FIRST, SECOND, Aborted, Failed, FakeKafka, Rewound, Rig


@in_virtual_time
async def test_a_loss_of_any_partition_shows_at_the_commit() -> None:
    """The epochs of all partitions of the transaction are checked, not only that of the first one."""
    rig = Rig()
    await rig.begin(FIRST, SECOND)
    rig.give(FIRST, 0, 3)
    rig.give(SECOND, 0, 2)
    await settled()
    rig.kafka.take_away(SECOND)
    await asyncio.sleep(1)

    assert rig.kafka.trace[3:] == [Aborted(), Rewound(0, 0)]
    assert rig.kafka.visible == []


class Breaking(FakeKafka):
    """A producer with a fault that nobody foresaw, in the middle of the second batch."""

    def produce_batch(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        if self.transaction:
            super().produce_batch(topic, records[:1])
            raise ZeroDivisionError
        super().produce_batch(topic, records)


@in_virtual_time
async def test_half_a_batch_is_not_committed_by_the_shutdown() -> None:
    """An unforeseen error ends the process; what a shutdown commits until then has no half of a batch."""
    rig = Rig()
    rig.kafka.__class__ = Breaking
    await rig.begin(FIRST)
    rig.give(FIRST, 0, 3)
    rig.give(FIRST, 3, 6)
    await settled()
    await rig.stage.flush()
    await asyncio.sleep(1)

    assert any(isinstance(step, Failed) for step in rig.kafka.trace)
    assert rig.kafka.visible == []
    assert rig.kafka.committed == {}


class Weighing(FakeKafka):
    """A producer that notes what the stage's memory account holds when records are handed to it."""

    rig: Rig
    held: list[int]

    def produce_batch(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        self.held.append(self.rig.account.settle())
        super().produce_batch(topic, records)


@in_virtual_time
async def test_memory_is_given_back_after_records_are_handed_over() -> None:
    """A batch counts as memory until the producer has its records."""
    rig = Rig()
    rig.kafka.__class__ = Weighing
    kafka: Any = rig.kafka
    kafka.rig, kafka.held = rig, []
    await rig.begin(FIRST)
    rig.give(FIRST, 0, 3)
    await asyncio.sleep(1)

    assert all(kafka.held)
    assert len(kafka.held) == 1
    assert rig.account.settle() == 0
