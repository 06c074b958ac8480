"""Records that wait for the end of an open transaction."""

from flagstream.chunk import Partition
from flagstream.kafka.ends import Ends
from flagstream.kafka.open_transactions import OPEN_SECONDS, OpenTransactions

ONE = Partition("events", 1)


class Rig:
    """Open transactions with two clocks that the test moves."""

    def __init__(self) -> None:
        self.at, self.now = 100.0, 1_000_000.0
        self.open = OpenTransactions(lambda: self.at, lambda: self.now)

    def passed(self, seconds: float) -> None:
        self.at += seconds
        self.now += seconds

    @property
    def problems(self) -> list[str]:
        return [blocked.problem for blocked in self.open.blocked()]


def test_a_transaction_that_stays_open_is_reported() -> None:
    """A transaction that stays open is reported: how many records wait, where, and since when. More may come
    meanwhile.
    """
    rig = Rig()
    rig.open.measured(ONE, Ends(0, 40, 50), reached=True)
    assert rig.problems == []
    rig.passed(OPEN_SECONDS)
    rig.open.measured(ONE, Ends(0, 40, 2_040), reached=True)

    [problem] = rig.problems
    assert (
        "2000 records wait behind an open transaction of events-1 since 1970-01-12T13:46:40+00:00" in problem
    )
    rig.open.measured(ONE, Ends(0, 2_041, 2_041), reached=True)
    assert rig.problems == []


def test_transactions_that_follow_each_other_are_well() -> None:
    """A busy topic always has an open transaction, but never the same one for long: nothing is reported."""
    rig = Rig()
    for second in range(60):
        rig.open.measured(ONE, Ends(0, 40 + second, 50 + second), reached=True)
        rig.passed(5)
        assert rig.problems == []


def test_who_has_not_come_so_far_does_not_wait_for_it() -> None:
    """A reader that has not reached the open transaction does not wait for it."""
    rig = Rig()
    for _ in range(5):
        rig.open.measured(ONE, Ends(0, 40, 50), reached=False)
        rig.passed(OPEN_SECONDS)

    assert rig.problems == []


def test_a_partition_that_is_let_go_is_forgotten() -> None:
    """A partition that is not held any more is not reported: its next owner does that."""
    rig = Rig()
    rig.open.measured(ONE, Ends(0, 40, 50), reached=True)
    rig.passed(OPEN_SECONDS)
    rig.open.forget(ONE)

    assert rig.problems == []
