"""Named steps at which a test may kill or freeze the process.

``FLAGSTREAM_CRASH=export.planned:kill:2`` makes the process die (SIGKILL) when it reaches the step
``export.planned`` for the second time; ``enrich.produced:freeze`` stops it (SIGSTOP) there the first time.
Several are separated by commas. Without the variable a step costs one comparison. It is for tests only: the
worker ignores the variable unless ``FLAGSTREAM_TEST_CRASH_POINTS=allowed`` is set too, and no guarantee rests
on it.
"""

import signal
import threading
from collections import Counter

POINTS = frozenset(
    {
        "enrich.produced",  # records are in the open transaction, its offsets are not
        "transaction.offsets_sent",  # offsets too, not committed
        "enrich.committed",  # the transaction is committed, the stage does not know it
        "source.revoking",  # inside a revoke callback, before anything is finished
        "export.planning",  # a window is closed, its plan not yet written
        "export.planned",  # the plan is committed, nothing delivered
        "export.indexed",  # in a layout by fields: the index was just stored, the objects were not
        "export.dividing",  # the cut of a refused part, or what is settled since, is not in the plan yet
        "export.divided",  # it is committed, nothing is sent under the new ids
        "export.part_accepted",  # the sink has accepted a part of a window, the plan does not say so
        "export.delivering",  # the sink has stored the window, the engine does not know it
        "export.delivered",  # the engine knows, the offset is not committed
        "export.committed",  # the offset is committed
    }
)

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}

_armed: dict[str, tuple[signal.Signals, int]] = {}
_passed: Counter[str] = Counter()


def arm(text: str) -> None:
    """Arm the steps named in ``text`` (the value of FLAGSTREAM_CRASH). Raises ValueError for an unknown step
    or action.
    """
    for item in filter(None, text.split(",")):
        point, _, rest = item.strip().partition(":")
        action, _, count = rest.partition(":")
        if point not in POINTS or action not in _SIGNALS:
            raise ValueError(
                f"FLAGSTREAM_CRASH: {item!r} is not a step:action[:count]; steps: {', '.join(sorted(POINTS))}"
            )
        _armed[point] = (_SIGNALS[action], int(count or 1))


def crash_point(point: str) -> None:
    """Die or freeze here, if a test armed the step ``point``. The engine calls it at each step."""
    if _armed and point in _armed:
        _passed[point] += 1
        action, count = _armed[point]
        if _passed[point] == count:
            # To this thread: a signal to the process may reach another thread first, and stop this one later.
            signal.pthread_kill(threading.get_ident(), action)
