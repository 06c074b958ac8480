"""A sink of another distribution: installed, held to the contract, and run by the worker."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.exporting import Exporting, events
from tests.support.kafka_jars import REPOSITORY
from tests.support.running_worker import RunningWorker, eventually

EXAMPLE = REPOSITORY / "tests" / "example_sink"
DOCUMENT = (REPOSITORY / "docs" / "write-a-sink.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader of docs/write-a-sink.md gets who copies each file out of it."""
    folder = tmp_path_factory.mktemp("written")
    files = re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    for name, text in files:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the distribution of the document, and install it into a folder by pip."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", target, written], check=True, timeout=120)
    return target


def search_path(installed: Path) -> str:
    return f"{installed}:{REPOSITORY}"


def test_the_document_shows_the_example(written: Path) -> None:
    """File by file, nothing left out."""
    shown = {path.name: path.read_text() for path in written.iterdir()}

    assert {path.name: path.read_text() for path in EXAMPLE.iterdir() if path.is_file()} == shown


def test_it_passes_the_contract(installed: Path, tmp_path: Path) -> None:
    """The suite is imported from the worker and run on what pip installed."""
    check = tmp_path / "check_sqlite_sink.py"
    check.write_text((EXAMPLE / "check_sqlite_sink.py").read_text())

    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, check],
        env={**os.environ, "PYTHONPATH": search_path(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert re.search(r"^\d+ passed", outcome.stdout, re.MULTILINE), outcome.stdout + outcome.stderr


def test_a_worker_runs_it(installed: Path, admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """Found by its entry point; a worker that dies with a window stored doubles nothing."""
    setup = Exporting.create(admin, bootstrap, tmp_path)
    database = tmp_path / "events.db"
    sink = {"type": "sqlite", "path": str(database), "max_events": 10, "flush_interval": "300ms"}
    config = {**setup.config, "sinks": {"archive": sink}}
    environment = {"PYTHONPATH": search_path(installed)}
    values = events(45)
    setup.produce(values)

    def rows() -> list[bytes]:
        with closing(sqlite3.connect(database)) as db:
            return [row.encode() for (row,) in db.execute("SELECT event FROM events ORDER BY rowid")]

    arguments = ("--sink", "archive")
    with RunningWorker(
        config, tmp_path, crash="export.delivering:kill:2", arguments=arguments, environment=environment
    ) as worker:
        assert worker.wait() == -9
    assert len(rows()) == 20
    with RunningWorker(config, tmp_path, arguments=arguments, environment=environment) as worker:
        worker.await_event("window_delivered", already_there=1)
        eventually(lambda: len(rows()) >= 45)
        assert worker.stop() == 0

    assert values == rows()
