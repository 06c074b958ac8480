"""Run the build stage of the image step by step without Docker, and a worker from what it installed."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.dockerfile import Stage, assignments, copy_context, stages
from tests.support.kafka_process import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
_, (BUILD, FINAL) = stages((REPOSITORY / "deploy/Dockerfile").read_text())


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, check=True, text=True)
    return [path for name in listed.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


def run_stage(stage: Stage, context: Path, root: Path, **arguments: str) -> None:
    """Do what the stage's instructions say, with ``root`` in place of the root of its file system."""

    def moved(text: str) -> str:
        return text.replace("/opt/", f"{root}/opt/").replace("/source", f"{root}/source")

    # `python` is that of the base image.
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(Path.home()),
    }
    passed_on = ("PIP_", "HTTP", "http", "SSL_", "NO_PROXY", "no_proxy", "LANG", "TMPDIR")
    variables |= {name: value for name, value in os.environ.items() if name.startswith(passed_on)}
    folder = root
    for word, rest in stage.instructions:
        match word:
            case "ARG":
                name, _, default = rest.partition("=")
                variables[name] = arguments.get(name, default)
            case "ENV":
                variables |= {name: moved(value) for name, value in assignments(rest).items()}
            case "WORKDIR":
                folder = Path(moved(rest))
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = rest.split()
                for source in sources:
                    where = folder / target
                    # The content of a folder, but a file under its name.
                    place = where if (context / source).is_dir() else where / Path(source).name
                    subprocess.run(["cp", "-r", "-T", context / source, place], check=True)
            case "RUN":
                done = subprocess.run(
                    ["sh", "-ec", moved(rest)], cwd=folder, env=variables, capture_output=True, text=True
                )
                assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
            case _:
                raise AssertionError(f"{word} is not known here")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that the build stage leaves."""
    context, root = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("root")
    copy_context(REPOSITORY, (REPOSITORY / "deploy/Dockerfile.dockerignore").read_text(), context, tracked())
    run_stage(BUILD, context, root)
    return root


@pytest.fixture
def port() -> int:
    """One that is free."""
    return free_ports(1)[0]


def answer(address: str, process: subprocess.Popen[bytes]) -> int:
    """The status of ``address``, once somebody listens there."""
    give_up = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return int(response.status)
        except OSError:
            assert process.poll() is None, "the worker has ended"
            assert time.monotonic() < give_up, f"{address} does not answer"
            time.sleep(0.1)


def test_what_the_build_installs_starts_and_answers(installed: Path, tmp_path: Path, port: int) -> None:
    """The worker runs with the variables of the final stage, at IPv4 and, where the machine has it, at
    IPv6."""
    command = FINAL.all("ENTRYPOINT")[0].strip('[]"')
    (tmp_path / "flags.yaml").write_text("{}\n")
    (tmp_path / "flagstream.toml").write_text(
        f"""
        [kafka]
        bootstrap_servers = "127.0.0.1:1"
        [flags]
        path = "{tmp_path}/flags.yaml"
        [sinks.lake]
        type = "file"
        path = "{tmp_path}/lake"
        format = "parquet"
        [web]
        port = {port}
        """
    )
    variables = {name: value for rest in FINAL.all("ENV") for name, value in assignments(rest).items()}
    variables["FLAGSTREAM_CONFIG"] = str(tmp_path / "flagstream.toml")
    variables["PATH"] = f"{installed}/opt/flagstream/bin:/usr/bin:/bin"
    process = subprocess.Popen(
        [f"{installed}/opt/flagstream/bin/{command}", "run"],
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert answer(f"http://127.0.0.1:{port}/live", process) == 200
        if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
            assert answer(f"http://[::1]:{port}/live", process) == 200
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_what_the_build_installs_is_whole_and_has_no_pip(installed: Path) -> None:
    """The image holds the package with its schemas and Parquet, no pip, and nothing of the repository's
    folder."""
    program = (
        "import importlib.util, flagstream, pyarrow\n"
        "from flagstream.formats import avro_schemas\n"
        "avro_schemas.own('enriched_event')\n"
        "assert importlib.util.find_spec('pip') is None\n"
        "print(flagstream.__file__)\n"
    )
    done = subprocess.run(
        [f"{installed}/opt/flagstream/bin/python", "-I", "-c", program],
        capture_output=True,
        text=True,
        cwd=installed,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed / "opt/flagstream")


def test_extras_can_be_left_out(tmp_path: Path) -> None:
    """An empty argument installs the package alone: the step is the one of the Dockerfile."""
    (step,) = (run for run in BUILD.all("RUN") if "pip" in run and "install" in run)
    words = step.split("&&")[0].replace("python -m pip", "printf '%s\\n'", 1)
    for extras, argument in (("", "."), ("parquet", ".[parquet]"), ("parquet,demo-s3", ".[parquet,demo-s3]")):
        said = subprocess.run(["sh", "-ec", words], env={"EXTRAS": extras}, capture_output=True, text=True)
        assert said.stdout.splitlines()[-1] == argument
