"""What must not get into a transaction: batches after a failed end, or of a partition that is revoked."""

import asyncio

import pytest
from structlog.testing import capture_logs

from flagstream.errors import ExitCode, Fatal
from tests.support.virtual_time import in_virtual_time
from tests.unit.enrich.rig import FIRST, Answer
from tests.unit.enrich.test_two_partitions import with_both_in_a_transaction


@in_virtual_time
async def test_nothing_is_committed_after_a_transaction_that_failed_for_good() -> None:
    """The process ends. Until then no batch goes on where the failed transaction ended, since its records are
    not visible, and none is reported as out of order.
    """
    rig = await with_both_in_a_transaction()
    rig.kafka.answers.append(Answer(Fatal(ExitCode.FENCED, "fenced"), landed=False))
    await asyncio.sleep(1)

    with capture_logs() as lines:
        rig.give(FIRST, 3, 6)
        await asyncio.sleep(0.01)
        rig.give(FIRST, 6, 9)
        await rig.stage.flush()

    assert not rig.kafka.committed.get(FIRST)
    assert [line for line in lines if line["event"] == "chunk_out_of_order"] == []


@pytest.mark.parametrize("turns", range(12))
@in_virtual_time
async def test_no_transaction_holds_a_partition_that_was_revoked(turns: int) -> None:
    """A batch may arrive at any turn of the loop during the flush of a revoke; the next owner reads it."""
    rig = await with_both_in_a_transaction()
    revoking = asyncio.ensure_future(rig.stage.revoked([FIRST]))
    for _ in range(turns):
        await asyncio.sleep(0)

    rig.give(FIRST, 3, 6)
    await revoking
    await asyncio.sleep(0)

    assert rig.stage._transaction.tenure_of(FIRST) is None
