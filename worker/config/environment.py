"""Environment variables as settings: ``FLAGSTREAM_KAFKA__INSTANCE`` is ``kafka.instance``.

Sinks by their names, with ``_`` for ``-``: ``FLAGSTREAM_SINKS__ARCHIVE__PATH``. In the tables of librdkafka
properties ``_`` stands for ``.``: ``FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD`` is ``sasl.password``;
likewise in the ``properties`` of a sink.
"""

from collections.abc import Iterator, Mapping, MutableMapping

from worker.config.settings import Settings

PREFIX = str(Settings.model_config["env_prefix"])
DELIMITER = str(Settings.model_config["env_nested_delimiter"])

NO_SETTINGS = ("FLAGSTREAM_CONFIG", "FLAGSTREAM_CRASH", "FLAGSTREAM_TEST_")
"""The path of the file, crash points, and what the tests use; a name with ``_`` at its end is a prefix."""

Path = tuple[str, ...]
Origins = Mapping[Path, str]
"""Which variable a setting comes from."""

SINK_PROPERTIES = "properties"
"""The table of a sink that holds librdkafka properties."""

PROPERTY_TABLES = {("kafka", table) for table in ("properties", "consumer_properties", "producer_properties")}


def variable(path: Path) -> str:
    """The variable that sets ``path``."""
    return PREFIX + DELIMITER.join(key.replace(".", "_").replace("-", "_").upper() for key in path)


def merge(raw: MutableMapping[str, object], environ: Mapping[str, str]) -> tuple[Origins, list[str]]:
    """Put the variables into the file's content; they are stronger. Also returns what is wrong with them."""
    origins: dict[Path, str] = {}
    problems: list[str] = []
    for name, value in sorted(_settings(environ)):
        path = _path(name, raw)
        if _is_table(path, raw):
            problems.append(f"{name}: names a table; set one of its keys: {name}{DELIMITER}<KEY>")
        elif _put(raw, path, value):
            origins[path] = name
    return origins, problems


def _settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        exempt = any(name == own or (own.endswith("_") and name.startswith(own)) for own in NO_SETTINGS)
        if name.startswith(PREFIX) and not exempt:
            yield name, value


def _path(name: str, raw: Mapping[str, object]) -> Path:
    keys = name.removeprefix(PREFIX).lower().split(DELIMITER)
    if len(keys) > 2 and tuple(keys[:2]) in PROPERTY_TABLES:
        return (*keys[:2], DELIMITER.join(keys[2:]).replace("_", "."))
    if len(keys) > 1 and keys[0] == "sinks" and isinstance(sinks := raw.get("sinks"), Mapping):
        keys[1] = next((sink for sink in sinks if sink.replace("-", "_") == keys[1]), keys[1])
    if len(keys) > 3 and keys[0] == "sinks" and keys[2] == SINK_PROPERTIES:
        return (*keys[:3], DELIMITER.join(keys[3:]).replace("_", "."))
    return tuple(keys)


def _is_table(path: Path, raw: Mapping[str, object]) -> bool:
    found: object = raw
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    tables = {("sinks",), ("enrich", "metadata"), *PROPERTY_TABLES}
    sections = {(key,) for key in Settings.model_fields if key != "name"}
    return isinstance(found, Mapping) or path in tables | sections or (path[0] == "sinks" and len(path) < 3)


def _put(raw: MutableMapping[str, object], path: Path, value: str) -> bool:
    """False where the file has something else in place of a table; that is reported of the file."""
    for position, key in enumerate(path[:-1]):
        table = raw.setdefault(key, {})
        if isinstance(table, list) and path[position + 1].isdecimal():
            # flags.sources: the variables name a table of the list by its number, from 0 on
            table = raw[key] = {str(number): one for number, one in enumerate(table)}
        if not isinstance(table, MutableMapping):
            return False
        raw = table
    raw[path[-1]] = value
    return True
