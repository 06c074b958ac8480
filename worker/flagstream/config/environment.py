"""Environment variables as settings: ``FLAGSTREAM_KAFKA__INSTANCE`` is ``kafka.instance``.

Sinks by their names, with ``_`` for ``-``: ``FLAGSTREAM_SINKS__ARCHIVE__PATH``. In the tables of librdkafka
properties ``_`` stands for ``.``: ``FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD`` is ``sasl.password``;
likewise in the ``properties`` of a sink. In names of headers ``_`` stands for ``-``. With ``_FILE`` at its
end a variable names a file that holds the value.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from flagstream.config.declared import PROPERTY_TABLES, SINK_PROPERTIES, Declared
from flagstream.config.kubernetes import is_service_variable
from flagstream.config.settings import Settings
from flagstream.text import decoded, is_unicode

PREFIX = "FLAGSTREAM_"
DELIMITER = "__"

NO_SETTINGS = ("FLAGSTREAM_CONFIG", "FLAGSTREAM_CRASH", "FLAGSTREAM_TEST_")
"""The path of the file, crash points, and what the tests use; a name with ``_`` at its end is a prefix."""

FILE = "_FILE"
"""The end of a variable that names a file with the value, as container platforms mount secrets."""

HEADERS = "headers"
"""The tables of HTTP headers, in whose names ``_`` stands for ``-``: proxies drop headers with ``_``."""

Path = tuple[str, ...]
Origins = Mapping[Path, str]
"""Which variable a setting comes from; ``${NAME}`` where the file refers to it."""


def variable(path: Path) -> str:
    """Return the name of the variable that sets ``path``."""
    return PREFIX + DELIMITER.join(key.replace(".", "_").replace("-", "_").upper() for key in path)


@dataclass
class Environment:
    """What was found in the variables: the settings that come from them, contents of files, and problems."""

    origins: dict[Path, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def merge(raw: MutableMapping[str, object], environ: Mapping[str, str], declared: Declared) -> Environment:
    """Put the variables into the file's content ``raw``; they take precedence.

    ``declared`` knows the settings that ``raw`` can have.
    """
    found = Environment()
    # What names files comes last: the other variables may say which type a sink has.
    for name, value in sorted(_settings(environ), key=lambda item: (item[0].endswith(FILE), item[0])):
        if not is_unicode(name + value):
            shown = name.encode(errors="backslashreplace").decode()
            found.problems.append(f"{shown}: is not UTF-8 text")
            continue
        path = _path(name, raw)
        if name.endswith(FILE) and not declared.is_setting(path):
            named = name.removesuffix(FILE)
            base = _path(named, raw)
            if declared.is_setting(base):
                if found.origins.get(base) == named:
                    found.problems.append(f"{name}: contradicts {named}; set one of them")
                elif (content := _content(name, value, found)) is not None:
                    found.hidden.add(content)
                    _put(raw, base, content)
                    found.origins[base] = name
                continue
        if not declared.is_setting(path) and (meant := _meant(name, declared)):
            found.problems.append(f"{name}: unknown variable; did you mean {meant}?")
        elif "" in path[:2]:
            found.problems.append(f"{name}: unknown variable")
        elif _is_table(path, raw):
            found.problems.append(f"{name}: names a table; set one of its keys: {name}{DELIMITER}<KEY>")
        elif _put(raw, path, value):
            found.origins[path] = name
        else:
            found.problems.append(f"{name}: unknown variable; what it stands below is not a table")
    found.problems += _in_small_letters(environ, raw, declared)
    return found


def _settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        exempt = any(name == own or (own.endswith("_") and name.startswith(own)) for own in NO_SETTINGS)
        if name.startswith(PREFIX) and not exempt and not is_service_variable(name, value):
            yield name, value


def _content(name: str, value: str, found: Environment) -> str | None:
    """Return the text of the file ``value`` without the line break at its end, or None after a problem.

    The value is not shown: it may be the secret itself.
    """
    try:
        content = decoded(FilePath(value).read_bytes())
    except OSError as error:
        found.problems.append(f"{name}: the file that it names cannot be read: {error.strerror}")
    except ValueError:
        found.problems.append(f"{name}: the file that it names is not UTF-8 text")
    else:
        text = content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content
        if text:
            return text
        found.problems.append(f"{name}: the file that it names is empty")
    return None


def _meant(name: str, declared: Declared) -> str | None:
    """Return the variable that ``name`` is if only its number of underscores is wrong."""
    for candidate in (name, name.removesuffix(FILE)):
        words = _words(candidate)
        for path in declared.paths(words):
            if _words(right := variable(path)) == words and right != candidate:
                return right + name[len(candidate) :]
    return "FLAGSTREAM_CONFIG" if _words(name) == _words("FLAGSTREAM_CONFIG_FILE") else None


def _words(name: str) -> str:
    return "_".join(word for word in name.split("_") if word)


def _in_small_letters(
    environ: Mapping[str, str], raw: Mapping[str, object], declared: Declared
) -> Iterator[str]:
    """Yield a problem for each variable that would be a setting in capitals: nothing reads it as it is."""
    for name in environ:
        capitals = name.upper()
        if name != capitals and capitals.startswith(PREFIX) and declared.is_setting(_path(capitals, raw)):
            yield f"{name}: unknown variable; did you mean {capitals}?"


def _path(name: str, raw: Mapping[str, object]) -> Path:
    keys = name.removeprefix(PREFIX).lower().split(DELIMITER)
    if len(keys) > 2 and tuple(keys[:2]) in PROPERTY_TABLES:
        return (*keys[:2], DELIMITER.join(keys[2:]).replace("_", "."))
    if len(keys) > 1 and keys[0] == "sinks" and isinstance(sinks := raw.get("sinks"), Mapping):
        keys[1] = next((sink for sink in sinks if sink.replace("-", "_") == keys[1]), keys[1])
    if len(keys) > 3 and keys[0] == "sinks" and keys[2] == SINK_PROPERTIES:
        return (*keys[:3], DELIMITER.join(keys[3:]).replace("_", "."))
    return (*keys[:-1], _as_written(keys, raw))


def _as_written(keys: Sequence[str], raw: Mapping[str, object]) -> str:
    """Return the last key as the file writes it: variables have no small letters, and headers no ``_``."""
    header = len(keys) > 3 and keys[-2] == HEADERS
    key = keys[-1].replace("_", "-") if header else keys[-1]
    table: object = raw
    for part in keys[:-1]:
        if isinstance(table, list) and part.isdecimal() and int(part) < len(table):
            table = table[int(part)]
        else:
            table = table.get(part) if isinstance(table, Mapping) else None
    for written in table if isinstance(table, Mapping) else ():
        folded = str(written).lower()
        if (folded.replace("_", "-") if header else folded) == key:
            return str(written)
    return key


def _is_table(path: Path, raw: Mapping[str, object]) -> bool:
    found: object = raw
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    tables = {("sinks",), ("enrich", "metadata"), *PROPERTY_TABLES}
    sections = {(key,) for key in Settings.model_fields if key != "name"}
    return isinstance(found, Mapping) or path in tables | sections or (path[0] == "sinks" and len(path) < 3)


def _put(raw: MutableMapping[str, object], path: Path, value: str) -> bool:
    """Set ``path`` to ``value``; return False if something that is not a table is in the way."""
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
