"""The package has a page of its own, and two commands."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import flagstream


def test_the_flow_names_modules_that_exist() -> None:
    """Each step of the flow in the docstring has a module, so a renamed one is noticed."""
    named = re.findall(r"^ +│  ([a-z_.]+) ", flagstream.__doc__ or "", flags=re.MULTILINE)
    assert len(named) > 8
    assert [name for name in named if find_spec(f"flagstream.{name}") is None] == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["run", "--no-such"], ["no"]]
)
def test_the_module_works_like_the_command(arguments: list[str]) -> None:
    """``python -m flagstream`` and ``flagstream`` print the same, under the same name, and end alike."""
    command = str(Path(sys.executable).with_name("flagstream"))
    one, other = (
        subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
        for program in ([command], [sys.executable, "-m", "flagstream"])
    )
    assert (one.stdout, one.stderr, one.returncode) == (other.stdout, other.stderr, other.returncode)
    assert "__main__" not in other.stdout + other.stderr
    assert "flagstream" in other.stdout + other.stderr
