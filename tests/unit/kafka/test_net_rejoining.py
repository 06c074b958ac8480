"""A member whose commits always fail must not make the group share out its partitions all the time."""

from flagstream.kafka.rejoining import FIRST_PAUSE, LONGEST_PAUSE, Rejoining


def test_the_first_time_is_without_a_pause_and_the_next_ones_are_not() -> None:
    """From the second time in a row on there is a pause, which grows up to a limit."""
    rejoining = Rejoining()
    pauses = []
    for _ in range(20):
        rejoining.plan("slow", [])
        departure = rejoining.begin()
        assert departure is not None
        pauses.append(departure.pause)

    assert pauses[0] == 0.0
    assert all(FIRST_PAUSE / 2 <= pause <= LONGEST_PAUSE * 1.5 for pause in pauses[1:])
    assert max(pauses) > 10 * FIRST_PAUSE


def test_a_commit_ends_the_row() -> None:
    """After a commit the group is left and joined again without a pause."""
    rejoining = Rejoining()
    for _ in range(3):
        rejoining.plan("slow", [])
        rejoining.begin()
    rejoining.committed()
    rejoining.plan("slow", [])
    departure = rejoining.begin()

    assert departure is not None
    assert departure.pause == 0.0
