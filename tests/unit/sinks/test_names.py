"""Name templates."""

from itertools import pairwise

import pytest
from pydantic import BaseModel, ValidationError

from flagstream.chunk import Partition
from flagstream.sinks.objects.names import DEFAULT_NAME, NameTemplate, ObjectName
from flagstream.window import OffsetRange

PARTITION = Partition("evaluations", 3)
WINDOW = OffsetRange(PARTITION, 5, 1_000_000)


def template(text: str) -> NameTemplate:
    return NameTemplate(text, "jsonl", "jsonl.gz")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DEFAULT_NAME, "evaluations/3/0000000000000000005-0000000000001000000.jsonl.gz"),
        (
            "{{.Topic}}-{{.Partition}}-{{.Start}}{{.End}}",
            "evaluations-3-00000000000000000050000000000001000000",
        ),
        (
            "t={{ .Topic}}/p={{  .Partition  }}/{{.Topic}}+{{.Partition}}+{{.Start}}_{{.End}}{{.Extension}}",
            "t=evaluations/p=3/evaluations+3+0000000000000000005_0000000000001000000jsonl.gz",
        ),
    ],
)
def test_render_and_parse(text: str, name: str) -> None:
    """A name is made from the range, and the range is found in it."""
    assert name == template(text).render(WINDOW)
    assert template(text).parse(name, PARTITION) == WINDOW


def test_largest_offset() -> None:
    """The largest offset fits the width, so names sort as offsets do."""
    ends = [1, 9, 10, 10**6, 2**31, 2**63 - 1]
    ranges = [OffsetRange(PARTITION, start, end) for start, end in pairwise(ends)]
    names = [template(DEFAULT_NAME).render(range_) for range_ in ranges]
    assert names == sorted(names)
    assert ranges == [template(DEFAULT_NAME).parse(name, PARTITION) for name in names]


@pytest.mark.parametrize(
    "name",
    [
        "evaluations/3/0000000000000000005-0000000000001000000.jsonl.gz.tmp",
        "evaluations/3/0000000000000000005-0000000000001000000.xml",
        "evaluations/3/5-1000000.jsonl.gz",
        "evaluations/3/0000000000000000005-0000000000000000005.jsonl.gz",
        "evaluations/3/0000000000000000006-0000000000000000005.jsonl.gz",
        "evaluations/4/0000000000000000005-0000000000001000000.jsonl.gz",
        "evaluations/33/0000000000000000005-0000000000001000000.jsonl.gz",
        "xevaluations/3/0000000000000000005-0000000000001000000.jsonl.gz",
        "evaluations/3/000000000000000000\u0665-0000000000001000000.jsonl.gz",
    ],
)
def test_foreign_names(name: str) -> None:
    """Names of others, of another partition, or of an empty range are none of ours."""
    assert template(DEFAULT_NAME).parse(name, PARTITION) is None


def test_topic_is_no_pattern() -> None:
    """A dot in a topic's name stands for itself."""
    name = template(DEFAULT_NAME).render(OffsetRange(Partition("a-b", 0), 0, 1))
    assert template(DEFAULT_NAME).parse(name, Partition("a.b", 0)) is None


def test_other_extensions_are_read() -> None:
    """A name with an extension that is read but not written is understood."""
    name = template(DEFAULT_NAME).render(WINDOW).replace("jsonl.gz", "jsonl")
    assert template(DEFAULT_NAME).parse(name, PARTITION) == WINDOW


def test_repeated_field_must_agree() -> None:
    """A field that stands twice has one value."""
    twice = template("{{.Topic}}/{{.Partition}}/{{.Start}}/{{.Start}}-{{.End}}")
    name = twice.render(WINDOW)
    assert twice.parse(name, PARTITION) == WINDOW
    assert twice.parse(name.replace("5/", "6/"), PARTITION) is None


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        (DEFAULT_NAME, "evaluations/3/"),
        ("x/{{.Partition}}-{{.Topic}}-{{.Start}}-{{.End}}", "x/3-evaluations-"),
        ("{{.Start}}/{{.Topic}}-{{.Partition}}-{{.End}}", ""),
    ],
)
def test_prefix(text: str, prefix: str) -> None:
    """The longest beginning that all names of a partition share."""
    assert prefix == template(text).prefix(PARTITION)
    assert template(text).render(WINDOW).startswith(prefix)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"lacks \{\{ \.Topic \}\}, .*\{\{ \.End \}\}"),
        ("{{.Topic}}/{{.Partition}}/{{.Start}}", r"lacks \{\{ \.End \}\}; .* could share a name"),
        ("{{.Topic}}/{{.Start}}-{{.End}}", r"lacks \{\{ \.Partition \}\}"),
        (DEFAULT_NAME + "{{.Hostname}}", "after the host, and a repeated delivery would store it twice"),
        (DEFAULT_NAME + "{{ .Timestamp }}", "after the clock"),
        (DEFAULT_NAME + "{{.Offset}}", r"\{\{\.Offset\}\} is not known; write one of"),
        (DEFAULT_NAME + "{{.topic}}", "is not known"),
        (DEFAULT_NAME + '{{printf "%s" .Topic}}', "not a plain field"),
        (DEFAULT_NAME + "{{ .Topic", "without its counterpart"),
        (DEFAULT_NAME + "}}", "without its counterpart"),
        ("{{.Topic}}{{.Partition}}/{{.Start}}-{{.End}}", r"\.Topic \}\} and \{\{ \.Partition \}\} run into"),
        ("{{.Topic}}1{{.Partition}}/{{.Start}}-{{.End}}", "run into each other"),
        ("{{.Topic}}/{{.Partition}}{{.Start}}-{{.End}}", "run into each other"),
        ("{{.Start}}-{{.End}}{{.Topic}}/{{.Partition}}", "run into each other"),
        ("/" + DEFAULT_NAME, "is absolute"),
        ("../" + DEFAULT_NAME, "must stay below"),
        ("a/../" + DEFAULT_NAME, "must stay below"),
        ("./" + DEFAULT_NAME, "must stay below"),
        ("a//" + DEFAULT_NAME, "empty folder name"),
        (DEFAULT_NAME + "/", "empty folder name"),
        ("a\\" + DEFAULT_NAME, "backslash"),
        ("a\n" + DEFAULT_NAME, "control character"),
        ("a\0" + DEFAULT_NAME, "control character"),
        ('{{ .EventTime "%s" }}/' + DEFAULT_NAME, "the host's own time zone"),
        ('{{ .Time "%Y-%%%-s" }}/' + DEFAULT_NAME, "the host's own time zone"),
        ('{{ .EventTime "%-m" }}{{ .EventTime "%-d" }}/' + DEFAULT_NAME, "run into each other"),
    ],
)
def test_refused(text: str, problem: str) -> None:
    """A template under which two windows could share a name, or one have two, is refused with the reason."""
    with pytest.raises(ValueError, match=problem):
        template(text)


def test_as_a_setting() -> None:
    """A setting of this type reports the mistake at its own path."""

    class Settings(BaseModel):
        name: ObjectName

    assert Settings(name=DEFAULT_NAME).name == DEFAULT_NAME
    with pytest.raises(ValidationError) as caught:
        Settings(name="{{.Hostname}}")
    (error,) = caught.value.errors()
    assert error["loc"] == ("name",)
    assert error["msg"].startswith("{{.Hostname}} would name an object after the host")
