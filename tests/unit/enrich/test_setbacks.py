"""What failed transactions teach the enrich stage."""

import pytest

from flagstream.chunk import Partition
from flagstream.enrich.setbacks import ALONE_SECONDS, LONGEST_PAUSE, Setbacks

ONE, OTHER = Partition("ingest", 1), Partition("ingest", 2)


def texts(setbacks: Setbacks) -> list[str]:
    return [problem.text for problem in setbacks.problems()]


def test_pauses_grow_and_a_commit_ends_them() -> None:
    """The first failure is not a problem yet."""
    setbacks = Setbacks()
    pauses = [setbacks.failed("why", 10.0)]
    assert texts(setbacks) == []
    pauses += [setbacks.failed("why", 10.0) for _ in range(9)]

    assert pauses[0] < 0.5
    assert LONGEST_PAUSE / 2 <= pauses[-1] <= LONGEST_PAUSE
    assert setbacks.left(10.0) == pytest.approx(pauses[-1])
    assert "10 in a row" in texts(setbacks)[0]
    assert "why" in texts(setbacks)[0]
    setbacks.committed([ONE], 20.0)
    assert texts(setbacks) == []
    assert setbacks.failed("again", 20.0) < 0.5


def test_a_partition_that_is_refused_waits_alone() -> None:
    """It is named, and others that succeed neither wait for it nor end its pauses."""
    setbacks = Setbacks()
    setbacks.part([ONE, OTHER], 0.0)
    pauses = []
    for _ in range(8):
        pauses.append(setbacks.refused(ONE, "no such topic", 0.0))
        setbacks.committed([OTHER], 0.0)

    [problem] = setbacks.problems()
    assert problem.partition == "ingest-1"
    assert "no such topic" in problem.text
    assert pauses[-1] > 10
    setbacks.refused(ONE, "no such topic", 0.0)
    assert setbacks.left(0.0) < 0.5


def test_where_none_succeeds_all_wait_longer() -> None:
    """The topic refuses them all: 256 partitions need not each find out as often as they may."""
    setbacks = Setbacks()
    for index in range(8):
        setbacks.refused(Partition("ingest", index), "no right", 0.0)

    assert setbacks.left(0.0) > 10


def test_a_partition_keeps_to_itself_for_a_while() -> None:
    """Bad records come in crowds; a minute without one ends it."""
    setbacks = Setbacks()
    setbacks.part([ONE], 0.0)
    setbacks.committed([ONE], ALONE_SECONDS)
    assert setbacks.alone(ONE)

    setbacks.committed([ONE], ALONE_SECONDS + 1)
    assert not setbacks.alone(ONE)


def test_what_failed_goes_with_the_partitions() -> None:
    """Their next owner commits, and no commit of ours would end the problem. If it is ours, it comes back."""
    setbacks = Setbacks()
    for _ in range(3):
        setbacks.failed("why", 0.0)
    setbacks.forget([ONE])
    assert texts(setbacks) == []

    setbacks.failed("why", 0.0)
    assert "4 in a row" in texts(setbacks)[0]
