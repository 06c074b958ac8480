"""The format writes lines as GO Feature Flag's log does."""

import json
from pathlib import Path

import pytest

from flagstream.formats.lines import DEFAULT_TEMPLATE, LineTemplate

VECTORS = [
    json.loads(line)
    for line in Path("tests/goff/generated/format_vectors.jsonl").read_text("utf-8").split("\n")
    if line
]

OURS = {
    "1e+06": "1000000",
    "1.234567e+06": "1234567",
    "9.007199254740992e+15": "9007199254740992",
    "1e+20": "100000000000000000000",
    "1e-05": "0.00001",
    "1e-06": "0.000001",
    "line1\nline2": r"line1\nline2",
    "tab\there": r"tab\there",
    "\u2028\u2029": r"\u2028\u2029",
    "[1 a true <nil>]": '[1,"a",true,null]',
    "[x y z]": '["x y","z"]',
    "map[]": "{}",
    "map[n:1e+06]": '{"n":1000000}',
}
"""What we write on purpose where GO Feature Flag writes the left: numbers as the event has them, JSON for
maps and lists, one line an event. docs/sinks/log.md has the same table.
"""

EVENT = (
    b'{"kind":"feature","contextKind":"anonymousUser","userKey":"ABCD","creationDate":1617970547,"key":"random-key",'
    b'"variation":"Default","value":"YO","default":false,"version":"1.4","source":"SERVER",'
    b'"metadata":{"app":"shop","n":1.50,"nested":{"a": 1}}}'
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: json.dumps(vector["value"]))
def test_as_go_feature_flag(vector: dict[str, str]) -> None:
    """The line is GO Feature Flag's, but for the values that we show differently on purpose."""
    theirs = vector["log_line"]
    head, tail = theirs.split('value="', 1)
    shown = tail.removesuffix('"')
    expected = f'{head}value="{OURS.get(shown, shown)}"\n'
    assert expected == LineTemplate(DEFAULT_TEMPLATE).render(vector["json_line"].encode()).decode()


def test_vectors_cover_the_differences() -> None:
    """Every deliberate difference is one that GO Feature Flag's own output shows."""
    shown = {vector["log_line"].split('value="', 1)[1].removesuffix('"') for vector in VECTORS}
    assert set(OURS) <= shown


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{ .Kind}}", "feature"),
        ("{{.ContextKind}}", "anonymousUser"),
        ("{{ .UserKey }}", "ABCD"),
        ("{{.CreationDate}}", "1617970547"),
        ("{{.FormattedDate}}", "2021-04-09T12:15:47Z"),
        ("{{.Key}}/{{.Variation}}/{{.Value}}", "random-key/Default/YO"),
        ("{{.Default}} {{.Version}} {{.Source}}", "false 1.4 SERVER"),
        ("{{.Metadata}}", '{"app":"shop","n":1.50,"nested":{"a":1}}'),
        ("{{.Metadata.app}}-{{.Metadata.n}}-{{.Metadata.nested}}", 'shop-1.50-{"a":1}'),
        ("[{{.Metadata.absent}}]", "[]"),
        ("no field at all", "no field at all"),
    ],
)
def test_fields(template: str, line: str) -> None:
    """Each of GO Feature Flag's fields is known, with its blanks or without."""
    assert f"{line}\n".encode() == LineTemplate(template).render(EVENT)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a {{- .Key -}} b", "arandom-keyb"),
        ("a {{-.Key}}", None),
        ("a{{/* a note */}}b {{- /* another */ -}} c", "abc"),
        ('{{ printf "%s is %v" .Key .Value }}', "random-key is YO"),
        (
            '{{ printf "%q %d %05d %.1f %t%%" .Key .CreationDate 42 .Metadata.n .Default }}',
            '"random-key" 1617970547 00042 1.5 false%',
        ),
        ('{{ printf "[%5s|%-5s]" .Value .Value }}', "[   YO|YO   ]"),
        ('{{ printf "%d" .Value }}', "YO"),
        ('{{ .Value | printf "%s-%s" "a}}b" }}', "a}}b-YO"),
        ("{{ html \"<a href='x'>\" }}", "&lt;a href=&#39;x&#39;&gt;"),
        ('{{ js "it\'s" }}', r"it\'s"),
        ("{{ urlquery `a b&c` }}", "a+b%26c"),
        ("{{ len .Value }} {{ len .Metadata }}", "2 3"),
        ('{{ index .Metadata "app" }}-{{ index .Metadata "nested" "a" }}', "shop-1"),
        ("{{ .Metadata.nested.a }}{{ .Metadata.app.x }}{{ .Value.x }}", "1"),
        ("{{ (printf `%s` .Key) | html }}", "random-key"),
    ],
)
def test_functions(template: str, line: str | None) -> None:
    """What Go's templates do with trimming, comments, pipes and functions."""
    if line is None:
        with pytest.raises(ValueError, match="is not understood"):
            LineTemplate(template)
        return
    assert f"{line}\n".encode() == LineTemplate(template).render(EVENT)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (b'{"value":null}', '[] user="", flag="", value="null"'),
        (b'{"value":-0}', '[] user="", flag="", value="-0"'),
        (b'{"value":9007199254740993}', '[] user="", flag="", value="9007199254740993"'),
        (b'{"value":"a","value":"b"}', '[] user="", flag="", value="b"'),
        (b'{"value":"\\u001b[2J\\r\\u0085\\u007f"}', r'[] user="", flag="", value="\u001b[2J\r\u0085\u007f"'),
        (b'{"value":"say \\"hi\\""}', '[] user="", flag="", value="say "hi""'),
        (b'{"value":[ 1,\n 2 ]}', '[] user="", flag="", value="[1,2]"'),
        (b'{"creationDate":0,"userKey":5}', '[1970-01-01T00:00:00Z] user="5", flag="", value=""'),
        (b'{"metadata":null}', '[] user="", flag="", value=""'),
    ],
)
def test_unusual_events(event: bytes, line: str) -> None:
    """Whatever an event holds, it is one line, and what it lacks is empty."""
    assert f"{line}\n".encode() == LineTemplate(DEFAULT_TEMPLATE).render(event)


