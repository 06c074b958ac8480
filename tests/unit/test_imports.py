"""What a command loads: the client of a cloud only where that cloud is configured."""

import subprocess
import sys

import pytest

CLOUDS = ("boto3", "botocore", "google.auth", "google.cloud.storage", "pyarrow", "requests", "urllib3")


@pytest.mark.parametrize(
    "program",
    [
        "from flagstream.cli import cli; cli(['--help'], standalone_mode=False)",
        "import flagstream.demo.session, flagstream.demo.places, flagstream.demo.seaweed",
        "from flagstream.sinks.registry import build\n"
        "from flagstream.sinks.objects.file import FileSettings\n"
        "build(FileSettings(path='archive'))",
    ],
    ids=["flagstream --help", "flagstream demo", "a file sink"],
)
def test_no_cloud_is_loaded(program: str) -> None:
    """They take tenths of a second and tens of megabytes."""
    tell = f"import sys; print('loaded:', *(name for name in {CLOUDS} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {tell}"], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "loaded:"
