"""Fetches the jars of Apicurio, a schema registry with Confluent's interface."""

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.support.kafka_jars import REPOSITORY, find_java

POM = Path(__file__).with_name("registry-pom.xml")


class RegistryUnavailable(Exception):
    """No schema registry can be had here; the message says what is missing and what would help."""


def registry_command(*properties: str) -> list[str]:
    """The command that runs the registry; Maven fetches it (142 MB) the first time. Raises
    RegistryUnavailable, and BrokerUnavailable without Java.

    It is kept in `.kafka/` of the repository, by the version that registry-pom.xml names. Two processes may
    both fetch: each fills a folder of its own, and the first to rename it wins.
    """
    version = re.search(
        r"<artifactId>apicurio-registry-app</artifactId>\s*<version>([^<]+)<", POM.read_text()
    )
    assert version is not None, f"{POM} names no version"
    folder = REPOSITORY / ".kafka" / f"registry-{version[1]}"
    if not folder.exists():
        _fetch(folder)
    jar = folder / f"apicurio-registry-app-{version[1]}-runner.jar"
    return [find_java(), "-Xmx256m", *(f"-D{name}" for name in properties), "-jar", str(jar)]


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RegistryUnavailable("no mvn on the path to fetch the schema registry with; install Maven")
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as scratch:
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command.append(f"-DoutputDirectory={scratch}")
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RegistryUnavailable(
                f"Maven could not fetch the schema registry:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        target = Path(scratch) / "app"
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            archive.extractall(target, filter="data")
        try:
            target.rename(folder)
        except OSError:
            if not folder.exists():
                raise
