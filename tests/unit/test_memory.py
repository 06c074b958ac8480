"""What waits is weighed: how a share is divided, and an account that forgets nothing and keeps nothing."""

import gc

import pytest

from flagstream.memory import Account, MemoryShare, Weight
from flagstream.units import MIB


@pytest.mark.parametrize("total", [MIB // 10, MIB, 64 * MIB, 128 * MIB, 10 * 1024 * MIB])
def test_a_share_is_divided_so_that_the_parts_fit(total: int) -> None:
    """Whatever its size; only the smallest possible parts may add up to more."""
    share = MemoryShare(total)

    assert share.queued + share.taken + share.produced <= max(total, 2 * MIB)
    assert share.pipeline < share.taken
    assert share.chunk <= share.taken // 4
    assert 0 < share.response <= share.queued


def test_what_is_charged_is_released_once() -> None:
    """A charge is released once also where it becomes something else on the way, or is released twice."""
    account = Account(MemoryShare())
    weight = Weight(account, 100)
    other = Weight(account, 10)

    assert account.settle() == 110
    weight.become(40)
    assert account.settle() == 50
    weight.release()
    weight.release()
    assert account.settle() == 10
    other.release()
    assert account.settle() == 0


def test_what_nobody_holds_any_more_is_not_charged() -> None:
    """A stage lets go of chunks in many ways, and none of them has to notify the account."""
    reported: list[int] = []
    account = Account(MemoryShare(), released=lambda count: reported.append(account.settle()))
    chunks = [Weight(account, 100), Weight(account, 5)]
    assert account.settle() == 105

    chunks.clear()
    gc.collect()

    assert account.settle() == 0
    assert len(reported) == 2


def full(account: Account) -> bool:
    """Whether the account is full now; what it was a moment ago says nothing."""
    return account.full


def test_windows_leave_less_room_for_records_but_always_some() -> None:
    """The stage would get no further without: what it waits for may be a record."""
    share = MemoryShare(64 * MIB)
    windows = 0
    account = Account(share, beside=lambda: windows)
    weight = Weight(account, share.taken - 1)
    assert not full(account)

    weight.become(share.taken)
    assert full(account)
    windows = share.total
    weight.become(share.chunk)
    assert full(account)
    weight.become(share.chunk - 1)
    assert not full(account)


def test_what_is_larger_than_the_whole_is_taken_alone() -> None:
    """A record of any size comes when nothing else waits, and nothing comes after it."""
    account = Account(MemoryShare(MIB))
    assert not full(account)

    weight = Weight(account, 100 * MIB)
    assert full(account)
    weight.release()
    assert not full(account)
