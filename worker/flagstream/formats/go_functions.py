"""The functions of Go's ``text/template`` that a line of text needs, on values of an event."""

import html
import json
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import quote_plus

import msgspec

from flagstream.formats.json_text import Value, member, plain

_VERB = re.compile(r"%([-+ 0]*\d*(?:\.\d+)?)(.)", re.S)
_JS = {
    **{code: f"\\u{code:04X}" for code in (*range(0x20), *map(ord, "<>&="))},
    **dict(zip(map(ord, "\\'\""), ("\\\\", "\\'", '\\"'), strict=True)),
}
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def formatter(text: str) -> tuple[Callable[..., Value], int]:
    """Return ``printf`` with this format: a function of the values, and how many values it takes.

    Raises ValueError for a verb that is not supported.
    """
    verbs = _VERB.findall(text)
    for flags, verb in verbs:
        if verb not in "svqdtfeg%" or (verb == "%" and flags):
            raise ValueError(f"%{flags}{verb} is not supported; %s %v %q %d %t %f %e %g and %% are")
    if "%" in _VERB.sub("", text):
        raise ValueError("a % at the end of a format; %% stands for a percent sign")
    count = sum(verb != "%" for _, verb in verbs)
    return partial(_formatted, text), count


def _formatted(text: str, *values: Value) -> str:
    waiting = iter(values)
    return _VERB.sub(lambda verb: "%" if verb[2] == "%" else _shown(verb[1], verb[2], next(waiting)), text)


def _shown(flags: str, verb: str, value: Value) -> str:
    shown = plain(value)
    if verb == "q":
        shown = json.dumps(shown, ensure_ascii=False)
    elif verb in "dfeg":
        try:
            return f"%{flags}{verb}" % (int(shown) if verb == "d" else float(shown))
        except ValueError:
            pass  # not such a number: shown as it is, so that nothing is lost
    return f"%{flags.replace('0', '', 1) if flags.startswith('0') else flags}s" % shown


def _joined(*values: Value) -> str:
    return "".join(map(plain, values))


def _html(*values: Value) -> str:
    return html.escape(_joined(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _js(*values: Value) -> str:
    return _joined(*values).translate(_JS)


def _urlquery(*values: Value) -> str:
    return quote_plus(_joined(*values))


def _len(value: Value) -> Value:
    text = bytes(value) if isinstance(value, msgspec.Raw) else b""
    if text.startswith(b"["):
        return str(len(_items(text)))
    if text.startswith(b"{"):
        return str(len(msgspec.json.decode(text, type=dict[str, msgspec.Raw])))
    return str(len(plain(value).encode()))


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        shown = plain(key)
        if isinstance(value, msgspec.Raw) and bytes(value).startswith(b"["):
            items = _items(value)
            value = items[int(shown)] if shown.isdecimal() and int(shown) < len(items) else None
        else:
            value = member(value, shown)
    return value


FUNCTIONS: dict[str, tuple[Callable[..., Value], int]] = {
    "html": (_html, 1),
    "js": (_js, 1),
    "urlquery": (_urlquery, 1),
    "len": (_len, 1),
    "index": (_index, 2),
}
"""Each function and how many arguments it needs at least."""
