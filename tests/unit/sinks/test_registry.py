"""The table of sinks, and sinks that other distributions bring."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagstream.sinks.log import LogSettings, LogSink
from flagstream.sinks.objects.file import FileSettings, FileSink
from flagstream.sinks.registry import SINKS, InstalledSinks, build
from flagstream.sinks.settings import SinkSettings
from tests.unit.test_config import problems, read

Install = Callable[..., None]


def test_builds_each_sink(tmp_path: Path) -> None:
    """Settings give the sink they belong to; building it touches nothing."""
    assert isinstance(build(FileSettings(path=tmp_path / "new")), FileSink)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(build(LogSettings()), LogSink)


@pytest.mark.parametrize("name", SINKS)
def test_type_is_the_tables_key(name: str) -> None:
    """The table's key is the value of ``type``."""
    assert SINKS[name].model_fields["type"].default == name


def test_foreign_settings() -> None:
    """Settings that no sink belongs to are a mistake in the program."""

    class Foreign(SinkSettings):
        pass

    with pytest.raises(TypeError, match="no sink for Foreign"):
        build(Foreign(type="foreign"))


def test_bad_log_template() -> None:
    """A bad log template is reported when the settings are read."""
    with pytest.raises(ValueError, match="Hostname"):
        LogSettings(template="{{ .Hostname }}")


MODULE = """
from typing import Literal
from flagstream.sinks.registry import SinkType
from flagstream.sinks.settings import SinkSettings

class Mine(SinkSettings):
    type: Literal["mine"] = "mine"
    depth: int = 1

class MySink:
    def __init__(self, settings):
        self.settings = settings

SINK = SinkType(Mine, MySink, protocol=2)
NEWER = SinkType(Mine, MySink, protocol=3)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a distribution with one entry point appear to be installed."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "foreign_sink.py").write_text(MODULE)

    def make(name: str, value: str, distribution: str = "foreign") -> None:
        folder = tmp_path / f"{distribution}-2.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.1\n")
        (folder / "entry_points.txt").write_text(f"[flagstream.sinks]\n{name} = {value}\n")
        importlib.invalidate_caches()

    yield make
    sys.modules.pop("foreign_sink", None)


def problem(tmp_path: Path, kind: str) -> str:
    """What the configuration says of a sink of this type."""
    (found,) = problems(tmp_path, f'[sinks.a]\ntype = "{kind}"\npath = "x"', known_sinks=InstalledSinks())
    return found


def test_a_foreign_sink_is_configured_and_built(install: Install, tmp_path: Path) -> None:
    """Its settings are read and checked like ours; the entry point's name is the type."""
    install("mine", "foreign_sink:SINK")

    settings = read(tmp_path, '[sinks.a]\ntype = "mine"\ndepth = 3', known_sinks=InstalledSinks())
    sink: Any = build(settings.sinks["a"])

    assert type(sink).__name__ == "MySink"
    assert sink.settings.depth == 3
    assert "mine" in InstalledSinks()
    assert {*SINKS, "mine"} <= set(InstalledSinks())


def test_a_foreign_sink_is_imported_only_when_it_is_named(install: Install, tmp_path: Path) -> None:
    """A broken one that nobody uses breaks nothing."""
    install("mine", "no_such_module:SINK")

    settings = read(tmp_path, '[sinks.a]\ntype = "log"', known_sinks=InstalledSinks())

    assert settings.sinks["a"] == LogSettings()


def test_a_misspelt_type_is_told_the_nearest(install: Install, tmp_path: Path) -> None:
    """The nearest type may be a foreign one, which is named without importing it."""
    install("mine", "no_such_module:SINK")

    text = '[sinks.a]\ntype = "mines"'
    assert problems(tmp_path, text, known_sinks=InstalledSinks()) == [
        'sinks.a.type: "mines" is not a sink; did you mean mine?'
    ]


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("mine", "no_such_module:SINK", "cannot be imported: ModuleNotFoundError: No module named"),
        ("mine", "foreign_sink:NONE", "cannot be imported: AttributeError"),
        ("mine", "foreign_sink:MySink", "is a type, not a flagstream.sinks.registry.SinkType"),
        ("mine", "foreign_sink:NEWER", "for version 3 of the sink protocol, and this worker has version 2"),
        ("theirs", "foreign_sink:SINK", 'its settings must have type: Literal["theirs"] = "theirs"'),
        ("file", "foreign_sink:SINK", '"file" is a sink of the worker, and foreign_sink:SINK of foreign 2.1'),
    ],
    ids=["no module", "no such name", "something else", "another protocol", "another type", "name taken"],
)
def test_what_is_wrong_with_a_foreign_sink(
    install: Install, tmp_path: Path, name: str, value: str, what: str
) -> None:
    """The problem names the sink in the configuration, the entry point and its distribution."""
    install(name, value)

    found = problem(tmp_path, name)

    assert found.startswith("sinks.a.type: ")
    assert f"{value} of foreign 2.1" in found
    assert what in found


def test_two_distributions_under_one_name(install: Install, tmp_path: Path) -> None:
    """Nobody can know which of them is meant."""
    install("mine", "foreign_sink:SINK", "one")
    install("mine", "foreign_sink:SINK", "two")

    found = problem(tmp_path, "mine")

    assert '"mine" is brought by' in found
    assert "of one 2.1" in found
    assert "of two 2.1" in found
