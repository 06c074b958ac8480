"""The jars of Apache Kafka and the Java that runs them."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
POM = Path(__file__).with_name("kafka-pom.xml")

# Kafka 4 brokers run on Java 17 and newer.
OLDEST_JAVA = 17


class BrokerUnavailable(Exception):
    """No Kafka can be had here; the message says what is missing and what would help."""


def find_java() -> str:
    """Path of a `java` that can run the broker, JAVA_HOME's first; raises BrokerUnavailable."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise BrokerUnavailable(f"no java on the path; install Java {OLDEST_JAVA} or newer")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise BrokerUnavailable(
            f"{java} is not Java {OLDEST_JAVA} or newer: {shown.strip() or 'it printed nothing'}"
        )
    return java


def kafka_class_path() -> str:
    """Return the class path of the broker; Maven fetches the jars (43 MB) the first time. Raises
    BrokerUnavailable.

    They are kept in `.kafka/` of the repository, by the version that kafka-pom.xml names. Two processes may
    both fetch: each fills a folder of its own, and the first to rename it wins.
    """
    version = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", POM.read_text())
    assert version is not None, f"{POM} names no version of Kafka"
    libraries = REPOSITORY / ".kafka" / version[1]
    if not libraries.exists():
        _fetch(libraries)
    return f"{libraries}/*"


def _fetch(libraries: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable("no mvn on the path to fetch Kafka's jars with; install Maven")
    libraries.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libraries.parent, prefix="fetch-") as folder:
        target = Path(folder) / "libs"
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={target}",
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise BrokerUnavailable(
                f"Maven could not fetch Kafka's jars:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        try:
            target.rename(libraries)
        except OSError:
            if not libraries.exists():
                raise
