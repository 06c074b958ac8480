"""The worker's own log has one line an event, on standard error only."""

import json
import subprocess
import sys

from tests.support.kafka_jars import REPOSITORY

PROGRAM = """
import logging, sys
import structlog
from flagstream.operate.logging import configure

writer = configure(sys.argv[1], sys.argv[2])
log = structlog.get_logger("worker.test").bind(source="enrich")
log.debug("unseen_mostly")
log.info("flags_loaded", flags=3)
log.error("sink_failed", error="é\\n")
logging.getLogger("librdkafka").warning("broker %s", "gone")
logging.getLogger("faust").info("chatter")
try:
    1 / 0
except ZeroDivisionError as error:
    log.critical("worker_failed", exc_info=error)
writer.flush(30)  # the second that the end of a process has can be short on a busy machine
"""


def logged(format: str, level: str) -> list[str]:
    """What a process logs with these settings, line by line; nothing of it on standard output."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format, level],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_is_one_object_a_line() -> None:
    """With the event's name, level, UTC time and fields; exceptions too stay within their line."""
    lines = [json.loads(line) for line in logged("json", "info")]

    assert [line["event"] for line in lines] == [
        "flags_loaded",
        "sink_failed",
        "broker gone",
        "worker_failed",
    ]
    assert [line["level"] for line in lines] == ["info", "error", "warning", "critical"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["source"], lines[0]["flags"]) == ("enrich", 3)
    assert lines[2]["logger"] == "librdkafka"
    assert "ZeroDivisionError" in lines[3]["exception"]


def test_the_level_is_the_least_that_is_shown() -> None:
    """`debug` shows what `info` hides, `error` hides more."""
    assert json.loads(logged("json", "debug")[0])["event"] == "unseen_mostly"
    assert json.loads(logged("json", "error")[0])["event"] == "sink_failed"


def test_auto_is_json_where_nobody_looks_on() -> None:
    """Standard error is not a terminal here."""
    assert json.loads(logged("auto", "info")[0])["event"] == "flags_loaded"


def test_the_console_is_for_people() -> None:
    """The log is readable text, not JSON."""
    first = logged("console", "info")[0]

    assert "flags_loaded" in first
    assert not first.startswith("{")
