"""Runs the commands on a configuration, as a user types them."""

from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from flagstream.cli import cli
from flagstream.errors import ExitCode

FLAGS = '[flags]\npath = "flags.yaml"\n'
LOG = '[sinks.log]\ntype = "log"\n'
WHOLE = FLAGS + LOG
"""The least that has no problems; what a test is about is added to it."""


def command(
    folder: Path, content: str | bytes, *arguments: str, environ: Mapping[str, str] | None = None
) -> Result:
    """Run ``flagstream ARGUMENTS -c FILE`` with a file of ``content``."""
    path = folder / "flagstream.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return CliRunner().invoke(cli, [*arguments, "-c", str(path)], env=dict(environ or {}))


def problems(folder: Path, content: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """What ``config check`` says, without the headline; the path of the file is left out."""
    result = command(folder, content, "config", "check", environ=environ)
    assert result.exit_code == ExitCode.CONFIG, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return [line.replace(f"{folder}/", "") for line in result.stderr.splitlines()[1:]]


def accepted(folder: Path, content: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """``config check`` finds no problems; returns its warnings."""
    result = command(folder, content, "config", "check", environ=environ)
    assert result.exit_code == ExitCode.OK, result.output
    return [line.removeprefix("warning: ") for line in result.stderr.splitlines()]