def test_tracking_event() -> None:
    """A tracking event, which has no value, gives a line with the default template."""
    event = (
        b'{"kind":"tracking","contextKind":"user","userKey":"ABCD","creationDate":1617970547,"key":"clicked",'
        b'"evaluationContext":{"targetingKey":"ABCD"},"trackingEventDetails":{"event":"123"}}'
    )
    expected = b'[2021-04-09T12:15:47Z] user="ABCD", flag="clicked", value=""\n'
    assert expected == LineTemplate(DEFAULT_TEMPLATE).render(event)


@pytest.mark.parametrize("metadata", [b"null", b"5", b'"text"', b"{}"])
def test_metadata_that_has_no_members(metadata: bytes) -> None:
    """A member of metadata that is not a map is empty."""
    assert LineTemplate("<{{.Metadata.app}}>").render(b'{"metadata":' + metadata + b"}") == b"<>\n"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"[]",
        b'{"value":',
        b'{"userKey":"\xff"}',
        b'{"userKey":"\\ud800"}',
        b'{"creationDate":"2021"}',
        b'{"creationDate":1e99}',
        b'{"creationDate":99999999999999}',
        b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_no_event(value: bytes) -> None:
    """What cannot be shown raises ValueError, never anything else."""
    with pytest.raises(ValueError):
        LineTemplate(DEFAULT_TEMPLATE).render(value)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "empty"),
        ("{{ .Hostname }}", r"\{\{ \.Hostname \}\}: Hostname is not known; known are Id, .*, FormattedDate"),
        ("{{ Key }}", "Key is not a known function; known are printf, html, js, urlquery, len, index"),
        ("{{ if .Key }}x{{ end }}", "conditions, loops and definitions are not supported"),
        ("{{ $x := .Key }}", "is not understood"),
        ("{{ .Key.name }}", "Key has no members; only Value, Metadata"),
        ("{{ .Key .Value }}", r"\.Value is one too many"),
        ("{{ .Key | .Value }}", r"a function has to follow \|"),
        ("{{ }}", "a field or function is missing"),
        ("{{ (.Key }}", r"a \) is missing"),
        ("{{ printf .Key }}", "printf needs its format as text"),
        ('{{ printf "%x" .Key }}', "%x is not supported"),
        ('{{ printf "%s" }}', "takes 1 values, and 0 are given"),
        ('{{ printf "%" }}', "a % at the end"),
        ("{{ index .Metadata }}", "index needs 2 arguments"),
        ("{{ .Key", "without its counterpart"),
        (".Key }}", "without its counterpart"),
        ("{{ .Key }}\n", "each event is one line"),
    ],
)
def test_bad_template(template: str, problem: str) -> None:
    """A template that cannot be translated is refused with the reason, not silently replaced."""
    with pytest.raises(ValueError, match=problem):
        LineTemplate(template)
