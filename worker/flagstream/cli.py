"""Defines the command ``flagstream``."""

import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from flagstream import __version__
from flagstream.config import Mask, Settings, load, mask_of
from flagstream.config.checks import variable_problems
from flagstream.errors import ConfigError, ExitCode
from flagstream.outcomes import Proof
from flagstream.sinks.settings import SinkSettings

_file_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="FLAGSTREAM_CONFIG",
    help=(
        "The TOML file; else that of FLAGSTREAM_CONFIG. Without one, defaults and FLAGSTREAM_* variables are "
        "all there is."
    ),
)


def _stage_option(verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--stage",
        "stages",
        multiple=True,
        type=click.Choice(["enrich"]),
        help=f"{verb} this stage, and of the rest only what else is named.",
    )


def _sink_option(verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--sink",
        "sinks",
        multiple=True,
        metavar="NAME",
        help=f"{verb} this sink, and of the rest only what else is named; may be given several times.",
    )


@click.group()
@click.version_option(__version__, prog_name="flagstream")
def cli() -> None:
    """Enrich feature-flag evaluation events in Kafka and export them, exactly once."""


@cli.command()
@_file_option
@_stage_option("Run")
@_sink_option("Run")
def run(path: Path | None, stages: tuple[str, ...], sinks: tuple[str, ...]) -> None:
    """Run the worker: the enrich stage and every sink, or only what is named.

    \b
      flagstream run -c flagstream.toml                     all
      flagstream run -c flagstream.toml --stage enrich      the enrich stage only
      flagstream run -c flagstream.toml --sink archive      one sink only

    SIGTERM and Ctrl-C deliver what fits shutdown.budget, and stop. Exit codes: 0 stopped as asked, 1
    unexpected, 2 configuration, 3 fenced by another process, 4 fatal Kafka error, 5 stuck.
    """
    enrich, chosen = stages_to_run(stages, sinks)
    settings = _load(path, enrich, chosen)
    # Imported only now: a wrong configuration is reported before anything heavy is loaded.
    from flagstream.host import run as run_worker

    run_worker(settings, enrich=enrich, sinks=tuple(settings.sinks) if chosen is None else chosen)


@cli.command("check")
@_file_option
@_stage_option("Try")
@_sink_option("Try")
def prove(path: Path | None, stages: tuple[str, ...], sinks: tuple[str, ...]) -> None:
    """Try whether a worker would find what it needs: flags, topics, and what each sink has to be allowed to
    do (write, write once, read, list, delete).

    What is written is deleted again. What cannot be tried without an effect is shown as unproved. Exit codes:
    0 nothing failed, 1 something did, 2 configuration.
    """
    enrich, chosen = stages_to_run(stages, sinks)
    settings = _load(path, enrich, chosen)
    _warn(settings)
    from flagstream.sinks.rehearsal import probe as probe_sink
    from flagstream.worker_probe import probe as probe_worker

    named = _named(settings, path, chosen)
    mask = mask_of(settings)
    failed = _print_proofs(f"{settings.name} (worker)", probe_worker(settings, named, enrich=enrich), mask)
    for name, sink in named.items():
        failed += _print_proofs(f"{name} ({sink.type})", probe_sink(sink), mask)
    sys.exit(ExitCode.UNEXPECTED if failed else ExitCode.OK)


def _print_proofs(title: str, proofs: Iterator[Proof], mask: Mask) -> int:
    """Print what was tried; return how much of it failed."""
    click.echo(title)
    failed = 0
    for proof in proofs:
        failed += proof.outcome == "failed"
        mark = {"proved": "ok", "failed": "FAILED", "unproved": "unproved"}[proof.outcome]
        click.echo(mask(f"  {mark:8}  {proof.what}{': ' if proof.detail else ''}{proof.detail}"))
    return failed


