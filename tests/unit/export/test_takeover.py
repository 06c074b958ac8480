"""What follows from what the last owner of a partition left: pure decisions about offsets."""

from collections.abc import Sequence

import pytest

from flagstream.chunk import Partition, Position
from flagstream.errors import PartitionStopped, RecordsMissing
from flagstream.export.takeover import (
    FixedEnd,
    Takeover,
    check_topic,
    first_range_start,
    go_on_with,
    take_over,
)
from flagstream.kafka.commit_metadata import Committed, Plan
from flagstream.window import OffsetRange, OtherwiseNamed

PARTITION = Partition("evaluations", 3)


def position(offset: int, committed: int | None = None, low: int = 0, high: int = 100) -> Position:
    return Position(1, offset, committed, "", low, high)


def held(*ranges: tuple[int, int]) -> list[OffsetRange]:
    return [OffsetRange(PARTITION, start, end) for start, end in ranges]


def plan(end: int, config: str = "shape") -> Plan:
    return Plan(end, 5, "digest", config)


def takeover(
    origin: Position, found: Committed | None = None, holdings: Sequence[OffsetRange] | None = ()
) -> Takeover:
    return take_over(PARTITION, origin, found or Committed(), holdings, "shape", "objects")


def test_a_range_starts_at_the_committed_offset_or_earlier() -> None:
    """Earlier where records were exported nowhere; without an offset it starts where reading does."""
    assert first_range_start(position(10, 10), Committed()) == 10
    assert first_range_start(position(10, 10), Committed(range_start=4)) == 4
    assert first_range_start(position(7), Committed(range_start=4)) == 7


def test_without_anything_left_new_windows_begin_at_once() -> None:
    """Whether the sink holds nothing or cannot know."""
    assert takeover(position(10, 10)) == Takeover(10, [])
    assert takeover(position(10, 10), holdings=None) == Takeover(10, [])


def test_a_plan_comes_first_and_what_is_stored_after_it_next() -> None:
    """Offsets were set back by somebody who kept the metadata: the plan [10, 17), the object [17, 21)."""
    found = Committed(plan(17))

    assert takeover(position(10, 10), found, held((10, 17), (17, 21))) == Takeover(
        10, [FixedEnd(17, plan(17)), FixedEnd(21, None)]
    )


def test_a_plan_up_to_the_end_of_the_topic_is_repeated_and_one_beyond_it_is_not() -> None:
    """17 is the offset that comes next: the topic holds the record at 16."""
    found = Committed(plan(17))

    assert takeover(position(10, 10, high=17), found).ends == [FixedEnd(17, plan(17))]
    with pytest.raises(RecordsMissing, match="the topic ends at 16"):
        takeover(position(10, 10, high=16), found)


def test_a_plan_of_another_configuration_is_not_repeated() -> None:
    """Its objects may exist under other names."""
    with pytest.raises(PartitionStopped, match="fingerprint former, now shape"):
        takeover(position(10, 10), Committed(plan(17, "former")))


@pytest.mark.parametrize(("stored", "start"), [(False, 10), (True, 17)])
def test_a_plan_whose_records_are_all_gone_is_given_up(stored: bool, start: int) -> None:
    """Reading goes on at 20; the next range starts after the plan's if that is stored, else at its start."""
    holdings = held((10, 17)) if stored else ()

    assert takeover(position(20, 10, low=20), Committed(plan(17)), holdings) == Takeover(start, [])


def test_a_plan_of_which_one_record_is_left_is_repeated() -> None:
    """Reading goes on at 16, the last offset of [10, 17)."""
    assert takeover(position(16, 10, low=16), Committed(plan(17))).ends == [FixedEnd(17, plan(17))]


def test_objects_that_join_are_adopted() -> None:
    """Each with its own end."""
    assert takeover(position(5, 5), holdings=held((5, 7), (7, 12))) == Takeover(
        5, [FixedEnd(7, None), FixedEnd(12, None)]
    )


def test_an_object_of_what_became_dead_letters_counts_as_a_range() -> None:
    """It ends where reading begins: the next range starts at its end."""
    assert takeover(position(13, 13), Committed(range_start=10), held((10, 13))) == Takeover(13, [])


@pytest.mark.parametrize("other", [(4, 9), (6, 9)])
def test_objects_that_overlap_what_is_to_come_stop(other: tuple[int, int]) -> None:
    """One offset too early or too late."""
    with pytest.raises(PartitionStopped, match="overlaps"):
        takeover(position(5, 5), holdings=held(other))


def test_objects_beyond_the_end_of_the_topic_stop() -> None:
    """An object that ends at the topic's end is one of it."""
    assert takeover(position(5, 5, high=9), holdings=held((5, 9))).ends == [FixedEnd(9, None)]
    with pytest.raises(PartitionStopped, match="the topic ends at 8"):
        takeover(position(5, 5, high=8), holdings=held((5, 9)))


def test_an_object_under_another_name_stops() -> None:
    """It would be stored a second time."""
    with pytest.raises(PartitionStopped, match=r"as old\.gz"):
        takeover(position(5, 5), holdings=[OtherwiseNamed(PARTITION, 5, 9, "old.gz")])


def test_after_lost_offsets_the_last_window_comes_again() -> None:
    """All windows before it are whole, it may not be."""
    assert go_on_with(PARTITION, position(0), held((0, 7), (7, 9)), "continue", "objects") == 7
    with pytest.raises(PartitionStopped, match="offset of this partition to 7,"):
        go_on_with(PARTITION, position(0), held((0, 7), (7, 9)), "stop", "objects")


def test_after_lost_offsets_the_last_window_has_to_be_in_the_topic() -> None:
    """From its first record, 7, to its last one, 8."""
    windows = held((0, 7), (7, 9))

    assert go_on_with(PARTITION, position(7, low=7, high=9), windows, "continue", "objects") == 7
    with pytest.raises(PartitionStopped, match="reset the group's offset of this partition to 9"):
        go_on_with(PARTITION, position(8, low=8), windows, "continue", "objects")
    with pytest.raises(PartitionStopped, match="truncated or recreated"):
        go_on_with(PARTITION, position(0, high=8), windows, "continue", "objects")


def test_another_topic_under_the_name_stops() -> None:
    """Where both ids are known and differ."""
    check_topic(PARTITION, "one", "one", "objects")
    check_topic(PARTITION, "", "one", "objects")
    check_topic(PARTITION, "one", "", "objects")
    with pytest.raises(PartitionStopped, match="recreated"):
        check_topic(PARTITION, "one", "other", "objects")
