"""Avro schemas: our own, those in files, and the conditions for one that events are written with."""

import json
from pathlib import Path
from typing import Any, Final

import fastavro

import flagstream
from flagstream.errors import ConfigError, FlagstreamError
from flagstream.text import decoded

OTHERS: Final = "otherFields"
"""The field that holds, as a JSON object, what the other fields cannot."""

JSON_TEXT: Final = frozenset({"value", "metadata", "evaluationContext", "trackingEventDetails"})
"""Fields in which a string is JSON text."""

_PACKAGE: Final = Path(flagstream.__file__).parent
_FOLDERS: Final = (_PACKAGE / "avro", _PACKAGE.parents[1] / "avro")
"""The folders of the schemas, in a wheel and in a checkout."""


class NotAvro(FlagstreamError):
    """A text is not the Avro schema of a record; the message says why."""


def own(name: str) -> str:
    """Return the text of our schema ``name``: "raw_event" or "enriched_event"."""
    file = next(file for folder in _FOLDERS if (file := folder / f"{name}.avsc").exists())
    return file.read_text(encoding="utf-8")


def parsed(text: str) -> dict[str, Any]:
    """Return the schema of a record, ready for fastavro. Raises NotAvro.

    Logical types are removed: a time stamp is then the number of its unit, as in JSON.
    """
    try:
        schema = fastavro.parse_schema(_plain(json.loads(text)))
    except Exception as error:  # a foreign text makes fastavro raise errors of any kind
        raise NotAvro(f"it is not an Avro schema: {type(error).__name__}: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise NotAvro("it is not the schema of a record")
    return schema


def from_file(path: Path, setting: str) -> str:
    """Return the text of a schema file. Raises ConfigError, which names ``setting``."""
    try:
        text = decoded(path.read_bytes())
        parsed(text)
    except OSError as error:
        raise ConfigError([f"{setting}: {path}: {error.strerror or error}"]) from error
    except (NotAvro, ValueError) as error:
        raise ConfigError([f"{setting}: {path}: {error}"]) from error
    return text


def check_output(text: str, setting: str) -> None:
    """Check that every enriched event can be written with this schema and read back whole. Raises
    ConfigError.

    The schema may lack fields of ours, as former versions do, except ``otherFields``, which then holds them.
    """
    ours = _types(own("enriched_event"))
    problems = []
    if OTHERS not in _types(text):
        problems.append(f'{setting}: the schema has no field "{OTHERS}", without which events lose fields')
    for field in json.loads(text)["fields"]:
        name = field["name"]
        if name in ours and field["type"] != ours[name]:
            problems.append(f'{setting}: "{name}" must be of the type {json.dumps(ours[name])}')
        elif name not in ours and "default" not in field:
            problems.append(f'{setting}: "{name}" is not a field of an enriched event and has no default')
    if problems:
        raise ConfigError(problems)


def _types(text: str) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in json.loads(text)["fields"]}


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _plain(part) for name, part in schema.items() if name != "logicalType"}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema
