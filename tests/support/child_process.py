"""Child processes that do not outlive their parent."""

import ctypes
import signal
import sys
from collections.abc import Callable

# PR_SET_PDEATHSIG of <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

# Loaded before any fork: between fork and exec nothing but the call itself may run.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel send the child signal `number` when its parent dies, in any way.

    The kernel watches the *thread* that starts the child, so that has to be one that lasts. Other systems
    than Linux have no such call: there the child of a parent that was killed with SIGKILL goes on.
    """
    if _LIBC is None:
        return None
    prctl, value = _LIBC.prctl, int(number)
    return lambda: prctl(_PR_SET_PDEATHSIG, value, 0, 0, 0)
