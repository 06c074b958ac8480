"""One memory budget for the windows of all partitions and sinks of the process."""

from typing import Protocol

from flagstream.operate import metrics

WINDOW_OVERHEAD = 40 * 1024
"""Bytes a window is counted as beside what its encoder says that it takes: the engine's own objects."""


class Tenant(Protocol):
    """Whoever holds windows: a partition of a sink."""

    @property
    def closable(self) -> int:
        """Bytes that would be on their way out if the filling window were closed now; 0 if it cannot be."""
        ...

    def close_for_memory(self) -> None:
        """Close the filling window."""
        ...

    def unblock(self) -> None:
        """There may be room again."""
        ...


class MemoryBudget:
    """Counts the bytes of all windows. At the limit the fattest window that can be delivered is closed; if
    there is none, partitions wait until one has been delivered. Windows that repeat a plan are counted but
    never wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._tenants: list[Tenant] = []

    def enter(self, tenant: Tenant) -> None:
        self._tenants.append(tenant)

    def leave(self, tenant: Tenant) -> None:
        self._tenants.remove(tenant)

    @property
    def full(self) -> bool:
        return self.used >= self.limit

    def charge(self, size: int) -> None:
        """Count ``size`` more bytes (fewer, if negative)."""
        was_full = self.full
        self.used += size
        metrics.WINDOW_MEMORY.inc(size)  # of all budgets together
        if was_full and not self.full:
            for tenant in list(self._tenants):
                tenant.unblock()

    def relieve(self) -> None:
        """Close the fattest window that can be closed, if the budget is used up."""
        if not self.full:
            return
        fattest = max(self._tenants, key=lambda tenant: tenant.closable, default=None)
        if fattest is not None and fattest.closable:
            fattest.close_for_memory()
