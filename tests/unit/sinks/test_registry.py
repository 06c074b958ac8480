"""The table of sinks."""

from pathlib import Path

import pytest

from worker.sinks.file import FileSettings, FileSink
from worker.sinks.log import LogSettings, LogSink
from worker.sinks.registry import SINKS, build
from worker.sinks.settings import SinkSettings


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
