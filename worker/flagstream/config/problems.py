"""Turns what pydantic found into lines for people: the path, what was found, and what would be right."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from flagstream.config import goff_words
from flagstream.config.declared import SINK_PROPERTIES, mentions
from flagstream.config.environment import DELIMITER, Origins, Path, variable
from flagstream.config.flags import SOURCES
from flagstream.config.settings import Settings
from flagstream.librdkafka import COMMON, is_secret
from flagstream.nearest import near, nearest
from flagstream.units import SMALLEST_BARE, Written, format_bytes, format_seconds, is_bare, shown


def dotted(path: Iterable[object]) -> str:
    """Return the path as it is written in TOML; a key with dots in it is quoted."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_<>-]+", key) else f'"{key}"' for key in map(str, path))


def line(path: Path, message: str, origins: Origins) -> str:
    """Return the line for one problem; it names the variable that the value comes from, if there is one."""
    origin = origins.get(path) or origins.get(path[:-1])  # one text can stand for a list of one
    source = f" (from {origin})" if origin else ""
    return f"{dotted(path)}{source}: {message}"


def lines(
    error: ValidationError, model: type[BaseModel], origins: Origins, prefix: Path = ()
) -> dict[Path, str]:
    """Return the problem of each path of ``model`` that failed, in the order in which they were found."""
    found: dict[Path, str] = {}
    for details in error.errors(include_url=False):
        # "[key]": pydantic's word for a dictionary's key that failed, here the name of a sink
        below = tuple(str(key) for key in details["loc"] if key != "[key]")
        owner, inner = model, below
        if below[:2] == ("flags", "sources") and len(below) > 3:
            # pydantic puts the source's type after its number
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
    from_variable = path in origins and not origins[path].startswith("$")
    if path[-1].lower() not in known and (meant := _property(path, known)):
        if from_variable:
            return f"{origins[path]}: unknown variable; did you mean {variable(meant)}?"
        return f"{dotted(path)}: unknown key; did you mean {dotted(meant)}?"
    close = near(path[-1], known)
    if not from_variable:
        hint = _word_of_goff(path, known) or (None if close else _elsewhere(path))
        return f"{dotted(path)}: unknown key" + (f"; {hint}" if hint else nearest(path[-1], known))
    if section := _section_with(path):
        return f"{origins[path]}: unknown variable; did you mean {variable((section, path[-1]))}?"
    if (
        not close
        and len(path) == 1
        and (hint := goff_words.counterpart(path[0].split("_")[0], goff_words.TOP))
    ):
        return f"{origins[path]}: unknown variable; {hint}"
    known_as = [
        variable((*path[:-1], key)) + (f"{DELIMITER}<KEY>" if _is_table(known[key]) else "")
        for key in ([close] if close else known)
    ]
    return f"{origins[path]}: unknown variable" + (
        f"; did you mean {known_as[0]}?" if close else f"; known are {', '.join(sorted(known_as))}"
    )


def _property(path: Path, known: Mapping[str, FieldInfo]) -> Path | None:
    """Return where a librdkafka property belongs that stands beside its table: kafka.sasl_password."""
    if SINK_PROPERTIES not in known:
        return None
    name = path[-1].lower().replace("_", ".")
    if name in COMMON:
        return (*path[:-1], SINK_PROPERTIES, name)
    return (*path[:-1], SINK_PROPERTIES) if any(each.startswith(f"{name}.") for each in COMMON) else None


def _word_of_goff(path: Path, known: Mapping[str, FieldInfo]) -> str | None:
    word = path[-1]
    if len(path) == 1:
        return goff_words.counterpart(word, goff_words.TOP)
    if path[:2] == ("flags", "sources"):
        return goff_words.counterpart(word, goff_words.SOURCE)
    if path[0] != "sinks" or (word == "path" and "prefix" not in known):
        return None
    return goff_words.counterpart(word, goff_words.SINK)


def _elsewhere(path: Path) -> str | None:
    """Return a hint at the setting of this name in another section."""
    word = path[-1].lower()
    if path[0] == "sinks" or len(path) > 2:
        return None
    if path[0] == "flags" and (kinds := [kind for kind, one in SOURCES.items() if word in one.model_fields]):
        return f'did you mean a table [[flags.sources]] with type = "{kinds[0]}"?'
    if section := _section_with(path):
        return f"did you mean {section}.{word}?"
    if word not in Settings.model_fields or len(path) == 1:
        return None
    return (
        f"did you mean [{word}]?"
        if _is_table(Settings.model_fields[word])
        else (f"did you mean {word}, above all tables?")
    )


