"""How far a stage is with a partition: figures that are true, or not there."""

import math

import pytest

from flagstream.chunk import Partition, Position
from flagstream.kafka.ends import Ends
from flagstream.kafka.progress import KNOWN_SECONDS, Figures, Progress

ONE = Partition("events", 1)


class Rig:
    """Progress with two clocks that are moved, of a partition that holds 10 to 40 and is begun at 20."""

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
    """A webhook that is down does not make the lag disappear with what waits for it."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now - 30)
    rig.progress.looked(ONE, 40)

    assert (rig.figures.lag, rig.figures.behind) == (20, 30)
    rig.passed(60)
    rig.progress.measured({ONE: Ends(10, 55, 55)})
    assert (rig.figures.lag, rig.figures.behind) == (35, 90)


def test_at_the_end_there_is_none() -> None:
    """Though the topic ends in markers, which nobody reads, and others come while it is idle."""
    rig = Rig()
    rig.progress.read(ONE, 39, rig.now)
    rig.progress.looked(ONE, 40)
    rig.progress.committed(ONE, 39)

    assert (rig.figures.lag, rig.figures.lag_high, rig.figures.behind) == (0, 0, 0)
    rig.progress.measured({ONE: Ends(10, 42, 42)})
    rig.progress.looked(ONE, 42)
    assert rig.figures.lag == 0


def test_a_plan_is_no_progress() -> None:
    """It commits the offset that was committed before, with metadata."""
    rig = Rig()
    rig.passed(7)
    rig.progress.read(ONE, 30, rig.now)
    rig.progress.committed(ONE, 20)

    assert rig.figures.since_delivery == 7
    rig.progress.committed(ONE, 30)
    assert rig.figures.since_delivery == 0


def test_while_the_brokers_are_away_nothing_is_known_but_time_passes() -> None:
    """No old figure stands for a true one; the age of what is held grows."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now)
    rig.passed(KNOWN_SECONDS + 1)

    found = rig.figures
    assert all(map(math.isnan, (found.lag, found.lag_high, found.margin)))
    assert found.behind == found.since_delivery == KNOWN_SECONDS + 1
    rig.progress.measured({ONE: Ends(10, 40, 40)})
    assert rig.figures.lag == 20


def test_nothing_is_known_of_a_partition_without_a_leader() -> None:
    """Its ends could not be asked for when it was assigned; nothing of it was read."""
    progress = Progress("archive", ONE.topic)
    progress.begin(ONE, Position(1, 20, 20, "", 0, 2**63 - 1))

    found = progress.figures()[ONE]

    assert math.isnan(found.lag)
    assert math.isnan(found.behind)


def test_records_of_open_transactions_count_apart() -> None:
    """Readers cannot have them, so they are in no lag that an alert looks at."""
    rig = Rig()
    rig.progress.looked(ONE, 20)
    rig.progress.measured({ONE: Ends(10, 20, 2_020)})

    assert (rig.figures.lag, rig.figures.lag_high) == (0, 2_000)


def test_retention_comes_nearer() -> None:
    """It has ten records to delete, then five, before it comes to those that are not committed."""
    rig = Rig()

    assert rig.figures.margin == 10
    rig.progress.measured({ONE: Ends(15, 40, 40)})
    assert rig.figures.margin == 5
    rig.progress.measured({ONE: Ends(30, 40, 40)})
    assert rig.figures.margin == 0


@pytest.mark.parametrize("ahead", [3_600, 10**9])
def test_a_clock_that_is_ahead_hides_no_delay(ahead: float) -> None:
    """A record is as old as its arrival, at least."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now + ahead)
    rig.passed(12)

    assert rig.figures.behind == 12


def test_what_is_not_even_read_grows_old_too() -> None:
    """From when it was seen first."""
    rig = Rig()

    assert rig.figures.behind == 0
    rig.passed(9)
    assert (rig.figures.lag, rig.figures.behind) == (20, 9)


def test_a_partition_that_starts_over_forgets_what_it_read_and_not_when_it_delivered() -> None:
    """All of it is read again."""
    rig = Rig()
    rig.progress.read(ONE, 40, rig.now - 500)
    rig.passed(5)
    rig.progress.begin(ONE, Position(2, 20, 20, "", 10, 40))

    assert rig.figures == Figures(20, 20, 0, 5, 10)


def test_a_group_without_an_offset_begins_where_it_reads() -> None:
    """What lies before is not its concern."""
    assert Rig(committed=None).figures.lag == 20


def test_a_partition_that_is_let_go_of_has_no_figures() -> None:
    """Whoever has it now shows them; a late word of it changes nothing."""
    rig = Rig()
    rig.progress.end(ONE)
    rig.progress.committed(ONE, 40)
    rig.progress.measured({ONE: Ends(0, 1, 1)})

    assert rig.progress.figures() == {}


def test_a_lag_that_grows_is_told() -> None:
    """Where the oldest record is late and the least that waited in a whole cycle is more than before."""
    rig = Rig()
    rig.progress.cycle = 4.0
    rig.progress.read(ONE, 40, rig.now)
    for end in range(40, 200, 20):
        rig.progress.measured({ONE: Ends(10, end, end)})
        rig.passed(3)

    assert rig.progress.growing() == (180 - 20, 24)


def test_a_lag_that_comes_and_goes_with_windows_does_not_grow() -> None:
    """Between two commits it always does."""
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
    """However late its records are."""
    rig = Rig()
    rig.progress.cycle = 4.0
    rig.progress.read(ONE, 4_000, rig.now - 10_000)
    for committed in range(30, 300, 30):
        rig.progress.committed(ONE, committed)
        rig.progress.measured({ONE: Ends(10, 4_000 + committed // 2, 4_000 + committed // 2)})
        rig.passed(3)

    assert rig.progress.growing() is None


def test_what_is_given_back_counts_as_not_read() -> None:
    """It is read again later, and is no older for having been read twice."""
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
