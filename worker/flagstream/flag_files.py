"""Flag files as values: YAML, JSON and TOML, read as GO Feature Flag reads them. What a flag means is in
:mod:`flagstream.flags`.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Literal

import yaml

from flagstream.errors import FlagstreamError
from flagstream.text import decoded

FlagFormat = Literal["yaml", "json", "toml"]


class FlagFileError(FlagstreamError):
    """A flag file does not parse. Nothing of it is used; a worker with older flags keeps them."""


def parse_document(text: bytes | str, format: FlagFormat) -> Mapping[str, Any]:
    """Return the flags in a file, by name, with their descriptions. Keys are text as written, and so is a
    number's `text`.

    A file without content, or with comments only, is refused: a file that is just being written looks like
    that, and if it counted as "no flags", events would be exported that must not be. `{}` is an empty set of
    flags. Raises `FlagFileError`.
    """
    try:
        if isinstance(text, bytes):
            text = decoded(text)
        if not text.strip():
            raise FlagFileError(f"the file is empty; {_MEANT}")
        document = _PARSERS[format](text)
        _check_texts(document)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        # PyYAML says where, in its own words for a text without a file; the caller names the file.
        reason = _PLACE.sub(" at ", str(error)).replace("\n", "; ")
        raise FlagFileError(f"not readable as {format}: {reason}") from error
    if document is None or (format == "toml" and not document):
        raise FlagFileError(f"the file holds nothing but comments; {_MEANT}")
    if not isinstance(document, dict):
        raise FlagFileError("not a map of flag names to flags")
    return document


_MEANT: Final = "write {} (in YAML or JSON) where no flags are meant"


class _Int(int):
    text: str


class _Float(float):
    text: str


def _float(text: str) -> _Float:
    number = _Float(text)
    number.text = text
    return number


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _json(text: str) -> object:
    return json.loads(text, parse_float=_float, parse_constant=_refuse_constant)


_DOTTED: Final = re.compile(r"(?<![^\s.,=\[\]{}])(?:[^\s.,=\[\]{}]++[ \t]*+\.[ \t]*+){1000}")
"""A key of a thousand parts. tomllib's time grows with their square: 100,000 parts take minutes."""


def _toml(text: str) -> object:
    if _DOTTED.search(text):
        raise ValueError("nested too deeply")
    return tomllib.loads(text, parse_float=_float)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Go's yaml package reads it, where PyYAML differs: keys are text as written (`true:`, `on:`),
    only true and false are booleans (`on` and `yes` are text), dates are text, 1e3 is a number, 1:30 is text.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way to set it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is not text", node.start_mark)
        if len(set(keys)) < len(keys):
            double = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {double!r} is there twice", node.start_mark
            )
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_int(self, node: yaml.ScalarNode) -> _Int:
        number = _Int(self.construct_yaml_int(node))
        number.text = node.value
        return number

    def construct_float(self, node: yaml.ScalarNode) -> _Float:
        number = _Float(self.construct_yaml_float(node))
        number.text = node.value
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0[0-7_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


# libyaml's composer recurses in C without a check: 50,000 open brackets end the process. Its parser does not
# recurse.
_MAX_YAML_DEPTH: Final = 100

_MAX_ALIASED: Final = 400_000
"""Most nodes of a file with aliases after they are replaced: ten levels of ten aliases each are 1,000 bytes
and ten thousand million nodes. Go's yaml package also begins to count at 400,000.
"""


def _yaml(text: str) -> object:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_YAML_DEPTH:
            raise ValueError("nested too deeply")
    loader = _Loader(text)
    try:
        node = _only_document(loader)
        if node is None:
            return None
        _check_aliases(node)
        # Built in one go, so that an alias to something around itself is an error and not an endless value.
        return loader.construct_object(node, deep=True)
    except (KeyError, AttributeError, TypeError) as error:  # PyYAML's answer to `!!bool x` and its like
        raise ValueError(f"a value does not fit its tag: {error}") from error
    finally:
        loader.dispose()


def _only_document(loader: Any) -> yaml.Node | None:
    """Return the first document. Empty ones may follow it: templates end files with `---`."""
    first = loader.get_node() if loader.check_node() else None
    while loader.check_node():
        if loader.get_node().tag != _NULL:
            raise ValueError("it holds a second YAML document with content; flags are read from one document")
    return first


_NULL: Final = "tag:yaml.org,2002:null"


def _check_aliases(node: yaml.Node) -> None:
    """Refuse a document that grows too large, or without end, once its aliases are replaced."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = sizes.get(id(node))
        if known is None:
            sizes[id(node)] = 0  # an alias to something around itself, which the constructor refuses
            parts = node.value if isinstance(node, yaml.SequenceNode) else chain.from_iterable(node.value)
            known = sizes[id(node)] = 1 + sum(map(size, parts))
        return known

    whole = size(node)
    written = 1 + sum(len(each) for each in _collections(node))
    if whole > max(written, _MAX_ALIASED):
        raise ValueError(f"its aliases stand for {whole} nodes, and {_MAX_ALIASED} is the most")


def _collections(node: yaml.Node) -> Iterator[Sequence[yaml.Node]]:
    """Yield the members of each list and map. Each is visited once, however many aliases it has."""
    met: set[int] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, yaml.ScalarNode) or id(one) in met:
            continue
        met.add(id(one))
        members = one.value if isinstance(one, yaml.SequenceNode) else [*chain.from_iterable(one.value)]
        waiting += members
        yield members


def _check_texts(document: object) -> None:
    """Refuse text that is not Unicode: JSON can name half of a surrogate pair, which no output can hold."""
    try:
        json.dumps(document, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) stands alone") from None


_PLACE: Final = re.compile(r'\s+in "<[a-z ]+>", ')

_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {"yaml": _yaml, "json": _json, "toml": _toml}
