"""How far a stage is with a partition: the figures are true, or unknown."""

import math

import pytest

from flagstream.chunk import Partition, Position
from flagstream.kafka.ends import Ends
from flagstream.kafka.progress import KNOWN_SECONDS, Figures, Progress

ONE = Partition("events", 1)


class Rig:
    """Progress with two clocks that the test moves, of a partition that holds 10 to 40 and begins at 20."""

    def __init__(self, committed: int | None = 20) -> None:
        self.at, self.now = 100.0, 1_000_000.0
        self.progress = Progress("archive", ONE.topic, lambda: self.at, lambda: self.now)
        self.progress.begin(ONE, Position(1, 20, committed, "", 10, 40))

    def passed(self, seconds: float) -> None:
        self.at += seconds
        self.now += seconds

    @property
    def figures(self) -> Figures:
        return self.progress.figures()[ONE]


def test_what_is_read_and_not_committed_is_lag() -> None:
    """Records that are read and wait for a delivery still count as lag."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now - 30)
    rig.progress.looked(ONE, 40)

    assert (rig.figures.lag, rig.figures.behind) == (20, 30)
    rig.passed(60)
    rig.progress.measured({ONE: Ends(10, 55, 55)})
    assert (rig.figures.lag, rig.figures.behind) == (35, 90)


def test_at_the_end_there_is_none() -> None:
    """At the end of a topic the lag is 0, although markers follow the last record and more come while it is
    idle.
    """
    rig = Rig()
    rig.progress.read(ONE, 39, rig.now)
    rig.progress.looked(ONE, 40)
    rig.progress.committed(ONE, 39)

    assert (rig.figures.lag, rig.figures.lag_high, rig.figures.behind) == (0, 0, 0)
    rig.progress.measured({ONE: Ends(10, 42, 42)})
    rig.progress.looked(ONE, 42)
    assert rig.figures.lag == 0


def test_a_plan_is_no_progress() -> None:
    """A plan commits the same offset again, with metadata, which is not a delivery."""
    rig = Rig()
    rig.passed(7)
    rig.progress.read(ONE, 30, rig.now)
    rig.progress.committed(ONE, 20)

    assert rig.figures.since_delivery == 7
    rig.progress.committed(ONE, 30)
    assert rig.figures.since_delivery == 0


def test_while_the_brokers_are_away_nothing_is_known_but_time_passes() -> None:
    """While the brokers do not answer the lag is unknown, and the age of what is held grows."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now)
    rig.passed(KNOWN_SECONDS + 1)

    found = rig.figures
    assert all(map(math.isnan, (found.lag, found.lag_high, found.margin)))
    assert found.behind == found.since_delivery == KNOWN_SECONDS + 1
    rig.progress.measured({ONE: Ends(10, 40, 40)})
    assert rig.figures.lag == 20


def test_nothing_is_known_of_a_partition_without_a_leader() -> None:
    """If the ends could not be asked for at assignment and nothing was read, all figures are unknown."""
    progress = Progress("archive", ONE.topic)
    progress.begin(ONE, Position(1, 20, 20, "", 0, 2**63 - 1))

    found = progress.figures()[ONE]

    assert math.isnan(found.lag)
    assert math.isnan(found.behind)


def test_records_of_open_transactions_count_apart() -> None:
    """Readers cannot get records of open transactions, so these are not in the lag that alerts watch."""
    rig = Rig()
    rig.progress.looked(ONE, 20)
    rig.progress.measured({ONE: Ends(10, 20, 2_020)})

    assert (rig.figures.lag, rig.figures.lag_high) == (0, 2_000)


def test_retention_comes_nearer() -> None:
    """The margin is ten records, then five, that retention can delete before one that is not committed."""
    rig = Rig()

    assert rig.figures.margin == 10
    rig.progress.measured({ONE: Ends(15, 40, 40)})
    assert rig.figures.margin == 5
    rig.progress.measured({ONE: Ends(30, 40, 40)})
    assert rig.figures.margin == 0


