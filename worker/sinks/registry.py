"""The sinks there are: a new one is a module, and a line in each of the two places here."""

from collections.abc import Mapping
from typing import Any

from worker.sinks.file import FileSettings, FileSink
from worker.sinks.log import LogSettings, LogSink
from worker.sinks.protocol import Sink
from worker.sinks.settings import SinkSettings

SINKS: Mapping[str, type[SinkSettings]] = {"file": FileSettings, "log": LogSettings}
"""The settings of each ``type``."""


def build(settings: SinkSettings) -> Sink[Any]:
    """The sink that ``settings`` describe. Touches nothing outside; that is what ``open`` is for."""
    match settings:
        case FileSettings():
            return FileSink(settings)
        case LogSettings():
            return LogSink(settings)
    raise TypeError(f"no sink for {type(settings).__name__}; add it to worker/sinks/registry.py")
