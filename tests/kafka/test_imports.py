"""What a running worker has loaded: the client of a cloud only where that cloud is configured."""

import os
import signal
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.support.exporting import Exporting, events
from tests.support.running_worker import RunningWorker, eventually

CLOUDS = {"boto3", "botocore", "google.cloud", "google.auth", "pyarrow", "requests", "urllib3"}

TELL_MODULES = """
import os, signal, sys

def tell(number, frame):
    with open(os.environ["MODULES_TO"] + ".part", "w") as file:
        file.write("\\n".join(sys.modules))
    os.rename(os.environ["MODULES_TO"] + ".part", os.environ["MODULES_TO"])

signal.signal(signal.SIGUSR1, tell)
"""
"""A sitecustomize that writes down what is loaded when it is asked."""


def loaded(worker: RunningWorker, file: Path) -> set[str]:
    """The modules of a worker that was started with that."""
    os.kill(worker.pid, signal.SIGUSR1)
    eventually(file.exists)
    return set(file.read_text().splitlines())


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_cloud_that_is_not_configured_is_not_loaded(
    kind: str, admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """A worker that enriches and exports to files has loaded none; one with S3 has not Google's."""
    (tmp_path / "sitecustomize.py").write_text(TELL_MODULES)
    setting = Exporting.create(admin, bootstrap, tmp_path)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
        "MODULES_TO": str(tmp_path / "modules"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if kind == "s3":
        setting = setting._replace(
            config={**setting.config, "sinks": {"archive": {"type": "s3", "bucket": "flags"}}}
        )
    with RunningWorker(setting.config, tmp_path, environment=environment) as worker:
        worker.await_event("partitions_assigned")
        if kind == "file":
            setting.produce(events(10))
            setting.await_committed(10)
        found = loaded(worker, tmp_path / "modules")
    assert "flagstream.sinks.objects" in found
    clouds = {name for name in CLOUDS if name in found}
    assert clouds == (set() if kind == "file" else {"boto3", "botocore", "urllib3"})