@pytest.mark.parametrize("ahead", [3_600, 10**9])
def test_a_clock_that_is_ahead_hides_no_delay(ahead: float) -> None:
    """If the producer's clock is ahead, a record is at least as old as its arrival."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now + ahead)
    rig.passed(12)

    assert rig.figures.behind == 12


def test_what_is_not_even_read_grows_old_too() -> None:
    """The age of records that are not read yet counts from when they were first seen."""
    rig = Rig()

    assert rig.figures.behind == 0
    rig.passed(9)
    assert (rig.figures.lag, rig.figures.behind) == (20, 9)


def test_a_partition_that_starts_over_forgets_what_it_read_and_not_when_it_delivered() -> None:
    """A rewind forgets the chunks that were read, as they are read again, and keeps the time of the last
    delivery.
    """
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now - 500)
    rig.passed(5)
    rig.progress.begin(ONE, Position(2, 20, 20, "", 10, 40))

    assert rig.figures == Figures(20, 20, 0, 5, 10)


def test_a_group_without_an_offset_begins_where_it_reads() -> None:
    """For a group without an offset, records before its start are not lag."""
    assert Rig(committed=None).figures.lag == 20


def test_a_partition_that_is_let_go_of_has_no_figures() -> None:
    """A partition that is not held has no figures, and a late report about it changes nothing."""
    rig = Rig()
    rig.progress.end(ONE)
    rig.progress.committed(ONE, 40)
    rig.progress.measured({ONE: Ends(0, 1, 1)})

    assert rig.progress.figures() == {}


def test_a_lag_that_grows_is_reported() -> None:
    """A lag counts as growing if the oldest record is late and the smallest lag of a whole cycle is larger
    than the lag before it.
    """
    rig = Rig()
    rig.progress.cycle = 4.0
    rig.progress.read(ONE, 40, rig.now)
    for end in range(40, 200, 20):
        rig.progress.measured({ONE: Ends(10, end, end)})
        rig.passed(3)

    assert rig.progress.growing() == (180 - 20, 24)


def test_a_lag_that_comes_and_goes_with_windows_does_not_grow() -> None:
    """The lag between two commits always grows, which does not count."""
    rig = Rig()
    rig.progress.cycle = 9.0
    for end in range(40, 400, 10):
        rig.progress.read(ONE, end, rig.now - 100)
        rig.progress.measured({ONE: Ends(10, end, end)})
        rig.passed(3)
        if end % 30 == 0:
            rig.progress.committed(ONE, end)

        assert rig.progress.growing() is None


def test_a_backlog_that_shrinks_does_not_grow() -> None:
    """A shrinking backlog does not count as growing, however late its records are."""
    rig = Rig()
    rig.progress.cycle = 4.0
    rig.progress.read(ONE, 4_000, rig.now - 10_000)
    for committed in range(30, 300, 30):
        rig.progress.committed(ONE, committed)
        rig.progress.measured({ONE: Ends(10, 4_000 + committed // 2, 4_000 + committed // 2)})
        rig.passed(3)

    assert rig.progress.growing() is None


def test_what_is_given_back_counts_as_not_read() -> None:
    """Records that were given back count as not read, and are no older for being read twice."""
    rig = Rig()
    rig.progress.read(ONE, 30, rig.now - 50)
    rig.progress.read(ONE, 40, rig.now - 20)
    rig.progress.looked(ONE, 40)

    rig.progress.begin_again(ONE, 30)
    rig.passed(5)
    rig.progress.measured({ONE: Ends(10, 40, 40)})
    assert (rig.figures.lag, rig.figures.behind) == (20, 55)
    rig.progress.read(ONE, 40, rig.now - 25)
    rig.progress.committed(ONE, 40)

    assert (rig.figures.lag, rig.figures.behind) == (0, 0)
