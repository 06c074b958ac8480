"""The memory that windows of all partitions share."""

from dataclasses import dataclass, field

from flagstream.export.budget import MemoryBudget


@dataclass(eq=False)
class Holder:
    """Holds windows, and gives one up when asked."""

    budget: MemoryBudget
    closable: int = 0
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget.enter(self)

    def close_for_memory(self) -> None:
        self.steps.append("closed")

    def unblock(self) -> None:
        self.steps.append("unblocked")


def test_closes_the_fattest_that_can_be_delivered() -> None:
    """One window, and no other."""
    budget = MemoryBudget(100)
    thin, fat, stuck = Holder(budget, 10), Holder(budget, 60), Holder(budget, 0)
    budget.charge(100)

    budget.relieve()

    assert (thin.steps, fat.steps, stuck.steps) == ([], ["closed"], [])


def test_closes_nothing_while_there_is_room() -> None:
    """Windows close by their own limits first."""
    budget = MemoryBudget(100)
    holder = Holder(budget, 60)
    budget.charge(99)

    budget.relieve()

    assert not budget.full
    assert holder.steps == []


def test_closes_nothing_that_could_not_be_delivered() -> None:
    """Where every partition waits for its sink, closing a window would free nothing."""
    budget = MemoryBudget(100)
    holder = Holder(budget, 0)
    budget.charge(150)

    budget.relieve()

    assert holder.steps == []


def test_tells_all_when_there_is_room_again() -> None:
    """Once, when it is no longer full; not for every byte that is freed."""
    budget = MemoryBudget(100)
    one, other = Holder(budget), Holder(budget)
    budget.charge(150)

    budget.charge(-20)
    assert one.steps == []
    budget.charge(-40)
    budget.charge(-40)

    assert one.steps == other.steps == ["unblocked"]


def test_who_has_left_is_asked_no_more() -> None:
    """A partition that was given away neither closes windows nor is woken."""
    budget = MemoryBudget(100)
    gone = Holder(budget, 60)
    budget.charge(150)
    budget.leave(gone)

    budget.relieve()
    budget.charge(-100)

    assert gone.steps == []
