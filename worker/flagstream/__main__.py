"""Starts the command, also as ``python -m flagstream``.

It imports nothing heavy, so that signals are handled from the first moment on: by default SIGTERM would end
the process as a failure, and as process 1 of a container it would be ignored.
"""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command ``flagstream``."""
    if sys.argv[1:2] == ["run"]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end_at_once)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from flagstream.cli import main as command

    command()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process: until the worker handles the signals, there is nothing to deliver."""
    os._exit(0)


if __name__ == "__main__":
    main()
