"""What the command line says and returns. The worker itself is not started here."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flagstream import __version__
from flagstream.cli import cli
from flagstream.config import load
from flagstream.config.reference import reference
from flagstream.errors import ExitCode
from flagstream.sinks.registry import SINKS

GOOD = """
    [flags]
    path = "flags.yaml"
    [sinks.archive]
    type = "file"
    path = "archive"
    [sinks.console]
    type = "log"
"""


def call(tmp_path: Path, text: str, *arguments: str) -> Result:
    """Run the command with ``-c`` and a file of ``text``."""
    path = tmp_path / "flagstream.toml"
    path.write_text(text, encoding="utf-8")
    return CliRunner().invoke(cli, [*arguments, "-c", str(path)])


@pytest.mark.parametrize("command", [["run"], ["config", "check"]])
def test_problems_are_a_headline_and_a_line_each_with_exit_code_2(
    tmp_path: Path, command: Sequence[str]
) -> None:
    """Mistakes are on standard error; ``run`` says the same as ``config check``."""
    result = call(tmp_path, 'nam = "x"\n[web]\nport = -1\n[sinks.a]\ntype = "log"', *command)
    assert result.exit_code == ExitCode.CONFIG
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{tmp_path / 'flagstream.toml'}: 3 problems",
        "nam: unknown key; did you mean name?",
        "flags.path: is missing; the enrich stage needs the file with the flags, or [[flags.sources]]",
        "web.port: -1 is out of range; write at least 0",
    ]


def test_properties_that_librdkafka_refuses_as_a_whole_are_a_problem(tmp_path: Path) -> None:
    """Found before Kafka is touched."""
    text = GOOD + '[kafka.properties]\nsecurity.protocol = "sasl_ssl"\nsasl.mechanisms = "PLAIN"\n'
    result = call(tmp_path, text, "config", "check")
    assert result.exit_code == ExitCode.CONFIG
    assert result.stderr.splitlines()[0] == f"{tmp_path / 'flagstream.toml'}: 1 problem"
    assert "sasl.username and sasl.password must be set" in result.stderr


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    """The command says so."""
    result = call(tmp_path, GOOD, "config", "check")
    assert (ExitCode.OK, f"{tmp_path / 'flagstream.toml'}: no problems\n") == (
        result.exit_code,
        result.output,
    )


def test_a_terminal_that_cannot_show_a_letter_ends_no_command(tmp_path: Path) -> None:
    """The letter is written as Python writes it."""
    path = tmp_path / "\u65e5.toml"
    path.write_text(GOOD, encoding="utf-8")
    program = f"import sys; sys.argv[1:] = ['config', 'check', '-c', {str(path)!r}]; " + (
        "from flagstream.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == f"{tmp_path}/\\u65e5.toml: no problems\n".encode()


def test_a_sink_that_is_not_configured_cannot_be_run(tmp_path: Path) -> None:
    """The nearest one is named."""
    result = call(tmp_path, GOOD, "run", "--sink", "archiv")
    assert result.exit_code == ExitCode.CONFIG
    assert "--sink archiv: no such sink; did you mean archive?" in result.stderr


def test_variables_that_a_client_would_choke_on_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those of the sinks and sources that are chosen count, and their values do not show. A worker that
    runs does not end for them: the sink alone fails.
    """
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter2\n")
    text = '[flags]\npath = "f.yaml"\n[sinks.lake]\ntype = "s3"\nbucket = "lake"\n'
    result = call(tmp_path, text, "config", "check")
    assert result.exit_code == ExitCode.CONFIG
    assert "sinks.lake: the variable AWS_SESSION_TOKEN holds a control character" in result.stderr
    assert "hunter2" not in result.output
    assert call(tmp_path, text, "config", "check", "--stage", "enrich").exit_code == ExitCode.OK
    assert load(tmp_path / "flagstream.toml").sinks["lake"].type == "s3"


def test_a_worker_that_only_exports_needs_no_flags(tmp_path: Path) -> None:
    """What is named on the command line decides what has to be set."""
    text = '[sinks.console]\ntype = "log"'
    assert call(tmp_path, text, "config", "check").exit_code == ExitCode.CONFIG
    assert call(tmp_path, text, "config", "check", "--sink", "console").exit_code == ExitCode.OK


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    """FLAGSTREAM_CONFIG stands for ``-c``."""
    path = tmp_path / "flagstream.toml"
    path.write_text(GOOD, encoding="utf-8")
    result = CliRunner().invoke(cli, ["config", "check"], env={"FLAGSTREAM_CONFIG": str(path)})
    assert f"{path}: no problems\n" == result.output