def _section_with(path: Path) -> str | None:
    """Return another section that has a setting of the name at the end of ``path``."""
    if path[0] == "sinks" or len(path) > 2:
        return None
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if (
            isinstance(model, type)
            and issubclass(model, BaseModel)
            and path[-1].lower() in model.model_fields
        ):
            return section
    return None


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
    """Return whether a value may be shown. One of an unknown key may be a secret that somebody misspelt."""
    return field is not None and not mentions(field.annotation, SecretStr) and not any(map(is_secret, path))


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
        if isinstance(found, Mapping) and isinstance(word := found.get("kind"), str):
            return f"type is missing; for GO Feature Flag's kind write type{_source_type(word)}"
        return f"type is missing; write one of {', '.join(SOURCES)}"
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        return f"type {shown(tag)} is not a source{_source_type(tag)}"
    if kind == "literal_error":
        return f"{text} is not possible; write {_alternatives(field)}" + _near_literal(found, field)
    if kind == "dict_type" and path == ("sinks",) and isinstance(found, list):
        return "is a list; write [sinks.<name>] for each, with a name of your own"
    if kind == "list_type" and path[-1] != "sources":
        return 'is a list; write ["a", "b"] in the file'
    if kind in ("model_type", "model_attributes_type") and path[:-1] == ("flags", "sources"):
        return "is not a table; write a table [[flags.sources]] for each"
    if kind == "path_type" and isinstance(found, list):
        more = (
            '; write a table [[flags.sources]] with type = "file" for each'
            if path == ("flags", "path")
            else ""
        )
        return f"is one path, not a list{more}"
    if kind == "string_type" and isinstance(found, list):
        return 'is one text, not a list; write its parts with commas: "a,b"'
    if kind in _WRONG_TYPE:
        return _WRONG_TYPE[kind].format(text=text, table=dotted(path))
    if kind in _BOUND:
        limit = _limit(context, field)
        if scalar and _written_as(field) == "duration":
            text = format_seconds(float(str(found)))
        elif scalar and _written_as(field) == "size":
            text = format_bytes(int(str(found)))
        return f"{text} is out of range; write {_BOUND[kind]} {limit}{_other_unit(found, field)}"
    if kind == "value_error":
        return str(context.get("error", details["msg"]))
    return f"{text} is not accepted: {details['msg']}"


_WRONG_TYPE = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "{text} is not a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "{text} is not a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "{text} is neither true nor false"),
    **dict.fromkeys(("string_type", "path_type"), '{text} is not a text; write it in quotes: "..."'),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "is a table; write [{table}]"),
    "list_type": "is a list; write a table [[{table}]] for each",
    "string_too_short": "must not be empty",
    "finite_number": "{text} is not a finite number",
}
_BOUND = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def _written_as(field: FieldInfo | None) -> str:
    return next((part.kind for part in field.metadata if isinstance(part, Written)), "") if field else ""


def _limit(context: Mapping[str, Any], field: FieldInfo | None) -> str:
    limit = next(context[key] for key in ("gt", "ge", "lt", "le") if key in context)
    match _written_as(field):
        case "duration" if limit:
            return format_seconds(limit)
        case "size" if limit:
            return format_bytes(limit)
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def _other_unit(found: object, field: FieldInfo | None) -> str:
    """Return a hint at the unit that a number without one may have."""
    if not is_bare(found) or isinstance(found, bool):
        return ""
    number = float(str(found))  # of a text with a unit, too
    if _written_as(field) == "duration" and number >= 1000 and number % 60:
        return f", such as {format_seconds(number / 1000)} if milliseconds are meant"
    if _written_as(field) == "size" and 0 < number < SMALLEST_BARE:
        return f', such as "{str(found).strip()}MiB" if megabytes are meant'
    return ""


def _source_type(word: str) -> str:
    if word in goff_words.FOREIGN_SOURCES:
        return f"; {goff_words.FOREIGN_SOURCES[word]}"
    return nearest(goff_words.SOURCE_TYPES.get(word, word), SOURCES)


def sink_type(word: str, known: Iterable[str]) -> str:
    """Return what to write in place of the unknown type ``word``."""
    if word in goff_words.FOREIGN_SINKS:
        return "; read the output topic with a connector, or write a sink of your own: docs/write-a-sink.md"
    return nearest(goff_words.SINK_TYPES.get(word, word), known)


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


_GOFF_LITERALS = {"json": "jsonl", "uncompressed": "none", "lz4_raw": "lz4"}


def _near_literal(found: object, field: FieldInfo | None) -> str:
    word = str(found).lower()
    literals = _literals(field)
    meant = _GOFF_LITERALS.get(word)
    close = meant if meant in literals else near(word, literals)
    return f'; did you mean "{close}"?' if close else ""
