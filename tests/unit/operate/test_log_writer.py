"""The log's writer: who logs is never held up, and what is lost is counted."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from flagstream.operate.log_writer import LogWriter
from tests.support.kafka_jars import REPOSITORY


class Pipe:
    """Holds a pipe of the kernel: `end` is what the worker writes to."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.end: TextIO = os.fdopen(writing, "w")

    def line(self) -> str:
        """The next line that was written."""
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select((self.reading,), (), (), 10)
            assert ready, f"nothing more than {text!r}"
            text += os.read(self.reading, 1)
        return text.decode()


def test_lines_are_written_in_their_order() -> None:
    """What is put is what is read, one line each, whatever characters it has."""
    pipe = Pipe()
    writer = LogWriter(pipe.end)

    writer.put("one")
    writer.put("é \udcff")

    assert pipe.line() == "one\n"
    assert pipe.line() == "é \\udcff\n"
    assert writer.flush(10)
    assert writer.lost == 0


@pytest.mark.parametrize("broken", ["full", "closed", "no reader"])
def test_a_log_that_cannot_be_written_loses_lines_and_raises_nothing(broken: str) -> None:
    """A full disk, a closed descriptor, a pipe without a reader: each line is counted as lost."""
    if broken == "full":
        stream: TextIO = Path("/dev/full").open("w")  # noqa: SIM115  # outlives this function's thread
    else:
        pipe = Pipe()
        stream = pipe.end
        os.close(pipe.reading)
        if broken == "closed":
            stream.close()
    writer = LogWriter(stream)

    for number in range(3):
        writer.put(f"line {number}")

    assert writer.flush(10)
    assert writer.lost == 3


def test_a_pipe_that_nobody_reads_holds_up_nobody() -> None:
    """Lines are queued up to a bound and dropped beyond it, and a flush ends in time."""
    pipe = Pipe()
    writer = LogWriter(pipe.end, queue_bytes=100_000)

    for _ in range(1_000):
        writer.put("x" * 999)

    assert writer.lost >= 800
    assert writer.flush(0.05) is False
    os.close(pipe.reading)  # ends the write that is under way


def test_a_line_after_a_torn_one_begins_on_a_line_of_its_own() -> None:
    """Where a write ended in the midst of a line, the next line does not continue it."""
    pipe = Pipe()
    os.set_blocking(pipe.end.fileno(), False)
    writer = LogWriter(pipe.end)
    big = "y" * 100_000  # more than the pipe holds, so it is written in parts

    writer.put(big)
    writer.put("after")

    assert pipe.line() == big + "\n"
    assert pipe.line() == "after\n"
    assert writer.lost == 0


PROGRAM = """
import logging, sys, threading, warnings
import structlog
from flagstream.operate.logging import configure

class Unprintable:
    def __repr__(self):
        raise RuntimeError("no text")

def dies():
    canary = "canary-in-a-frame"
    raise ValueError("thread error")

writer = configure(sys.argv[1], "info")
log = structlog.get_logger("worker.test")
log.info("unreadable", field=Unprintable())
logging.getLogger("librdkafka").error("broker %s", Unprintable())
warnings.warn("old interface")
thread = threading.Thread(target=dies, name="worker-thread")
thread.start()
thread.join()
try:
    dies()
except ValueError:
    log.exception("caught")
log.info("end")
writer.flush(30)  # the second that the end of a process has can be short on a busy machine
"""


def logged(format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stderr.splitlines()


def test_every_way_to_standard_error_is_the_log() -> None:
    """Warnings and errors that nothing caught become lines; a field without a text costs itself only."""
    lines = [json.loads(line) for line in logged("json")]
    assert [line["count"] for line in lines if line["event"] == "log_lines_lost"] == [1]  # librdkafka's

    rest = [
        line for line in lines if line["event"] != "log_lines_lost"
    ]  # the writer's thread adds it when it can
    events = [line["event"] for line in rest]
    assert events[0] == "log_line_unreadable"
    assert any("old interface" in event for event in events)
    assert events[-3:] == ["thread_died", "caught", "end"]
    assert "thread error" in rest[-3]["exception"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_trace_shows_no_local_variables(format: str) -> None:
    """A frame holds passwords and keys; a trace has the lines of code only."""
    text = "\n".join(logged(format))

    assert "thread error" in text
    assert "canary-in-a-frame" not in text.replace('canary = "canary-in-a-frame"', "")
