"""The repository keeps its own rules."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.checkout

REPOSITORY = Path(__file__).resolve().parents[2]


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def services() -> dict[str, Any]:
    loaded = yaml.safe_load((REPOSITORY / "docker-compose.kafka.yml").read_text())
    return dict(loaded["services"])


def test_no_tracked_file_names_a_registry_or_a_build_machine() -> None:
    """Where packages come from is the machine's setting: a clone installs anywhere."""
    registry = r"https?://[^\s/]*(?:nexus|artifactory|pypi\.|npmjs\.|repo1?\.maven|registry\.)"
    option = r"--(?:extra-)?index-url|--find-links|--trusted-host"
    home = r"(?<![\w./-])/(?:work|home/\w+|Users/\w+|tmp/bash_jobs)/(?!\.\.\.)"
    forbidden = re.compile(f"{registry}|{option}|{home}", re.IGNORECASE)

    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:120]}"
        for path in tracked_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1)
        if forbidden.search(line)
    ]

    assert found == []


def test_compose_services_that_stay_say_when_they_are_healthy() -> None:
    """What others can wait for: every service that keeps running has a health check."""
    staying = {name: service for name, service in services().items() if service.get("restart") != "no"}

    assert {"kafka", "s3"} == set(staying)
    assert all("test" in service["healthcheck"] for service in staying.values())


def test_compose_ports_are_open_to_this_host_only() -> None:
    """Brokers without a password are no one else's business."""
    ports = [port for service in services().values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_creates_the_topics() -> None:
    """The three topics of the worker are created when it starts."""
    script = services()["kafka-topics"]["command"][0]

    created = re.findall(r"--topic (\S+)", script)

    assert created == ["flag-evaluations", "flag-evaluations-enriched", "flag-evaluations-dead-letters"]


def test_the_compose_broker_is_the_version_that_the_tests_run() -> None:
    """Two ways lead to a test broker, and both to one Kafka."""
    pom = (REPOSITORY / "tests/support/kafka-pom.xml").read_text()
    jars = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", pom)

    assert jars is not None
    assert f"apache/kafka:{jars[1]}" == services()["kafka"]["image"]


def test_every_dependency_is_pinned() -> None:
    """What a clone installs is what was tested: constraints.txt names each dependency's version."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    pins = re.findall(r"^([\w.-]+)==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    unpinned = {normal(re.split(r"[<>=\[; ]", line)[0]) for line in wanted} - {normal(name) for name in pins}
    assert set() == unpinned


def test_every_dependency_has_an_upper_bound() -> None:
    """A release that takes an interface away is not installed by those who do not use constraints.txt."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    assert [line for line in wanted if not re.search(r",<[0-9]", line)] == []
