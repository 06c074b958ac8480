"""The contract suite as the author of a sink meets it."""

import subprocess
import sys
from pathlib import Path

import flagstream.testing

NAMES = (
    *("SinkContract", "CreateOnlyContract", "TransactionalSinkContract", "encode_elsewhere"),
    *("PARTITION", "NEIGHBOURS", "RACERS", "StoredRecord", "Window", "event", "events", "fill"),
    *("Produced", "RecordedTransaction"),
)

SINK = """
from flagstream.testing import SinkContract

class LongNamed:
    fingerprint = "x" * 65

class Other:
    fingerprint = "y"

class TestLongNamed(SinkContract):
    def sink_class(self, settings):
        return LongNamed() if settings is None else Other()

    def settings(self): ...
    def refusing_settings(self): ...
    def read_back(self): ...

    def settings_of_another_shape(self):
        return 1

"""


def test_pytest_explains_the_asserts_of_the_contract(tmp_path: Path) -> None:
    """A broken promise shows the values that broke it, and an author has to register nothing for that."""
    (tmp_path / "test_nameless.py").write_text(SINK)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "fingerprint", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "assert 65 <= 64" in done.stdout
    assert "where 65 = len(" in done.stdout
    assert "cannot be rewritten" not in done.stdout


def test_the_suite_has_the_names_that_authors_import() -> None:
    """They are part of the protocol for sinks of one's own, and stay where they are."""
    for name in NAMES:
        assert hasattr(flagstream.testing, name), name
