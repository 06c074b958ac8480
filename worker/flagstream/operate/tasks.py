"""One owner of asyncio tasks, which reports the end of each that ends by itself."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from flagstream.errors import FlagstreamError, OwnershipLost

log = structlog.get_logger(__name__)


class TaskEnded(FlagstreamError):
    """A task that has to run as long as its owner ended, or was cancelled by somebody else."""


class Tasks:
    """Starts tasks and keeps them until they end.

    ``fail`` is called, on the event loop, with the error of a task that died: one that raised, one that
    somebody other than this owner cancelled, and one that returned although it was started with
    ``lasts=True``. ``OwnershipLost`` is not a death: the partition moved on, and its work ends. ``dead``
    holds the names of the tasks that died, for the health pages.
    """

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self.dead: list[str] = []
        self._fail = fail
        self._running: dict[asyncio.Task[Any], bool] = {}

    def start(self, name: str, work: Coroutine[Any, Any, None], *, lasts: bool = False) -> asyncio.Task[None]:
        """Run ``work`` as a task. ``lasts``: it has to run until :meth:`cancel`, so its return is a death."""
        task = asyncio.create_task(work, name=name)
        self._running[task] = lasts
        task.add_done_callback(self._ended)
        return task

    def cancel(self, *tasks: asyncio.Task[Any]) -> None:
        """Cancel ``tasks``, or all of them if none is named. Their end is not a death from here on."""
        for task in tasks or tuple(self._running):
            self._running.pop(task, None)
            task.cancel()

    def __len__(self) -> int:
        return len(self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        lasts = self._running.pop(task, None)
        if lasts is None:
            # Cancelled by us. Its exception is looked at, or asyncio logs that nobody did.
            if not task.cancelled():
                task.exception()
            return
        name = task.get_name()
        error: BaseException | None
        if task.cancelled():
            error = TaskEnded(f"the task {name} was cancelled")
        elif (error := task.exception()) is None:
            error = TaskEnded(f"the task {name} returned") if lasts else None
        if isinstance(error, OwnershipLost):
            log.debug("work_after_loss", task=name, error=str(error))
        elif error is not None:
            self.dead.append(name)
            self._fail(error)
