"""Installs an earlier version of the worker, from the history of this clone, in a virtual environment of its
own."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.kafka_jars import REPOSITORY

OLD = "eb83963a2f4d1a11a35a62aff2229eb1f8f534df"
"""The last commit whose package is called `worker`: what golden fixtures and upgrade tests call old."""
PACKAGE = "worker"
CACHE = REPOSITORY / ".old"


class NoHistory(Exception):
    """This clone does not have the commit; the message says what would help."""


@dataclass(frozen=True, slots=True)
class OldVersion:
    """`python` is an interpreter that has it installed; `-m worker` is its command."""

    python: Path
    commit: str


def old_version(commit: str = OLD) -> OldVersion:
    """Install `commit`, unless it is there. It is kept in `.old/` of the repository, by the commit's hash.

    Raises NoHistory for a clone that lacks the commit, such as a shallow one, and CalledProcessError where it
    cannot be installed. Two processes may call it at the same time: one of their folders stays.
    """
    home = CACHE / commit
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        source = archive(commit)
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            checkout = Path(scratch) / "source"
            with tarfile.open(fileobj=io.BytesIO(source)) as files:
                files.extractall(checkout, filter="data")
            _install(Path(scratch) / "environment", checkout)
            # A virtual environment names its own folder only in the scripts that are not used here.
            if not (home / "installed").exists():
                shutil.rmtree(home, ignore_errors=True)
                os.rename(Path(scratch) / "environment", home)
    return OldVersion(python, commit)


def archive(commit: str) -> bytes:
    """Return the files of `commit` as a tar archive. Raises NoHistory."""
    there = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=REPOSITORY, capture_output=True
    )
    if there.returncode:
        raise NoHistory(
            f"this clone does not have the commit {commit}: clone with the whole history, or run "
            "git fetch --unshallow"
        )
    made = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=REPOSITORY, capture_output=True, check=True
    )
    return made.stdout


def _install(environment: Path, checkout: Path) -> None:
    venv.create(environment, with_pip=True, symlinks=True)
    subprocess.run(
        [
            *(
                environment / "bin" / "python",
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "--quiet",
            ),
            *("--constraint", checkout / "constraints.txt", f"{checkout}[parquet]"),
        ],
        check=True,
        stdout=sys.stderr,
    )
    (environment / "installed").touch()
