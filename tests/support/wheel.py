"""``make wheel``: builds the wheel and tests it as users have it, installed and outside the checkout.

The tests run in a copy of the repository without the package's source, by an interpreter of a fresh virtual
environment, so that nothing of the checkout can be imported. What a wheel forgets to hold fails there.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.kafka_jars import REPOSITORY

TESTS = ("tests/unit", "tests/contract/test_file.py")
PIP = ("-m", "pip", "--disable-pip-version-check")
WHERE = """
import pathlib, sysconfig, flagstream
file = pathlib.Path(flagstream.__file__)
assert file.is_relative_to(sysconfig.get_path("purelib")), f"{file} is not of the wheel"
print(f"testing flagstream {flagstream.__version__} at {file.parent}", flush=True)
"""


def built(folder: Path) -> Path:
    """Build the wheel in ``folder`` and return its file."""
    _run(sys.executable, *PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, REPOSITORY)
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """Install the wheel, with what the tests need, in ``folder`` and return the interpreter."""
    _run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    constraints = REPOSITORY / "constraints.txt"
    _run(
        python, *PIP, "install", "--quiet", "--constraint", constraints, f"flagstream[dev] @ {wheel.as_uri()}"
    )
    return python


def copy(target: Path) -> None:
    """Copy the files of the checkout that git knows, but for the package's source."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        source = REPOSITORY / name
        if name and not name.startswith("worker/") and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)


def main() -> int:
    """Build, install, copy and test; returns pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="flagstream-wheel-") as folder:
        root = Path(folder)
        wheel = built(root / "dist")
        python = installed(wheel, root / "venv")
        checkout = root / "checkout"
        copy(checkout)
        _run(python, "-c", WHERE, cwd=checkout)
        options = ("-q", "-n", "2", "--dist", "worksteal", "-m", "not checkout")
        return subprocess.run(
            [python, "-m", "pytest", *options, *TESTS, *sys.argv[1:]], cwd=checkout
        ).returncode


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    sys.exit(main())
