"""The demo, as `make demo` runs it: a process of its own that needs nothing but the installed package.

What it left is read here with gzip and json alone, and compared with what it says of itself.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
import yaml

from tests.support.child_process import die_with_parent

PROGRAM = "import sys; from flagstream.cli import main; sys.argv[:1] = ['flagstream', 'demo']; main()"
SECONDS = "5"
LONGEST = 60.0
"""Seconds after which a demo hangs; it takes eight."""
FLAGS = resources.files("flagstream.demo").joinpath("flags.yaml").read_bytes()


@contextmanager
def started(folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in ``folder``, with its output piped: no terminal."""
    paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # one that ended as it has to is gone already


def wait_for_a_window(process: subprocess.Popen[str]) -> None:
    """Read the demo's lines until one names a file or an object."""
    assert process.stdout
    assert any(" flag-evaluations-enriched/" in line for line in process.stdout)


def exported(folder: Path) -> list[dict[str, object]]:
    """The events in all files that a demo left below ``folder``."""
    files = folder.glob("demo-output/*/files/*/*/*.jsonl.gz")
    return [json.loads(line) for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]


def counted(output: str, what: str) -> int:
    """The count that the summary gives for ``what``."""
    found = re.search(rf"^ +([\d,]+)  {what}", output, re.MULTILINE)
    assert found, f"no count of {what!r} in:\n{output}"
    return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo of some seconds that ended by itself: the folder it ran in, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    with started(folder, DEMO_SECONDS=SECONDS) as process:
        output, errors = process.communicate(timeout=LONGEST)
    assert (process.returncode, errors) == (0, ""), output
    return folder, output


def test_the_files_hold_what_the_summary_says(demo: tuple[Path, str]) -> None:
    """The files hold some hundreds of events at least, each once, all enriched."""
    folder, output = demo
    events = exported(folder)
    assert len(events) == counted(output, "exported") == counted(output, "enriched") > 500
    assert len({event["sequence"] for event in events}) == len(events)
    assert all({"source", "version", "variation"} <= event.keys() for event in events if "value" in event)


def test_everything_sent_is_accounted_for(demo: tuple[Path, str]) -> None:
    """Enriched, dropped and dead together are what was sent, and there is some of each."""
    _, output = demo
    parts = [counted(output, what) for what in ("enriched", "dropped", "dead letters")]
    assert min(parts) > 0
    assert sum(parts) == counted(output, "records sent")


def test_no_event_of_an_untracked_flag_is_in_the_files(demo: tuple[Path, str]) -> None:
    """Although such events are sent."""
    folder, _ = demo
    untracked = {name for name, flag in yaml.safe_load(FLAGS).items() if flag.get("trackEvents") is False}
    assert untracked
    assert not untracked & {event["key"] for event in exported(folder)}


def test_the_lines_show_what_happens_and_the_log_is_a_file_of_its_own(demo: tuple[Path, str]) -> None:
    """The lines show rates, files, an event before and after; none of the worker's log is among them, and no
    control codes."""
    folder, output = demo
    for shown in (r"in [\d,]+ \(\d+/s\)", r"file flag-evaluations-enriched/\d/", "event in ", "event out "):
        assert re.search(shown, output), output
    assert "\x1b" not in output
    assert "window_delivered" not in output
    (log,) = folder.glob("demo-output/*/worker.log")
    names = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert [names[0], names[-1]] == ["worker_starting", "worker_stopped"]
    assert "window_delivered" in names


def test_the_line_on_how_to_read_the_files_works(demo: tuple[Path, str]) -> None:
    """The line works as it stands, in the folder where the demo ran."""
    folder, output = demo
    (command,) = re.findall(r"^ +(gzip -dc .*)$", output, re.MULTILINE)
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, check=True)
    assert [json.loads(line)["kind"] in ("feature", "tracking") for line in done.stdout.splitlines()] == [
        True,
        True,
        True,
    ]


def test_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    """What was sent by then is in the files, each demo has a folder of its own, and the exit code is 0."""
    with started(tmp_path) as process:
        wait_for_a_window(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LONGEST)
    assert (process.returncode, errors) == (0, ""), output
    assert len(exported(tmp_path)) == counted(output, "exported") > 0
    assert "WRONG" not in output


def test_objects_in_a_local_s3_server(tmp_path: Path) -> None:
    """The same with objects: shown as they appear, compared at the end; the server ends with the demo."""
    with started(tmp_path, "--sink", "s3") as process:
        wait_for_a_window(process)
        servers = subprocess.run(
            ["pgrep", "-P", str(process.pid), "weed"], stdout=subprocess.PIPE, text=True
        ).stdout.split()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LONGEST)
    assert (process.returncode, errors) == (0, ""), output
    assert len(exported(tmp_path)) == counted(output, "exported") > 0
    assert "WRONG" not in output
    assert len(servers) == 1
    assert not Path(f"/proc/{servers[0]}").exists()


def test_without_an_s3_server(tmp_path: Path) -> None:
    """Where SeaweedFS is not installed, the demo says how to install it."""
    code = f"import shutil; shutil.which = lambda *_: None; import sys; sys.executable = '/none'; {PROGRAM}"
    ended = subprocess.run(
        [sys.executable, "-c", code, "--sink", "s3"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert ended.returncode == 1
    assert "pip install 'flagstream[demo-s3]'" in ended.stderr


def test_without_a_folder_to_write_in(tmp_path: Path) -> None:
    """One line says so, not a trace."""
    (tmp_path / "demo-output").touch()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path}/demo-output/")
    assert line.endswith(" cannot be made: Not a directory")


def test_it_ends_when_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    """A reader may end early, as in ``flagstream demo | head``: the worker is stopped in order, and nothing
    is printed about it."""
    with started(tmp_path) as process:
        wait_for_a_window(process)
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.wait(LONGEST) == 1
        assert process.stderr.read() == ""
    (log,) = tmp_path.glob("demo-output/*/worker.log")
    assert "worker_stopped" in log.read_text()