@cli.command()
@_file_option
@_sink_option("Show")
def render(path: Path | None, sinks: tuple[str, ...]) -> None:
    """Print sample names and sample records of each sink, without touching anything."""
    # What only the enrich stage needs may be missing.
    settings = _load(path, False, sinks or None, needs_sink=False)
    _warn(settings)
    mask = mask_of(settings)
    from flagstream.sinks.rehearsal import render as render_sink

    for name, sink in _named(settings, path, sinks or None).items():
        click.echo(f"{name} ({sink.type})")
        for preview in render_sink(settings.topics.output, sink):
            for object_name in preview.names:
                click.echo(mask.whole(f"  {object_name}"))
            click.echo(mask.whole(f"    {preview.record}"))


@cli.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@_file_option
@_stage_option("Check what is needed for")
@_sink_option("Check what is needed for")
def check(path: Path | None, stages: tuple[str, ...], sinks: tuple[str, ...]) -> None:
    """Check the file and the environment, without touching Kafka, the flags or a sink."""
    enrich, chosen = stages_to_run(stages, sinks)
    settings = _load(path, enrich, chosen)
    _warn(settings)
    named = tuple(settings.sinks) if chosen is None else chosen
    if problems := list(variable_problems(settings, named, enrich=enrich)):
        _refuse(path, problems)
    click.echo(f"{_title(path)}: no problems")


@config.command()
def reference() -> None:
    """Print every setting with its type, default and meaning, as Markdown."""
    from flagstream.config.reference import reference as page
    from flagstream.sinks.registry import SINKS

    click.echo(page(SINKS), nl=False)


@cli.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    envvar="DEMO_SECONDS",
    help="Stop after this time; else at Ctrl-C.",
)
@click.option(
    "--sink",
    type=click.Choice(["file", "s3"]),
    default="file",
    help="Export to files, or to a local S3 server (needs the extra demo-s3).",
)
def demo(seconds: float | None, sink: Literal["file", "s3"]) -> None:
    """Show the worker at work, with a built-in broker and sample events; nothing else is needed.

    What it writes is left in a fresh folder below demo-output.
    """
    from flagstream.demo import NoFolder
    from flagstream.demo import run as run_demo
    from flagstream.demo.seaweed import SeaweedMissing

    try:
        sys.exit(run_demo(seconds, sink))
    except (NoFolder, SeaweedMissing) as error:
        raise click.ClickException(str(error)) from None


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Run the console command."""
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot show ends no command
        sys.stdout.reconfigure(errors="backslashreplace")
    cli(prog_name="flagstream")


def stages_to_run(stages: tuple[str, ...], sinks: tuple[str, ...]) -> tuple[bool, tuple[str, ...] | None]:
    """Return whether to enrich, and which sinks to run; None means all of them."""
    if not stages and not sinks:
        return True, None
    return "enrich" in stages, tuple(dict.fromkeys(sinks))


def _named(settings: Settings, path: Path | None, chosen: tuple[str, ...] | None) -> dict[str, SinkSettings]:
    """Return the settings of the sinks ``chosen``; None means all of them."""
    if chosen is None and not settings.sinks:  # only render goes on without
        click.echo(f"{_title(path)}: no sinks")
    return {name: settings.sinks[name] for name in (settings.sinks if chosen is None else chosen)}


def _load(
    path: Path | None, enrich: bool, sinks: tuple[str, ...] | None, *, needs_sink: bool = True
) -> Settings:
    """Return the settings, or print every problem and end the process."""
    try:
        settings = load(path, enrich=enrich, sinks=sinks, needs_sink=needs_sink, further=_client_problems)
    except ConfigError as error:
        _refuse(path, error.problems)
    return settings


def _refuse(path: Path | None, problems: Sequence[str]) -> NoReturn:
    count = len(problems)
    click.echo(f"{_title(path)}: {count} problem{'' if count == 1 else 's'}", err=True)
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(ExitCode.CONFIG)


def _client_problems(settings: Settings) -> list[str]:
    # librdkafka is loaded only for what got this far.
    from flagstream.kafka.properties import check_properties

    return check_properties(settings)


def _warn(settings: Settings) -> None:
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)


def _title(path: Path | None) -> str:
    return str(path) if path is not None else "environment"
