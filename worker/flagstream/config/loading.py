"""Reads the configuration and reports every problem of it together."""

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from flagstream.config import goff_words
from flagstream.config.checks import cross_field_problems, cross_field_warnings
from flagstream.config.declared import PROPERTY_TABLES, SINK_PROPERTIES, Declared
from flagstream.config.environment import Origins, Path, merge
from flagstream.config.file import read_file
from flagstream.config.masking import Mask
from flagstream.config.problems import line, lines, sink_type
from flagstream.config.references import put_in
from flagstream.config.settings import Settings
from flagstream.config.values import each_value, value_problems, value_warnings
from flagstream.errors import ConfigError
from flagstream.nearest import nearest
from flagstream.sinks.registry import InstalledSinks, UnusableSink
from flagstream.sinks.settings import SinkSettings
from flagstream.units import shown, visible

_SHORTEST_SECRET = 4
"""Characters: a shorter secret is a word of many messages. No message quotes one; this is a second net."""

Model = TypeVar("Model", bound=BaseModel)


def load(
    path: FilePath | None,
    environ: Mapping[str, str] = os.environ,
    *,
    enrich: bool = True,
    sinks: Sequence[str] | None = None,
    known_sinks: Mapping[str, type[SinkSettings]] = InstalledSinks(),
    needs_sink: bool = False,
    further: Callable[[Settings], Sequence[str]] = lambda settings: (),
) -> Settings:
    """Return the settings of the TOML file at ``path`` (None: no file) and of ``environ``, which is stronger.

    ``enrich`` and ``sinks`` say which stages are to run (None: all sinks that are configured): what only
    others need may be missing, and each sink named has to be there. ``needs_sink``: a configuration without
    any sink is a problem. ``further`` is called where nothing is wrong with ``[kafka]``, for problems that
    only librdkafka can find.

    Raises ConfigError with every problem, a line each. No value of ``${NAME}`` or of a file that a variable
    names is in them, and no secret.
    """
    raw = read_file(path) if path is not None else {}
    _flatten_properties(raw)
    references = put_in(raw, environ)
    environment = merge(raw, environ, Declared(raw, known_sinks))
    origins = {**references.origins, **environment.origins}
    reading = _Reading(origins)
    for at, fault in references.problems.items():
        if at not in environment.origins:
            reading.refuse(raw, at, fault)
    settings = reading.settings(raw, known_sinks)
    replaced = (references.origins.keys() | references.escaped) - environment.origins.keys()
    found = list(reading.problems.items())
    for at, message in (
        *cross_field_problems(settings, set(reading.problems), enrich=enrich),
        *(each for each in value_problems(settings, raw, replaced) if each[0] not in reading.problems),
    ):
        found.append((at, line(at, message, origins)))
    problems = [*environment.problems]
    problems += (problem for _, problem in sorted(found, key=_section))
    defined = list(named) if isinstance(named := raw.get("sinks"), Mapping) else []
    if needs_sink and sinks is None and not defined and isinstance(raw.get("sinks", {}), Mapping):
        problems.append(
            "sinks: there is none, so nothing would be exported; add one, such as [sinks.archive] with "
            'type = "file" and path, or run --stage enrich'
        )
    problems += (
        f"--sink {name}: no such sink{nearest(name, defined)}" for name in sinks or () if name not in defined
    )
    # librdkafka takes a while to load: only for properties, and for what is else without a problem.
    if not any(at[0] == "kafka" for at, _ in found) and (not problems or settings.kafka.properties):
        problems += further(settings)
    settings._hidden = tuple(sorted(references.hidden | environment.hidden))
    mask = mask_of(settings)
    if problems:
        raise ConfigError([visible(mask(problem)) for problem in problems])
    warnings = [
        *references.warnings.items(),
        *value_warnings(settings, replaced),
        *cross_field_warnings(settings),
    ]
    settings._warnings = tuple(visible(mask(line(at, text, origins))) for at, text in warnings)
    return settings


def mask_of(settings: Settings) -> Mask:
    """Return a mask for what must not be shown: secrets, and values of ``${NAME}`` and of files.

    Of addresses that are secrets, scheme and host may be shown; who shows them takes care of the rest.
    """
    secrets = (
        value.get_secret_value() for _, _, value in each_value(settings) if isinstance(value, SecretStr)
    )
    long = (secret for secret in secrets if len(secret) >= _SHORTEST_SECRET and "://" not in secret)
    return Mask([*settings.hidden, *long])


def _section(found: tuple[Path, str]) -> int:
    """Sort problems in the order of the reference, unknown keys first."""
    sections = list(Settings.model_fields)
    return sections.index(found[0][0]) if found[0][0] in sections else -1


