"""Writes the worker's log in a thread of its own: logging never raises, and never waits for who reads it.

Whoever logs only appends to a bounded queue. A pipe that nobody reads, a reader that is gone and a disk that
is full hold up this thread alone; what does not fit the queue or cannot be written is dropped and counted.
"""

import os
import select
import threading
import time
from collections import deque
from typing import TextIO

import structlog

from flagstream.operate import metrics

log = structlog.get_logger(__name__)

QUEUE_BYTES = 8 * 1024 * 1024
"""What may wait to be written: some 30,000 lines, minutes of the busiest log."""
FLUSH_SECONDS = 1.0
"""How long the end of the process waits for the lines that are queued."""
_WRITABLE_SECONDS = 0.5
_NOTE_SECONDS = 10.0
"""Between two notes about lost lines: a disk that is full stays so for a while."""


class LogWriter:
    """Queues lines for ``stream`` and writes them in a daemon thread. Safe to call from every thread.

    Only the descriptor of ``stream`` is used, so that a failed write leaves nothing in a buffer; a stream
    without one (a terminal emulated by a test) is written to as text.
    """

    def __init__(self, stream: TextIO, *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.lost = 0
        """Lines that were dropped."""
        self._stream = stream
        self._queue_bytes = queue_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._torn = False
        self._noted, self._noted_at = 0, -_NOTE_SECONDS
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue one line, without its line break; drop it if the queue is full."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._waiting_bytes + len(data) > self._queue_bytes:
                self._lose()
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def lose(self) -> None:
        """Count a line that could not even be made."""
        with self._changed:
            self._lose()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all that is queued is written or lost, at most ``seconds``; returns whether it is."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._waiting or self._writing:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _lose(self) -> None:
        self.lost += 1
        metrics.LOG_LINES_LOST.inc()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
                self._writing = True
            try:
                self._write(data)
            except BaseException:  # nothing may end this thread: nobody would write the log from then on
                self.lose()
            else:
                self._note()

    def _note(self) -> None:
        """Log how many lines are missing before this place, once lines can be written again."""
        if self.lost == self._noted or time.monotonic() - self._noted_at < _NOTE_SECONDS:
            return
        lost, self._noted, self._noted_at = self.lost - self._noted, self.lost, time.monotonic()
        log.warning("log_lines_lost", count=lost)

    def _write(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            self._stream.write(data.decode())
            self._stream.flush()
            return
        if self._torn:
            data = b"\n" + data  # the rest of a line was lost; this one begins on a line of its own
        while data:
            try:
                written = os.write(descriptor, data)
            except BlockingIOError:  # somebody made the descriptor non-blocking, and it is shared
                select.select((), (descriptor,), (), _WRITABLE_SECONDS)
                continue
            data = data[written:]
            self._torn = bool(data)
