"""The settings that exist below the tables of a configuration, by the types of its sinks and sources."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from flagstream import librdkafka
from flagstream.config.flags import SOURCES
from flagstream.config.settings import Settings
from flagstream.sinks.registry import SINKS, UnusableSink
from flagstream.sinks.settings import SinkSettings

Path = tuple[str, ...]

PROPERTY_TABLES = {("kafka", table) for table in ("properties", "consumer_properties", "producer_properties")}
SINK_PROPERTIES = "properties"
"""The table of a sink that holds librdkafka properties."""


class Declared:
    """The settings that the file's content ``raw`` can have. It may still grow; ``sinks`` are all types."""

    def __init__(self, raw: Mapping[str, object], sinks: Mapping[str, type[SinkSettings]]) -> None:
        self._raw = raw
        self._sinks = sinks

    def is_setting(self, path: Path) -> bool:
        """Return whether ``path`` is declared, as properties of librdkafka are, too, and each key of a free
        table."""
        if len(path) == 3 and path[:2] in PROPERTY_TABLES:
            return librdkafka.exists(path[2])
        if len(path) == 4 and path[0] == "sinks" and path[2] == SINK_PROPERTIES:
            return librdkafka.exists(path[3])
        model, inner = self._model(path)
        field = model.model_fields.get(inner[0]) if model and inner else None
        if field is None:
            return False
        if len(inner) == 1:
            return not _is_table(field) and path != ("flags", "sources")
        if len(inner) == 2 and model is not Settings and get_origin(field.annotation) is dict:
            # A table of secrets, such as headers: there NAME_FILE is what mounts one.
            return not (mentions(field.annotation, SecretStr) and inner[1].endswith(("_file", "-file")))
        return False

    def paths(self, words: str) -> Iterator[Path]:
        """Yield the settings that a variable of these words can mean, whatever stands between the words."""
        yield ("name",)
        for section, field in Settings.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from ((section, key) for key in field.annotation.model_fields)
        yield from ((*table, name) for table in PROPERTY_TABLES for name in librdkafka.COMMON)
        sinks = self._raw.get("sinks")
        for name in sinks if isinstance(sinks, Mapping) else ():
            yield from (("sinks", name, key) for key in self._sink(name).model_fields)
            yield from (("sinks", name, SINK_PROPERTIES, key) for key in librdkafka.COMMON)
        yield from self._of_unnamed_sinks(words)
        for number in range(10):
            for model in SOURCES.values():
                yield from (("flags", "sources", str(number), key) for key in model.model_fields)

    def _of_unnamed_sinks(self, words: str) -> Iterator[Path]:
        """Yield what FLAGSTREAM_SINKS_NAME_KEY could mean, for sinks that only variables name."""
        _, sinks, rest = words.lower().partition("_sinks_")
        keys = {key for model in SINKS.values() for key in model.model_fields} if sinks else ()
        yield from (("sinks", rest.removesuffix(f"_{key}"), key) for key in keys if rest.endswith(f"_{key}"))

    def _model(self, path: Path) -> tuple[type[BaseModel] | None, Path]:
        """Return the model that ``path`` begins with, and the rest of the path inside it."""
        if len(path) > 2 and path[0] == "sinks":
            return self._sink(path[1]), path[2:]
        if len(path) > 3 and path[:2] == ("flags", "sources"):
            return SOURCES.get(str(written_at(self._raw, (*path[:3], "type")))), path[3:]
        field = Settings.model_fields.get(path[0])
        if len(path) > 1 and field and isinstance(field.annotation, type):
            return (field.annotation if issubclass(field.annotation, BaseModel) else None), path[1:]
        return Settings, path

    def _sink(self, name: str) -> type[SinkSettings]:
        return self._type(str(written_at(self._raw, ("sinks", name, "type"))))

    def _type(self, kind: str) -> type[SinkSettings]:
        try:
            return self._sinks.get(kind, SinkSettings)
        except UnusableSink:
            return SinkSettings


def mentions(annotation: Any, wanted: type) -> bool:
    """Return whether ``wanted`` is ``annotation`` or a part of it."""
    return annotation is wanted or any(mentions(part, wanted) for part in get_args(annotation))


def _is_table(field: FieldInfo) -> bool:
    kind = get_origin(field.annotation) or field.annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel | dict)


def written_at(raw: object, path: Path) -> object:
    """Return the value at ``path`` of ``raw``, or None if there is none."""
    for key in path:
        if isinstance(raw, Mapping):
            raw = raw.get(key)
        elif isinstance(raw, list) and key.isdecimal() and int(key) < len(raw):
            raw = raw[int(key)]
        else:
            return None
    return raw