def test_the_reference_is_printed() -> None:
    """The command prints the same page as in the docs."""
    assert reference(SINKS) == CliRunner().invoke(cli, ["config", "reference"]).output


@pytest.mark.parametrize(
    ("arguments", "output"), [(["version"], __version__), (["--version"], "flagstream, version")]
)
def test_the_version_is_printed(arguments: Sequence[str], output: str) -> None:
    """It is a command for programs and an option for people."""
    result = CliRunner().invoke(cli, arguments)
    assert output in result.output
    assert __version__ in result.output


def test_a_wrong_configuration_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """Neither Faust nor librdkafka is imported for a file that is wrong by itself."""
    path = tmp_path / "flagstream.toml"
    path.write_text('nam = "x"', encoding="utf-8")
    program = (
        "import sys\n"
        "from flagstream.cli import main\n"
        f"sys.argv = ['flagstream', 'run', '-c', {str(path)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = ('faust', 'confluent_kafka', 'flagstream.host')\n"
        "print(code, [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"


def test_the_client_of_a_cloud_is_loaded_only_where_it_is_configured(tmp_path: Path) -> None:
    """A worker with a file sink and a flag file has none, nor what speaks HTTP; with others it has theirs."""
    heavy = (
        "boto3",
        "botocore",
        "google.cloud",
        "google.auth",
        "pyarrow",
        "requests",
        "urllib3",
        "httpcore2",
    )
    basis = '[flags]\npath = "flags.yaml"\n[sinks.archive]\ntype = "file"\npath = "a"\n'
    hook = '[sinks.hook]\ntype = "webhook"\nendpoint_url = "https://hooks.example/"\n'
    s3 = '[sinks.s3]\ntype = "s3"\nbucket = "b"\nregion = "us-east-1"\n'
    files = [tmp_path / f"{name}.toml" for name in ("basis", "hook", "s3")]
    for file, text in zip(files, (basis, basis + hook, basis + s3), strict=True):
        file.write_text(text, encoding="utf-8")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import flagstream.cli, flagstream.host\n"
        "from flagstream.config.loading import load\n"
        "from flagstream.flag_sources.opening import place\n"
        "from flagstream.sinks.registry import build\n"
        "from flagstream.topic_formats.building import ingest_decoder\n"
        "for file in sys.argv[1:]:\n"
        "    settings = load(Path(file))\n"
        "    for sink in settings.sinks.values(): build(sink)\n"
        "    for source in settings.flags.all_sources(): place(source)\n"
        "    ingest_decoder(settings)\n"
        f"    print([name for name in {heavy!r} if name in sys.modules])\n"
    )

    ran = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, check=True)

    with_files, with_a_hook, with_s3 = ran.stdout.splitlines()
    assert with_files == "[]"
    assert with_a_hook == "['httpcore2']"
    assert "boto3" in with_s3


def test_names_and_records_are_shown_of_the_sinks_that_are_named(tmp_path: Path) -> None:
    """No flags are needed for that."""
    text = '[sinks.archive]\ntype = "file"\npath = "a"\n[sinks.console]\ntype = "log"\n'
    both, one = call(tmp_path, text, "render"), call(tmp_path, text, "render", "--sink", "archive")
    assert "  a/flag-evaluations-enriched/0/0000000000000120000-" in one.output
    assert ("console (log)" in both.output, "console (log)" in one.output) == (True, False)


def test_a_topic_of_no_broker_and_flags_of_no_file_fail(tmp_path: Path) -> None:
    """Both are reported, and the sinks are tried all the same."""
    text = f'[kafka]\nbootstrap_servers = "127.0.0.1:1"\n{GOOD}'.replace("flags.yaml", "no/flags.yaml")
    result = call(tmp_path, text.replace('"archive"', f'"{tmp_path}/archive"'), "check")
    assert result.exit_code == ExitCode.UNEXPECTED
    assert "FAILED    flags: " in result.output
    assert "FAILED    kafka: no broker answers" in result.output
    assert "console (log)\n  ok        write" in result.output


@pytest.mark.parametrize(
    ("stages", "sinks", "chosen"),
    [
        ((), (), (True, None)),
        (("enrich",), (), (True, ())),
        ((), ("archive",), (False, ("archive",))),
        (("enrich",), ("archive", "archive", "console"), (True, ("archive", "console"))),
    ],
)
def test_any_subset_can_be_run(
    stages: tuple[str, ...], sinks: tuple[str, ...], chosen: tuple[bool, tuple[str, ...] | None]
) -> None:
    """Nothing named is everything; otherwise only what is named."""
    from flagstream.cli import stages_to_run

    assert chosen == stages_to_run(stages, sinks)