def _flatten_properties(raw: dict[str, object]) -> None:
    """Make properties of tables: in TOML ``sasl.password = ""`` without quotes is a table ``sasl``."""
    sinks = raw.get("sinks")
    tables = [(raw.get(section), table) for section, table in PROPERTY_TABLES]
    tables += [(sink, SINK_PROPERTIES) for sink in (sinks.values() if isinstance(sinks, dict) else ())]
    for section, table in tables:
        if isinstance(section, dict) and isinstance(properties := section.get(table), dict):
            section[table] = dict(_leaves(properties))


def _leaves(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{below}", leaf) for below, leaf in _leaves(value))
        else:
            yield key, value


@dataclass
class _Reading:
    """Reads models so that a field that fails hides nothing else: its default stands in for it."""

    origins: Origins
    problems: dict[Path, str] = field(default_factory=dict)

    def refuse(self, raw: MutableMapping[str, object], at: Path, message: str) -> None:
        """Report ``at`` and take its value out of ``raw``, so that nothing else is said of it: of texts in a
        list the whole list.
        """
        self._report(at, message)
        table: object = raw
        holder, name = raw, at[0]
        for key in at:
            if isinstance(table, MutableMapping):
                holder, name = table, key
                table = table.get(key)
            elif isinstance(table, list):
                table = table[int(key)]
        holder.pop(name, None)

    def settings(self, raw: MutableMapping[str, object], known: Mapping[str, type[SinkSettings]]) -> Settings:
        tables = raw.get("sinks", {})
        sinks: object = tables
        if isinstance(tables, Mapping):
            sinks = {name: self._sink(name, table, known) for name, table in tables.items()}
        settings = self._model(Settings, {**raw, "sinks": sinks}, ())
        assert settings is not None, "every section has defaults"
        return settings

    def _sink(self, name: str, table: object, known: Mapping[str, type[SinkSettings]]) -> object:
        here = ("sinks", name)
        if not isinstance(table, Mapping):
            return table
        kind = table.get("type")
        if kind is None and isinstance(word := table.get("kind"), str):
            self._report((*here, "kind"), f"for GO Feature Flag's kind write type{sink_type(word, known)}")
            kind = goff_words.SINK_TYPES.get(word, word)
            table = {key: value for key, value in table.items() if key != "kind"} | {"type": kind}
        if isinstance(kind, str) and kind in known:
            try:
                model = known[kind]
            except UnusableSink as error:
                self._report((*here, "type"), str(error))
            else:
                if (sink := self._model(model, table, here)) is not None:
                    return sink
        elif "type" in table:
            self._report((*here, "type"), f"{shown(kind)} is not a sink{sink_type(str(kind), known)}")
        else:
            message = f"is missing; write one of {', '.join(sorted(known))}"
            self.problems[*here, "type"] = line((*here, "type"), message, self._made_by(here, table))
        return self._shared(table, here)

    def _made_by(self, here: Path, table: Mapping[str, object]) -> Origins:
        """Return the variable that alone made a sink without a type; none if the file has the sink, too."""
        variables = {
            at[2]: name for at, name in self.origins.items() if at[:2] == here and not name.startswith("$")
        }
        return {(*here, "type"): min(variables.values())} if variables.keys() == table.keys() != set() else {}

    def _shared(self, table: Mapping[str, object], here: Path) -> SinkSettings:
        """Return the settings that all sinks share, of a sink that cannot be read as a whole."""
        values = {key: value for key, value in table.items() if key in SinkSettings.model_fields}
        sink = self._model(SinkSettings, {**values, "type": "unknown"}, here)
        assert sink is not None, "all but the type have defaults"
        return sink

    def _model(self, model: type[Model], values: Mapping[str, object], here: Path) -> Model | None:
        """Return the model without the values that fail, or None if it needs them."""
        try:
            return model(**values)
        except ValidationError as error:
            found = lines(error, model, self.origins, here)
        for at, problem in found.items():
            self.problems.setdefault(at, problem)
        mended = _without(values, [at[len(here) :] for at in found])
        try:
            return model(**mended)
        except ValidationError:
            return None

    def _report(self, at: Path, message: str) -> None:
        self.problems[at] = line(at, message, self.origins)


def _without(values: Mapping[str, object], paths: Sequence[Path]) -> dict[str, object]:
    kept = dict(values)
    for key in {path[0] for path in paths}:
        below = [path[1:] for path in paths if path[0] == key and len(path) > 1]
        inner = kept.get(key)
        # numbered: a list that variables were put into; without one of its values it is useless
        numbered = isinstance(inner, Mapping) and all(name.isdecimal() for name in inner)
        if (key,) not in paths and isinstance(inner, Mapping) and not numbered:
            kept[key] = _without(inner, below)
        else:
            kept.pop(key, None)
    return kept
