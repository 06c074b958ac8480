"""Errors that nothing awaits fill no log."""

import errno

from structlog.testing import capture_logs

from flagstream.operate.ignored_errors import REMIND_SECONDS, IgnoredErrors


def test_what_comes_by_the_hundred_is_a_line_a_minute() -> None:
    """The line says how many there were; an error of another kind has a line of its own."""
    now = 0.0
    ignored = IgnoredErrors(lambda: now)
    full = OSError(errno.EMFILE, "Too many open files")

    with capture_logs() as lines:
        for _ in range(500):
            ignored.report("socket.accept() out of system resource", full)
        ignored.report("socket.accept() out of system resource", OSError(errno.ENOBUFS, "No buffer space"))
        ignored.report("Task exception was never retrieved", ValueError())
        now = REMIND_SECONDS
        ignored.report("socket.accept() out of system resource", full)

    assert [(line["event"], line["count"]) for line in lines] == [
        ("error_ignored", 1),
        ("error_ignored", 1),
        ("error_ignored", 1),
        ("error_ignored", 500),
    ]
    assert lines[0]["exc_info"] is full
