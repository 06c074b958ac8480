"""What pydantic found, as lines for people: the path, what was found, and what would be right."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from worker.config.environment import DELIMITER, Origins, Path, variable
from worker.config.flags import SOURCES
from worker.kafka.handed_through import is_secret
from worker.units import shown


def dotted(path: Iterable[object]) -> str:
    """The path as it is written in TOML; a key with dots in it is quoted."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_<>-]+", key) else f'"{key}"' for key in map(str, path))


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the nearest known word, or all of them where none is near."""
    known = sorted(known)
    if near := difflib.get_close_matches(word.lower(), known, n=1):
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(known)}" if known else ""


def line(path: Path, message: str, origins: Origins) -> str:
    """One problem; where the value comes from a variable, that is named."""
    source = f" (from {origins[path]})" if path in origins else ""
    return f"{dotted(path)}{source}: {message}"


def lines(
    error: ValidationError, model: type[BaseModel], origins: Origins, prefix: Path = ()
) -> dict[Path, str]:
    """The problem of each path of ``model`` that failed, in the order in which they were found."""
    found: dict[Path, str] = {}
    for details in error.errors(include_url=False):
        # "[key]": pydantic's word for a dictionary's key that failed, here the name of a sink
        below = tuple(str(key) for key in details["loc"] if key != "[key]")
        owner, inner = model, below
        if below[:2] == ("flags", "sources") and len(below) > 3:
            # pydantic puts the source's type behind its number
            owner, inner = SOURCES[below[3]], below[4:]
            below = (*below[:3], *inner)
        path = prefix + below
        if details["type"] == "extra_forbidden":
            found.setdefault(path, _unknown(path, _model(owner, inner[:-1]), origins))
        else:
            found.setdefault(path, line(path, _message(details, _field(owner, inner), path), origins))
    return found


def _unknown(path: Path, model: type[BaseModel] | None, origins: Origins) -> str:
    known = model.model_fields if model else {}
    if path not in origins:
        return f"{dotted(path)}: unknown key{nearest(path[-1], known)}"
    near = difflib.get_close_matches(path[-1], known, n=1)
    known_as = [
        variable((*path[:-1], key)) + (f"{DELIMITER}<KEY>" if _is_table(known[key]) else "")
        for key in near or known
    ]
    return f"{origins[path]}: unknown variable" + (
        f"; did you mean {known_as[0]}?" if near else f"; known are {', '.join(sorted(known_as))}"
    )


def _is_table(field: FieldInfo) -> bool:
    kind = get_origin(field.annotation) or field.annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel | dict)


def _model(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    for key in path:
        field = model.model_fields.get(key)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return None
        model = field.annotation
    return model


def _field(model: type[BaseModel], path: Path) -> FieldInfo | None:
    owner = _model(model, path[:-1]) if path else None
    return owner.model_fields.get(path[-1]) if owner else None


def _may_be_shown(field: FieldInfo | None, path: Path) -> bool:
    """A value whose declaration is not known may be a secret that somebody misspelt."""
    return field is not None and not _mentions(field.annotation, SecretStr) and not any(map(is_secret, path))


def _mentions(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_mentions(part, wanted) for part in get_args(annotation))


def _message(details: ErrorDetails, field: FieldInfo | None, path: Path) -> str:
    kind, context = details["type"], details.get("ctx", {})
    found = details.get("input")
    scalar = isinstance(found, str | int | float)
    text = shown(found) if scalar and _may_be_shown(field, path) else "the value"
    if kind == "missing":
        meaning = (field.description or "").partition(". ")[0].rstrip(".") if field else ""
        return f"is missing: {meaning}" if meaning else "is missing"
    if kind == "wrong":
        return str(context["message"])
    if kind == "union_tag_not_found":
        return f"type is missing; write one of {', '.join(SOURCES)}"
    if kind == "union_tag_invalid":
        return f"type {shown(context['tag'])} is no source{nearest(str(context['tag']), SOURCES)}"
    if kind == "literal_error":
        return f"{text} is not possible; write {_alternatives(field)}" + _near_literal(found, field)
    if kind in _WRONG_TYPE:
        return _WRONG_TYPE[kind].format(text=text, table=dotted(path))
    if kind in _BOUND:
        return f"{text} is out of range; write {_BOUND[kind]} {_limit(context)}"
    if kind == "value_error":
        return str(context.get("error", details["msg"]))
    return f"{text} is not accepted: {details['msg']}"


_WRONG_TYPE = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "{text} is no whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "{text} is no number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "{text} is neither true nor false"),
    **dict.fromkeys(("string_type", "path_type"), '{text} is no text; write it in quotes: "..."'),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "is a table; write [{table}]"),
    "list_type": "is a list; write a table [[{table}]] for each",
    "string_too_short": "must not be empty",
    "finite_number": "{text} is no finite number",
}
_BOUND = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def _limit(context: Mapping[str, Any]) -> str:
    limit = next(context[key] for key in ("gt", "ge", "lt", "le") if key in context)
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def _literals(field: FieldInfo | None) -> list[str]:
    def strings(annotation: Any) -> list[str]:
        return (
            [annotation]
            if isinstance(annotation, str)
            else [s for a in get_args(annotation) for s in strings(a)]
        )

    return strings(field.annotation) if field else []


def _alternatives(field: FieldInfo | None) -> str:
    return " or ".join(f'"{literal}"' for literal in _literals(field))


def _near_literal(found: object, field: FieldInfo | None) -> str:
    near = difflib.get_close_matches(str(found), _literals(field), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
