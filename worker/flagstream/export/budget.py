"""One memory budget for the windows of all partitions and sinks of the process."""

from typing import Protocol

from flagstream.operate import metrics

WINDOW_OVERHEAD = 40 * 1024
"""Bytes that a window is counted as in addition to what its encoder reports: the engine's own objects."""


class Tenant(Protocol):
    """The holder of windows: the export of a partition."""

    @property
    def closable(self) -> int:
        """Bytes that would be delivered next if the open window were closed now; 0 if it cannot be."""
        ...

    def close_for_memory(self) -> None:
        """Close the open window."""
        ...

    def wake(self) -> None:
        """Look again whether there is room. Called when there is some again; must not use the budget."""
        ...


class MemoryBudget:
    """Counts the bytes of all windows. At the limit the largest window that can be delivered is closed. If
    there is none, partitions wait until one has been delivered. Windows that repeat a plan are counted but
    never wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: dict[Tenant, int] = {}

    def enter(self, tenant: Tenant) -> None:
        """Begin to count the windows of ``tenant``."""
        self._held[tenant] = 0

    def leave(self, tenant: Tenant) -> None:
        """Give back what ``tenant`` holds, and ask it no more."""
        self.hold(tenant, 0)
        del self._held[tenant]

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken."""
        return self.used >= self.limit

    def hold(self, tenant: Tenant, size: int) -> None:
        """Count ``size`` bytes for the windows of ``tenant`` from now on."""
        change = size - self._held[tenant]
        if not change:
            return
        was_full = self.full
        self._held[tenant] = size
        self.used += change
        metrics.WINDOW_MEMORY.inc(change)  # of all budgets together
        if was_full and not self.full:
            for other in self._held:
                other.wake()

    def relieve(self) -> None:
        """Close the largest window that can be closed, if the budget is used up."""
        if not self.full:
            return
        largest = max(self._held, key=lambda tenant: tenant.closable, default=None)
        if largest is not None and largest.closable:
            largest.close_for_memory()
