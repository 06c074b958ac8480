"""Mistakes in single values that their types let pass: secrets, paths, and sizes in another unit.

They are looked for in every setting, also in those of sinks that other distributions bring.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from flagstream.config.declared import written_at
from flagstream.config.settings import Settings
from flagstream.units import Written, bare_size_problem, control_character

Path = tuple[str, ...]
Problem = tuple[Path, str]

_PATHS = {("topics", "ingest_schema"), ("topics", "output_schema")}
"""Paths that are declared as texts, because an empty one means that there is none."""
_REFERENCE = re.compile(r"\$(\w+|\(\w+\)|\{\w+\})")
"""A whole value that somebody expected to be replaced: by a shell, by Kubernetes, or here."""
_PATH_PROPERTY = re.compile(r"\.(location|keytab|file)$")


def each_value(model: BaseModel, here: Path = ()) -> Iterator[tuple[Path, FieldInfo, Any]]:
    """Yield every value in ``model`` that holds no others, with its path and its field."""
    for key, field in type(model).model_fields.items():
        yield from _inside(getattr(model, key), field, (*here, key))


def _inside(value: Any, field: FieldInfo, here: Path) -> Iterator[tuple[Path, FieldInfo, Any]]:
    if isinstance(value, BaseModel):
        yield from each_value(value, here)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _inside(one, field, (*here, str(key)))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _inside(one, field, (*here, str(number)))
    else:
        yield here, field, value


def value_problems(settings: Settings, raw: Mapping[str, object], replaced: set[Path]) -> Iterator[Problem]:
    """Yield what cannot work, as path and message. ``raw`` is what was written; ``replaced``:
    the texts of the file in which ``${NAME}`` or ``$${`` was replaced, so that a ``$`` in them is meant.
    """
    for path, field, value in each_value(settings):
        written = written_at(raw, path)
        if isinstance(value, SecretStr):
            if unfit := unfit_in_secret(value.get_secret_value()):
                yield path, unfit
        elif _is_path(path, value):
            if problem := _path_problem(path, str(value), written, path in replaced):
                yield path, problem
        elif _is_property(path, value) and not _may_have_lines(value):
            if unfit := control_character(value):
                yield path, f"holds {unfit}; take it out"
        elif _is_size(field) and written is not None and (problem := bare_size_problem(written)):
            yield path, problem


def value_warnings(settings: Settings, replaced: set[Path]) -> Iterator[Problem]:
    """Yield what is likely a mistake, but could be meant. ``replaced`` is that of `value_problems`."""
    for path, _, value in each_value(settings):
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and path not in replaced and _REFERENCE.fullmatch(text):
            yield path, "looks like the name of a variable, but is taken as it stands"
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            if _edge_is_blank(text) and not _may_have_lines(text):
                yield path, "has white space at its beginning or end, which is taken for a part of it"
        elif _is_path(path, value) and str(value) != str(value).strip():
            yield path, "has white space at its beginning or end, which is taken for a part of the name"


def unfit_in_secret(text: str) -> str | None:
    """Return what in a secret no password, header or key can hold, or None. PEM and JSON have
    lines.
    """
    lines = _may_have_lines(text)
    found = control_character(re.sub(r"[\r\n\t]", " ", text) if lines else text)
    if found is None:
        return None
    return f"holds {found}, which is not a part of a secret; take it out (a file often ends with one)"


def _may_have_lines(text: str) -> bool:
    content = text.strip()
    if content.startswith("-----BEGIN ") and content.endswith("-----"):
        return True
    if not content.startswith(("{", "[")):
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _edge_is_blank(text: str) -> bool:
    """Return whether ``text`` begins or ends with white space, or with something invisible."""
    return bool(text) and any(
        edge.isspace() or unicodedata.category(edge) == "Cf" for edge in (text[0], text[-1])
    )


def _is_property(path: Path, value: object) -> bool:
    return isinstance(value, str) and len(path) > 2 and path[-2].endswith("properties")


def _is_size(field: FieldInfo) -> bool:
    return any(isinstance(part, Written) and part.kind == "size" for part in field.metadata)


def _is_path(path: Path, value: object) -> bool:
    if isinstance(value, FilePath):
        return True
    if not isinstance(value, str):
        return False
    return path in _PATHS or (_is_property(path, value) and _PATH_PROPERTY.search(path[-1]) is not None)


def _path_problem(path: Path, value: str, written: object, replaced: bool) -> str | None:
    text = written if isinstance(written, str) else value
    if not text.strip() and path not in _PATHS:
        return "must not be empty"
    if unfit := control_character(text):
        return f"holds {unfit}; write the path on one line"
    if text.startswith("~"):
        return (
            'begins with "~", which only a shell replaces; write the whole path, '
            "or ${HOME}/... in the file, or ./~... for a folder of that name"
        )
    if not replaced and (found := re.search(r"\$(\w+|\{\w+\}|\(\w+\))", text)):
        name = found[1].strip("{}()").upper()
        return (
            f'holds "{found[0]}", which is taken as it stands; in the file write ${{{name}}}, '
            "and in a variable of the environment the value itself"
        )
    if found := re.match(r"([a-z][a-z0-9+.-]+)://", text, re.IGNORECASE):
        return f'is an address ("{found[1]}://"), and a path is needed; write /folder/name'
    return None
