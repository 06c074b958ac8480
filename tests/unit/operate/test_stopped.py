"""Partitions that have stopped look again by themselves, and stay stopped until they are seen to be well."""

from itertools import pairwise

from flagstream.chunk import Partition
from flagstream.operate.stopped import FIRST_PAUSE, LONGEST_PAUSE, WELL_SECONDS, StoppedPartitions

ONE, TWO = Partition("events", 1), Partition("events", 2)


class Rig:
    """Holds partitions that stop; with ``mended`` a look finds nothing wrong."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stopped: dict[Partition, str] = {}
        self.looks: list[tuple[float, Partition]] = []
        self.mended = False
        self.partitions = StoppedPartitions(self.look, lambda: self.now)

    def look(self, partition: Partition) -> None:
        self.looks.append((self.now, partition))
        if self.mended:
            del self.stopped[partition]

    def passed(self, seconds: int) -> list[dict[Partition, str]]:
        """Return what is reported each second meanwhile."""
        reported = []
        for _ in range(seconds):
            self.now += 1
            self.partitions.follow(self.stopped)
            reported.append(self.partitions.problems)
        return reported


def test_a_partition_looks_again_at_growing_intervals_and_never_seems_well() -> None:
    """The partition looks again within a minute at first, never more than ten minutes apart, and is reported
    all the while."""
    rig = Rig()
    rig.stopped[ONE] = "410 Gone"

    reported = rig.passed(7_200)

    times = [at for at, _ in rig.looks]
    pauses = [after - before for before, after in pairwise(times)]
    assert times[0] <= FIRST_PAUSE + 2
    assert LONGEST_PAUSE / 2 <= max(pauses) <= LONGEST_PAUSE + 2
    assert pauses[0] < pauses[5]
    assert all(problems == {ONE: "410 Gone"} for problems in reported)


def test_what_is_mended_is_told_no_more() -> None:
    """Some seconds after a look that found nothing wrong."""
    rig = Rig()
    rig.stopped[ONE] = "410 Gone"
    rig.mended = True
    rig.passed(int(FIRST_PAUSE) + 2)

    assert len(rig.looks) == 1
    rig.passed(int(WELL_SECONDS) + 1)
    assert rig.partitions.problems == {}
    assert rig.passed(600)[-1] == {}


def test_what_was_committed_proves_it_at_once() -> None:
    """A partition that another worker holds by now is not reported."""
    rig = Rig()
    rig.stopped |= {ONE: "no", TWO: "no"}
    rig.mended = True
    rig.passed(int(FIRST_PAUSE) + 2)

    rig.partitions.forget(ONE)
    assert ONE not in rig.partitions.problems
    rig.partitions.forget(TWO)
    assert rig.passed(1) == [{}]


def test_a_person_can_make_them_look_now() -> None:
    """All of them; one that is looking is left alone, and the intervals begin with the shortest again."""
    rig = Rig()
    rig.stopped[ONE] = "no"
    rig.passed(3_600)
    rig.stopped[TWO] = "no"
    rig.passed(1)
    rig.looks.clear()

    rig.partitions.look_now()
    rig.partitions.look_now()

    assert sorted(partition for _, partition in rig.looks) == [ONE, TWO]
    rig.passed(int(FIRST_PAUSE) + 2)
    assert len(rig.looks) >= 4


def test_the_reason_may_change() -> None:
    """A look finds something else."""
    rig = Rig()
    rig.stopped[ONE] = "first"
    rig.passed(1)
    rig.stopped[ONE] = "second"

    assert rig.passed(1) == [{ONE: "second"}]
