"""Leaving the group and joining it again: when, why, and after which pause."""

from flagstream.chunk import Partition
from flagstream.kafka.rejoining import FIRST_PAUSE, LONGEST_PAUSE, Departure, Rejoining

PARTITION = Partition("t", 0)


def test_the_group_is_left_only_when_that_is_planned() -> None:
    """It is left once for each plan."""
    rejoining = Rejoining()
    assert rejoining.begin() is None

    rejoining.plan("slow", [PARTITION])

    assert rejoining.begin() == Departure("slow", [PARTITION], 0.0)
    assert rejoining.begin() is None
    assert (rejoining.count, rejoining.reason) == (1, "slow")


def test_the_pause_grows_from_the_second_time_in_a_row_on() -> None:
    """Each joining makes the whole group share out its partitions again."""
    rejoining = Rejoining()
    pauses = []
    for _ in range(20):
        rejoining.plan("slow", [])
        departure = rejoining.begin()
        assert departure is not None
        pauses.append(departure.pause)

    assert pauses[0] == 0.0
    assert FIRST_PAUSE / 2 <= pauses[1] <= FIRST_PAUSE
    assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE
    assert all(FIRST_PAUSE / 2 <= pause <= LONGEST_PAUSE * 1.5 for pause in pauses[1:])
    assert max(pauses) > 10 * FIRST_PAUSE


def test_a_commit_that_succeeds_ends_the_row() -> None:
    """The next loss joins at once."""
    rejoining = Rejoining()
    for _ in range(3):
        rejoining.plan("slow", [])
        rejoining.begin()

    rejoining.committed()
    rejoining.plan("slow", [])

    assert rejoining.begin() == Departure("slow", [], 0.0)
    assert rejoining.count == 1
