"""Prints the reference of the configuration, in Markdown, from the declaration itself."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flagstream.config.flags import SOURCES, FlagSettings
from flagstream.config.settings import Settings
from flagstream.librdkafka import RESERVED, RESERVED_UNDER_CONSUMER_PROTOCOL
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Written

_INTRODUCTION = """\
# Configuration

Printed by `flagstream config reference`; do not edit. A commented example is `flagstream.example.toml`.

One TOML file (`flagstream run -c flagstream.toml`), and environment variables, which are stronger. All
problems are reported together, with exit code 2, before Kafka is touched; `flagstream config check` does only
that. Relative paths begin at the working directory.

* A **duration** is a text such as `"200ms"`, `"60s"`, `"5m"`, `"1h"`, `"1d"`, or a number of seconds.
* A **size** is a text such as `"64MiB"` (1024), `"64MB"` (1000), or a number of bytes.
* A **start** is `"beginning"`, `"latest"`, or a time with its zone, such as `"2026-01-31T00:00:00Z"`. It
  counts only where a group has no offset.
* A setting's **environment variable** is its path in capitals, with `__` between the tables:
  `FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS`, `FLAGSTREAM_SINKS__ARCHIVE__PATH`. A `-` in the name of a sink or
  of a header is written `_`, and so is a `.` in librdkafka's properties:
  `FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD`. Unknown ones that begin with `FLAGSTREAM_` are refused, but
  for `FLAGSTREAM_CONFIG` (the file, in place of `-c`), `FLAGSTREAM_CRASH` and `FLAGSTREAM_TEST_*` (both for
  tests). One underscore in place of two is not forgiven, but the message names the right variable. What
  Kubernetes sets for a Service whose name begins with `flagstream` (`FLAGSTREAM_PORT=tcp://...` and so on)
  is passed over.
* `FLAGSTREAM_..._FILE` names a file that holds the value of the variable without `_FILE`, as secrets are
  mounted: `FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD_FILE=/run/secrets/kafka`. One line break at the end
  of the file is left out. Where the longer name is a setting itself (`credentials_file`), it is that
  setting.
* `${NAME}` in a text of the file is replaced by the environment variable `NAME` (capitals, digits and `_`),
  once; `$${` stands for `${`. A variable that is not set is a mistake. Nothing is replaced in keys, in the
  actions of templates (`{{ }}`) and in values of the environment, and a `~` or `$HOME` in a path is
  refused.
* Passwords and keys are never shown, in no message and no log, and neither are values of `${NAME}` and of
  `_FILE`, also by `config check`, `check` and `render` and on the pages `/ready` and `/health`. Only labels
  of metrics are as they are, such as a topic's or a source's of flags. Better than in the file they stand
  in the environment. Control characters in a secret are refused (line breaks in PEM and JSON are fine);
  white space around one is a warning.
* Without a unit a duration above one hour is refused, as other programs count in milliseconds, and so is a
  size below 1024 bytes: write the unit.
"""

_RESERVED = """\
## Properties of librdkafka that cannot be handed through

All other [properties of librdkafka]\
(https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md) can stand in `[kafka.properties]`,
`[kafka.consumer_properties]` and `[kafka.producer_properties]`. What librdkafka does not know is refused.
"""


def reference(sinks: Mapping[str, type[SinkSettings]]) -> str:
    """Return the whole page."""
    return "\n".join(_page(sinks))


def _page(sinks: Mapping[str, type[SinkSettings]]) -> Iterator[str]:
    yield _INTRODUCTION
    yield from _section("Top level", "", {"name": Settings.model_fields["name"]})
    for key, field in Settings.model_fields.items():
        model = field.annotation
        if key == "sinks":
            yield from _sinks(sinks, _prose(field.description or ""))
        elif isinstance(model, type) and issubclass(model, BaseModel):
            yield from _section(f"`[{key}]`", model.__doc__ or "", model.model_fields)
            if model is FlagSettings:
                yield from _flag_sources()
    yield _RESERVED
    yield from _table(
        ("Property", "Reason"), ((f"`{name}`", _prose(reason)) for name, reason in RESERVED.items())
    )
    yield from (f"| `{name}` | {reason} |" for name, reason in RESERVED_UNDER_CONSUMER_PROTOCOL.items())
    yield ""


def _sinks(sinks: Mapping[str, type[SinkSettings]], text: str) -> Iterator[str]:
    yield from _section("`[sinks.<name>]`, for all types", text, SinkSettings.model_fields)
    for kind, model in sinks.items():
        own = {key: field for key, field in model.model_fields.items() if _differs(key, field)}
        yield from _section(f'`[sinks.<name>]` with `type = "{kind}"`', "", own)


def _flag_sources() -> Iterator[str]:
    for kind, model in SOURCES.items():
        text = model.__doc__ or ""
        yield from _section(f'`[[flags.sources]]` with `type = "{kind}"`', text, model.model_fields)


def _differs(key: str, field: FieldInfo) -> bool:
    shared = SinkSettings.model_fields.get(key)
    return shared is None or (field.default, field.description) != (shared.default, shared.description)


def _section(title: str, text: str, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    yield f"## {title}\n"
    if text:
        yield f"{text}\n"
    yield from _table(
        ("Key", "Type", "Default", "Meaning"),
        (
            (f"`{key}`", _kind(field), _default(key, field), _prose(field.description or ""))
            for key, field in fields.items()
        ),
    )
    yield ""


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _prose(text: str) -> str:
    """Return ``text`` with what Markdown would take for a tag or for emphasis escaped."""
    return text.replace("<", "\\<").replace("*", "\\*")


def _written(field: FieldInfo) -> Written | None:
    return next((part for part in field.metadata if isinstance(part, Written)), None)


_KINDS = {
    str: "text",
    bool: "true or false",
    int: "number",
    float: "number",
    Path: "path",
    SecretStr: "secret",
}


def _kind(field: FieldInfo) -> str:
    written = _written(field)
    return written.kind if written else _kind_of(field.annotation)


def _kind_of(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _kind_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_kind_of(part) for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is dict:
        return "table"
    return _KINDS[annotation]


def _default(key: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or key == "type":
        return "required"
    if default is None:
        return "none"
    written = _written(field)
    return f"`{written.text(default) if written else json.dumps(default, default=str, ensure_ascii=False)}`"
