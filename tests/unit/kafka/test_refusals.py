"""The search for the records that a topic refuses."""

from collections.abc import Collection, Sequence

import pytest

from flagstream.kafka.refusals import ALL, TopicRefusesAll, find_refused, find_untimely

NOW = 1_700_000_000_000
HOUR = 3_600_000


class Topic:
    """Refuses whatever holds one of ``bad``; ``tries`` counts."""

    def __init__(self, bad: Collection[int]) -> None:
        self.bad, self.tries = bad, 0

    def takes(self, some: Sequence[int]) -> bool:
        self.tries += 1
        return not any(index in self.bad for index in some)


@pytest.mark.parametrize("bad", [{0}, {999}, {17, 18, 512}, set()])
def test_each_refused_record_is_found(bad: set[int]) -> None:
    """Wherever they are, in few tries, and no other is."""
    topic = Topic(bad)

    assert set(find_refused(1_000, topic.takes)) == bad
    assert topic.tries <= 1 + 22 * len(bad)


def test_a_topic_that_refuses_all_condemns_no_record() -> None:
    """A setting of the topic is at fault; a few records in all may well be bad, though."""
    assert find_refused(ALL - 1, Topic(range(ALL - 1)).takes) == list(range(ALL - 1))
    with pytest.raises(TopicRefusesAll):
        find_refused(1_000, Topic(range(1_000)).takes)


def test_a_search_ends() -> None:
    """With what it has found; the rest is found when these are out of the way."""
    found = find_refused(10_000, Topic(range(1, 10_000)).takes)

    assert found
    assert 0 not in found


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([0, -1, -2, -5, -3], [2, 3, 4]),
        ([-5, -5, 9, 0, 1, 2], [0, 1, 2, 5]),
        ([-9] * 5_000, list(range(5_000))),
        ([0, 0, 1, -1], []),
        ([], []),
    ],
)
def test_times_too_far_back_or_ahead_are_found_by_two_boundaries(
    hours: list[int], expected: list[int]
) -> None:
    """One hour and a half both ways here; also where all are refused, for each says so by itself."""
    times = [NOW + hour * HOUR for hour in hours]
    topic = Topic([i for i, hour in enumerate(hours) if abs(hour) > 1.5])

    assert sorted(find_untimely(times, NOW, topic.takes)) == expected
    assert topic.tries <= 30
