"""``${NAME}`` in the texts of the file: the value of an environment variable, put in once after parsing.

``$${`` stands for ``${``. Keys, values of the environment, what is put in and the actions of templates
(``{{ }}``) are never looked at. The values are masked like secrets in everything that the command prints.
"""

import re
from collections.abc import Mapping, MutableMapping, MutableSequence
from dataclasses import dataclass, field

from flagstream.text import is_unicode

Path = tuple[str, ...]

_REFERENCE = re.compile(
    r"(?P<action>\{\{.*?\}\})|\$\$\{(?!\{)|\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?P<end>\}?)", re.DOTALL
)
_OTHER = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass
class References:
    """What was found: ``origins`` are the texts that hold values of variables, ``hidden`` the values."""

    origins: dict[Path, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    escaped: set[Path] = field(default_factory=set)
    problems: dict[Path, str] = field(default_factory=dict)
    warnings: dict[Path, str] = field(default_factory=dict)


def put_in(raw: MutableMapping[str, object], environ: Mapping[str, str]) -> References:
    """Replace the references in ``raw`` by the variables of ``environ``.

    A text with a reference that cannot be replaced stays as it is, and is a problem.
    """
    found = References()
    _walk(raw, (), environ, found)
    return found


def _walk(table: object, here: Path, environ: Mapping[str, str], found: References) -> None:
    if isinstance(table, MutableMapping):
        for key, value in table.items():
            if isinstance(value, str):
                table[key] = _text(value, (*here, key), environ, found)
            else:
                _walk(value, (*here, key), environ, found)
    elif isinstance(table, MutableSequence):
        for number, value in enumerate(table):
            if isinstance(value, str):
                table[number] = _text(value, (*here, str(number)), environ, found)
            else:
                _walk(value, (*here, str(number)), environ, found)


def _text(text: str, here: Path, environ: Mapping[str, str], found: References) -> str:
    if "${" not in text:
        return text
    names: list[str] = []
    faults: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if match["action"]:
            return match[0]
        if name is None:
            found.escaped.add(here)
            return "${"
        if not match["end"]:
            faults.append(
                f"${{{name} is not closed by }} right after the name, and there are no default values; write "
                f"${{{name}}}, or $${{ for the text itself"
            )
        elif name not in environ:
            faults.append(
                f"the variable {name} is not set; set it, or write $${{{name}}} for the text "
                f"${{{name}}} itself"
            )
        elif not is_unicode(environ[name]):
            faults.append(f"the variable {name} is not UTF-8 text")
        else:
            names.append(name)
            return environ[name]
        return match[0]

    result = _REFERENCE.sub(replaced, text)
    if other := _OTHER.search(_REFERENCE.sub("", text)):
        found.warnings[here] = (
            f"holds ${{{other['name']}}}, which is not replaced: names of variables are capitals here"
        )
    if faults:
        found.problems[here] = faults[0]
        return text
    if names:
        found.origins[here] = ", ".join(f"${{{name}}}" for name in dict.fromkeys(names))
        found.hidden |= {result, *(environ[name] for name in names)}
    return result
