"""The log sink passes the contract of sinks that deliver at least once; what it writes goes to a real
descriptor.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.formats.lines import DEFAULT_TEMPLATE, LineTemplate
from flagstream.sinks.log import LogSettings, LogSink
from flagstream.testing import SinkContract, event, events, fill

Place = tuple[LogSettings, int]

NEVER_OPEN = 100_000
"""A descriptor that no process of ours has."""

TO_STANDARD_OUTPUT = """
from flagstream.sinks.registry import SINKS, build
from flagstream.testing import events, fill
sink = build(SINKS["log"]())
sink.open()
window = fill(sink, events(3))
sink.deliver(window.manifest, window.payload)
"""


def sink_at(place: Place) -> LogSink:
    """Writes to another descriptor than standard output."""
    return LogSink(*place)


class TestLog(SinkContract):
    """The contract, read back from a file that the lines are appended to."""

    sink_class = staticmethod(sink_at)
    unacceptable = (
        b"",
        b"{",
        b"text",
        b"[]",
        b'{"userKey":"\xff"}',
        b'{"creationDate":"today"}',
        b"[" * 5000,
    )

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "log"
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        yield
        os.close(self.descriptor)

    def settings(self) -> Place:
        return LogSettings(), self.descriptor

    def settings_of_another_shape(self) -> Place:
        return LogSettings(template="{{ .Key }} {{ .Value }}"), self.descriptor

    def refusing_settings(self) -> Place:
        return LogSettings(), NEVER_OPEN

    def read_back(self) -> list[bytes]:
        return self.path.read_bytes().splitlines()

    def expected(self, values: Sequence[bytes]) -> list[bytes]:
        template = LineTemplate(DEFAULT_TEMPLATE)
        return [template.render(value).rstrip(b"\n") for value in values]


def test_standard_output_of_a_process() -> None:
    """Without a word about it, lines go to the process's standard output, each whole."""
    output = subprocess.run(
        [sys.executable, "-c", TO_STANDARD_OUTPUT], stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout
    assert output.decode().splitlines() == [
        f'[2023-11-14T22:13:2{number}Z] user="user-{number}", flag="new-checkout", value="on"'
        for number in range(3)
    ]


def test_reader_is_gone() -> None:
    """A pipe that nobody reads any more needs a person."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        sink = LogSink(LogSettings(), writer)
        window = fill(sink, events(3))
        with pytest.raises(SinkRefused, match="Broken pipe") as refused:
            sink.deliver(window.manifest, window.payload)
        assert refused.value.denied, "nobody judged the events, so they are no dead letters at once"
    finally:
        os.close(writer)


def test_full_disk() -> None:
    """Standard output redirected to a full disk passes by itself: the window is tried again."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        sink = LogSink(LogSettings(), descriptor)
        window = fill(sink, events(3))
        with pytest.raises(SinkUnavailable, match="No space left"):
            sink.deliver(window.manifest, window.payload)
    finally:
        os.close(descriptor)


def test_line_that_was_cut_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that failed in the middle of a line, the window begins on a new one."""
    write = os.write
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    sink = LogSink(LogSettings(), descriptor)
    window = fill(sink, [event(1)])

    def torn(descriptor: int, data: memoryview) -> int:
        if len(data) > 10:
            return write(descriptor, data[: len(data) - 10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
        with pytest.raises(SinkUnavailable):
            sink.deliver(window.manifest, window.payload)
    sink.deliver(window.manifest, window.payload)
    os.close(descriptor)
    whole = '[2023-11-14T22:13:21Z] user="user-1", flag="new-checkout", value="on"'
    assert [whole[:-9], whole] == path.read_text().splitlines()


def test_slow_reader_of_a_pipe_that_does_not_block() -> None:
    """A non-blocking pipe that is full is waited for."""
    script = (
        f"import os\nos.set_blocking(1, False)\n{TO_STANDARD_OUTPUT.replace('events(3)', 'events(20000)')}"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        assert process.wait(timeout=60) == 0
    assert len(lines) == 20_000
