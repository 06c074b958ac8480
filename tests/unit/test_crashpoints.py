"""Crash points are armed by a variable, are counted, and do nothing when off."""

import os
import signal
import subprocess
import sys

import pytest

from flagstream import crashpoints
from flagstream.crashpoints import POINTS
from tests.support.kafka_jars import REPOSITORY

PROGRAM = """
import os, sys
from flagstream import crashpoints
crashpoints.arm(os.environ.get("FLAGSTREAM_CRASH", ""))
for point in sys.argv[1:]:
    crashpoints.crash_point(point)
    print(point, flush=True)
"""


def start(crash: str, *points: str) -> subprocess.Popen[str]:
    """A process that reaches these points one after the other and prints each that it gets past."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *points],
        env={**os.environ, "FLAGSTREAM_CRASH": crash, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


def passed(crash: str, *points: str) -> tuple[int, list[str]]:
    """Exit code of such a process and the points it got past."""
    with start(crash, *points) as process:
        output, _ = process.communicate(timeout=30)
        return process.returncode, output.split()


def test_nothing_happens_when_nothing_is_armed() -> None:
    """Without the variable every point is passed."""
    assert passed("", *sorted(POINTS)) == (0, sorted(POINTS))


def test_the_process_dies_where_it_is_told_to() -> None:
    """The process dies by SIGKILL, at that point and no other."""
    assert passed("export.planned:kill", "export.planning", "export.planned", "export.delivered") == (
        -signal.SIGKILL,
        ["export.planning"],
    )


def test_the_time_it_is_reached_can_be_chosen() -> None:
    """The second time: the first one passes."""
    assert passed("enrich.produced:kill:2", *["enrich.produced"] * 3) == (
        -signal.SIGKILL,
        ["enrich.produced"],
    )


def test_several_points_can_be_armed() -> None:
    """Whichever comes first."""
    crash = "export.committed:kill, enrich.committed:kill"

    assert passed(crash, "enrich.produced", "enrich.committed") == (-signal.SIGKILL, ["enrich.produced"])


def test_a_frozen_process_goes_on_when_it_is_woken() -> None:
    """SIGSTOP at the point, SIGCONT from the test; it freezes there once."""
    with start("enrich.produced:freeze", "enrich.produced", "enrich.produced") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=30)

    assert output.split() == ["enrich.produced", "enrich.produced"]


@pytest.mark.parametrize(
    "text", ["nowhere:kill", "enrich.produced", "enrich.produced:explode", "enrich.produced:kill:often"]
)
def test_a_mistake_is_refused(text: str) -> None:
    """A test that means to crash and does not would pass for the wrong reason."""
    with pytest.raises(ValueError, match=r"FLAGSTREAM_CRASH|often"):
        crashpoints.arm(text)
