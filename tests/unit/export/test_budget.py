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

    def wake(self) -> None:
        self.steps.append("woken")


def test_closes_the_fattest_that_can_be_delivered() -> None:
    """One window, and no other."""
    budget = MemoryBudget(100)
    thin, fat, stuck = Holder(budget, 10), Holder(budget, 60), Holder(budget, 0)
    budget.hold(stuck, 100)

    budget.relieve()

    assert (thin.steps, fat.steps, stuck.steps) == ([], ["closed"], [])


def test_closes_nothing_while_there_is_room() -> None:
    """Windows close by their own limits first."""
    budget = MemoryBudget(100)
    holder = Holder(budget, 60)
    budget.hold(holder, 99)

    budget.relieve()

    assert not budget.full
    assert holder.steps == []


def test_closes_nothing_that_could_not_be_delivered() -> None:
    """Where every partition waits for its sink, closing a window would free nothing."""
    budget = MemoryBudget(100)
    holder = Holder(budget, 0)
    budget.hold(holder, 150)

    budget.relieve()

    assert holder.steps == []


def test_tells_all_when_there_is_room_again() -> None:
    """Once, when it is no longer full; not for every byte that is given back."""
    budget = MemoryBudget(100)
    one, other = Holder(budget), Holder(budget)
    budget.hold(one, 150)

    budget.hold(one, 130)
    assert one.steps == []
    budget.hold(one, 90)
    budget.hold(one, 50)

    assert one.steps == other.steps == ["woken"]


def test_who_has_left_is_asked_no_more() -> None:
    """A partition that was given away neither closes windows nor is woken."""
    budget = MemoryBudget(100)
    gone = Holder(budget, 60)
    other = Holder(budget)
    budget.hold(other, 150)
    budget.leave(gone)

    budget.relieve()
    budget.hold(other, 50)

    assert gone.steps == []


def test_who_leaves_gives_back_what_it_holds() -> None:
    """Its windows are counted no more, and the others look again."""
    budget = MemoryBudget(100)
    gone, other = Holder(budget), Holder(budget)
    budget.hold(gone, 150)

    budget.leave(gone)

    assert budget.used == 0
    assert other.steps == ["woken"]
