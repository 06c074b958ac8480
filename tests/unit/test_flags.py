from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flagstream.flag_sources.document import FORMATS
from flagstream.flags import Flag, FlagFileError, FlagFormat, FlagSet, parse_flags

GOFF = Path("tests/goff")
NOW = datetime(2025, 1, 1, tzinfo=UTC)

Table = Mapping[str, Mapping[str, object]]

BOOLEANS: Mapping[str, object] = {"True": True, "False": False, "Default": False}
LOWER: Mapping[str, object] = {"true": True, "false": False, "Default": False}
ALL_FLAGS: Table = {
    "test-flag0": BOOLEANS,
    "test-flag1": {"True": "true", "False": "false", "Default": "false"},
    "test-flag2": {"True": 1, "False": 2, "Default": 3},
    "test-flag3": {"True": ["yo", "ya"], "False": ["yo", "ya"], "Default": ["yo", "ya"]},
    "test-flag4": {"True": {"test": "yo"}, "False": {"test": "yo"}, "Default": {"test": "yo"}},
    "test-flag5": {"True": 1.1, "False": 1.2, "Default": 1.3},
    "test-flag6": {"True": 1.1, "False": 1.2, "Default": 1.3},
}
WITH_ERROR = {name: ALL_FLAGS[name] for name in list(ALL_FLAGS)[1:]}
TWO: Table = {"test-flag": BOOLEANS, "test-flag2": BOOLEANS}
TESTS: Table = {
    "array-flag": {
        "True": ["batmanTrue", "supermanTrue", "superherosTrue"],
        "False": ["batmanFalse", "supermanFalse", "superherosFalse"],
        "Default": ["batmanDefault", "supermanDefault", "superherosDefault"],
    },
    "disable-flag": {"True": "true", "False": "false", "Default": "default"},
    "flag-only-for-admin": BOOLEANS,
    "new-admin-access": BOOLEANS,
    "number-flag": {"True": 2, "False": 3, "Default": 1},
    "targeting-key-rule": {"true_var": True, "false_var": False},
    **{
        f"test-flag-rule-{name}": {
            "True": {"test2": "test"},
            "False": {"test3": "test"},
            "Default": {"test": "test"},
        }
        for name in ("apply", "apply-false", "not-apply")
    },
}
CONFIGURATION: Table = {
    "array-flag": {
        "variation_A": ["batmanDefault", "supermanDefault", "superherosDefault"],
        "variation_B": ["batmanFalse", "supermanFalse", "superherosFalse"],
        "variation_C": ["batmanTrue", "supermanTrue", "superherosTrue"],
    },
    "disable-flag": {"variation_A": "value A", "variation_B": "value B", "variation_C": "value C"},
    "flag-only-for-admin": {"enabled": True, "disabled": False},
    "new-admin-access": {"enabled": True, "disabled": False},
    "number-flag": {"variation_A": 1, "variation_B": 3, "variation_C": 2},
    "targeting-key-rule": {"enabled": True, "disabled": False},
    **{
        f"test-flag-rule-{name}": {
            "variation_A": {"test": "test"},
            "variation_B": {"test3": "test"},
            "variation_C": {"test2": "test"},
        }
        for name in ("apply", "apply-false", "not-apply")
    },
}

# File; variations of its flags; flags that are dropped; untracked ones; disabled ones.
FILES: list[tuple[str, Table, set[str], set[str], set[str]]] = [
    ("v0.28.2/testdata/flag-config.yaml", TWO, set(), set(), set()),
    ("v0.28.2/testdata/flag-config.json", TWO, set(), set(), set()),
    ("v0.28.2/testdata/flag-config.toml", TWO, set(), set(), set()),
    ("v0.28.2/testdata/flag-config-updated.yaml", TWO, set(), set(), set()),
    ("v0.28.2/testdata/test-instance2.yaml", TWO, set(), set(), set()),
    ("v1.55.2/cmd/relayproxy/testdata/goff/config_flags.yaml", TESTS, set(), set(), {"disable-flag"}),
    (
        "v1.55.2/cmd/relayproxy/testdata/goff/config_flags_v2.yaml",
        {"flag-only-for-admin": BOOLEANS, "new-admin-access": BOOLEANS},
        set(),
        set(),
        set(),
    ),
    (
        "v1.55.2/cmd/relayproxy/testdata/goff/configuration_flags.yaml",
        CONFIGURATION,
        set(),
        set(),
        {"disable-flag"},
    ),
    (
        "v1.55.2/testdata/flag-config-3rd-file.yaml",
        dict(list(ALL_FLAGS.items())[:5]) | {f"test-flag{n}": BOOLEANS for n in (5, 6)},
        set(),
        set(),
        set(),
    ),
    (
        "v1.55.2/testdata/flag-config-custom-bucketingkey.yaml",
        {"my-flag": {"variation_A": "value_A", "variation_B": "value_B", "variation_C": "value_C"}},
        set(),
        set(),
        set(),
    ),
    # `True:` is without a value.
    ("v1.55.2/testdata/invalid-flag-config.yaml", {}, {"test-flag"}, set(), set()),
]
for _version in ("v0.28.2", "v1.23.1", "v1.55.2"):
    _folder = f"{_version}/testdata/ffclient/all_flags/config_flag"
    _untracked = {"test-flag5", "test-flag6"}
    FILES += [
        (f"{_folder}/flag-config-all-flags.yaml", ALL_FLAGS, set(), _untracked, {"test-flag6"}),
        (
            f"{_folder}/flag-config-with-error.yaml",
            {name: WITH_ERROR[name] for name in WITH_ERROR if name != "test-flag6" or _version == "v1.55.2"},
            {"test-flag0"},
            _untracked if _version == "v1.55.2" else {"test-flag5"},
            {"test-flag6"} if _version == "v1.55.2" else set(),
        ),
    ]
for _version in ("v1.23.1", "v1.55.2"):
    _folder = f"{_version}/testdata"
    FILES += [
        (f"{_folder}/flag-config.yaml", TWO, set(), set(), set()),
        (f"{_folder}/flag-config.json", {"test-flag": LOWER, "test-flag2": LOWER}, set(), set(), set()),
        (f"{_folder}/flag-config.toml", {"test-flag": LOWER, "test-flag2": LOWER}, set(), set(), set()),
        (
            f"{_folder}/flag-config-2nd-file.yaml",
            {"foo-flag": BOOLEANS, "bar-flag": BOOLEANS},
            set(),
            set(),
            set(),
        ),
        (
            f"{_folder}/flag-config-multiline-query.json",
            {"test-flag": {"true": True, "false": False}},
            set(),
            set(),
            set(),
        ),
        (f"{_folder}/flag-config-scheduled-v0.yaml", TWO, set(), set(), set()),
        (f"{_folder}/flag-config-updated.yaml", TWO, set(), set(), set()),
        (f"{_folder}/test-instance2.yaml", TWO, set(), set(), set()),
        (
            f"{_folder}/multiple_files/config-1.yaml",
            {"my-flag": BOOLEANS, "my-2nd-flag": BOOLEANS},
            set(),
            set(),
            set(),
        ),
        (
            f"{_folder}/multiple_files/config-2.yaml",
            {"my-flag": BOOLEANS, "my-3rd-flag": BOOLEANS},
            set(),
            set(),
            set(),
        ),
        (
            f"{_folder}/multiple_files/flag-config.yaml",
            {"initial-flag": BOOLEANS, "test-flag2": BOOLEANS},
            set(),
            set(),
            set(),
        ),
    ]
UNREADABLE = {"v1.55.2/testdata/invalid-flag-config.json"}


def parse(text: str, format: FlagFormat = "yaml", now: datetime = NOW) -> FlagSet:
    return parse_flags(text, format, now)


@pytest.mark.parametrize(
    ("file", "variations", "invalid", "untracked", "disabled"), FILES, ids=[file for file, *_ in FILES]
)
def test_upstream_files_are_read(
    file: str, variations: Table, invalid: set[str], untracked: set[str], disabled: set[str]
) -> None:
    """GO Feature Flag's own test files give their flags, in both formats, as YAML, JSON and TOML."""
    path = GOFF / file
    flags = parse_flags(path.read_bytes(), FORMATS[path.suffix], NOW)

    assert variations == {name: flag.variations for name, flag in flags.items()}
    assert invalid == set(flags.invalid)
    assert untracked == {name for name, flag in flags.items() if not flag.track}
    assert disabled == {name for name, flag in flags.items() if flag.disabled}


def test_every_upstream_file_is_in_the_table() -> None:
    """A file that is copied here is tested here."""
    folders = [*GOFF.glob("v*/testdata"), *GOFF.glob("v*/cmd/relayproxy/testdata/goff")]
    present = {
        str(path.relative_to(GOFF))
        for folder in folders
        for path in folder.rglob("*.*")
        if path.suffix in FORMATS and not {"collect_eval_data", "configuration", "internal"} & set(path.parts)
    }

    assert present == {file for file, *_ in FILES} | UNREADABLE


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("json", (GOFF / "v1.55.2/testdata/invalid-flag-config.json").read_text()),
        ("json", '{"a": NaN}'),
        ("json", "[" * 100_000),
        ("json", '["a"]'),
        ("toml", "a ="),
        ("toml", "a = " + "[" * 5_000),
        ("yaml", "a: ["),
        ("yaml", "- a"),
        ("yaml", "[" * 50_000),
        ("yaml", "a: {}\na: {}"),
        ("yaml", "a: &a\n  b: *a"),
        ("yaml", "a: !!bool maybe"),
        ("yaml", "a: !!python/object:os.system x"),
        ("yaml", "{}\n---\n{}"),
        ("yaml", "# only a comment"),
        ("yaml", ""),
    ],
)
def test_a_broken_file_is_one_error(format: FlagFormat, text: str) -> None:
    """A file that does not parse, or holds nothing, is a FlagFileError: the caller keeps the old flags."""
    with pytest.raises(FlagFileError):
        parse(text, format)


def test_bytes_that_are_not_utf8_are_a_broken_file() -> None:
    """A file in another encoding is a FlagFileError."""
    with pytest.raises(FlagFileError, match="utf-8"):
        parse_flags(b"a: {variations: {a: \xff}}", "yaml", NOW)


def test_what_is_wrong_in_a_yaml_file_is_told_with_its_line() -> None:
    """The message is one line, without PyYAML's name for a text that came from no file."""
    with pytest.raises(FlagFileError) as raised:
        parse("a: {variations: {x: 1}\nb: [")

    assert "at line 2, column 1" in str(raised.value)
    assert "<" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_map_is_no_flags() -> None:
    """Whoever means "no flags" writes {}."""
    assert not parse("{}")


def test_yaml_keys_are_text_as_written() -> None:
    """Variations named true, on, 1 or ~ keep their names, where YAML 1.1 would make other values of them."""
    flags = parse("f: {variations: {true: a, False: b, on: c, 1: d, 1.10: e, ~: f, 'yes': g}}")

    assert list(flags["f"].variations) == ["true", "False", "on", "1", "1.10", "~", "yes"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("on", "on"),
        ("'true'", "true"),
        ("1", 1),
        ("-7", -7),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("089", 89.0),
        ("2.50", 2.5),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("2021-01-01", "2021-01-01"),
        ('""', ""),
        ("[1, {on: yes}]", [1, {"on": "yes"}]),
    ],
)
def test_yaml_values_have_the_types_go_gives_them(text: str, value: object) -> None:
    """Scalars are read as Go's yaml package reads them, not by YAML 1.1."""
    read = parse(f"f: {{variations: {{a: {text}}}}}")["f"].variations["a"]

    assert (value, isinstance(value, bool)) == (read, isinstance(read, bool))


@pytest.mark.parametrize(
    ("format", "text", "version"),
    [
        ("yaml", "version: 1.10", "1.10"),
        ("yaml", "version: 007", "007"),
        ("yaml", "version: 2021-01-01", "2021-01-01"),
        ("yaml", "version: '1.0'", "1.0"),
        ("yaml", "version: true", "true"),
        ("yaml", "version:", ""),
        ("yaml", "disable: false", ""),
        ("json", '"version": 1.10', "1.10"),
        ("json", '"version": 2', "2"),
        ("toml", "version = 1.10", "1.10"),
    ],
)
def test_a_version_is_text_as_written(format: FlagFormat, text: str, version: str) -> None:
    """A version that looks like a number is not rounded."""
    around = {
        "yaml": "f:\n  variations: {a: 1}\n  %s",
        "json": '{"f": {"variations": {"a": 1}, %s}}',
        "toml": "[f]\nvariations = {a = 1}\n%s",
    }
    assert version == parse(around[format] % text, format)["f"].version


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("f: 5", "the flag is not a map"),
        ("f:", "the flag is not a map"),
        ("f: {trackEvents: true}", "has no variations"),
        ("f: {variations: {}}", "has no variations"),
        ("f: {variations: [a]}", "variations is not a map"),
        ("f: {variations: {a: }}", "variation 'a' has no value"),
        ("f: {variations: {a: 1}, trackEvents: 'never'}", "trackEvents is neither true nor false"),
        ("f: {variations: {a: 1}, disable: 1}", "disable is neither true nor false"),
        ("f: {variations: {a: 1}, version: [1]}", "version is neither text nor a number"),
        ("f: {variations: {a: 1}, scheduledRollout: {date: 1}}", "its scheduled steps are not a list"),
        ("f: {variations: {a: 1}, rollout: {scheduled: 5}}", "rollout.scheduled is not a map"),
    ],
)
def test_an_invalid_flag_is_dropped_alone(text: str, problem: str) -> None:
    """One flag that is wrong is dropped with its reason; the others of the file stand."""
    flags = parse(text + "\ngood: {variations: {a: 1}}")

    assert list(flags) == ["good"]
    assert problem in flags.invalid["f"]


@pytest.mark.parametrize(
    "text",
    [
        "f: {trackEvents: false}",
        "f: {trackEvents: false, variations: {}}",
        "f: {trackEvents: false, variations: {a: }}",
        "f: {trackEvents: false, variations: [a]}",
        "f: {trackEvents: false, variations: {a: 1}, disable: 1}",
        "f: {trackEvents: false, variations: {a: 1}, version: [1]}",
        "f: {trackEvents: false, variations: {a: 1}, scheduledRollout: {date: 1}}",
        "f: {trackEvents: 'false', variation: {a: 1}}",
        "f: {trackEvents: 'False ', variations: {a: 1}, disable: maybe}",
        "f: {trackEvents: 0, variations: {a: 1}}",
        "f: {trackEvents: '0', variations: {a: 1}}",
        "f: {trackEvents: '\"false\",', variations: {a: 1}}",
        "f: {trackEvents: fal, variations: {a: 1}}",
        "f: {trackEvents: '\ufefffalse\u200b', variations: {a: 1}}",
        "f: {trackEvents: \uff46\uff41\uff4c\uff53\uff45, variations: {a: 1}}",
        "f: {variations: [1], scheduledRollout: [{date: 2024-01-01, trackEvents: false}]}",
        "f: {variations: {a: 1}, scheduledRollout: [{date: 2024-01-01, trackEvents: no, version: {}}]}",
        "f: {variations: {a: 1}, trackEvents: no, scheduledRollout: [{date: 2024-01-01, trackEvents: x}]}",
    ],
)
def test_an_invalid_flag_that_readably_says_so_stays_untracked(text: str) -> None:
    """Whatever else is wrong with a flag, events that a person meant to keep are not exported; the reason is
    named all the same."""
    flags = parse(text + "\ngood: {variations: {a: 1}}")

    assert not flags["f"].track
    assert flags["good"].track
    assert list(flags.invalid) == ["f"]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("yaml", "f: {variations: {a: 1}, trackEvents: 'false'}"),
        ("yaml", "f: {variations: {a: 1}, trackEvents: ' FALSE '}"),
        ("yaml", "f: {variations: {a: 1}, trackEvents: false\u00a0}"),
        ("yaml", "f: {variations: {a: 1}, trackEvents: '\u3000no\u2003'}"),
        ("json", '{"f": {"variations": {"a": 1}, "trackEvents": "\\u00a0false"}}'),
        ("toml", '[f]\ntrackEvents = "off\u2009"\nvariations = {a = 1}'),
        ("yaml", "f: {variations: {a: 1}, trackevents: false}"),
        ("yaml", "f: {variations: {a: 1}, 'trackEvents ': false}"),
        ("yaml", "f: {variations: {a: 1}, track events: false}"),
        ("yaml", "f: {variations: {a: 1}, track_events: false}"),
        ("json", '{"f": {"variations": {"a": 1}, "TrackEvents": false}}'),
        ("toml", "[f]\ntrackevents = false\nvariations = {a = 1}"),
    ],
)
def test_false_in_quotes_or_under_another_spelling_is_false(format: FlagFormat, text: str) -> None:
    """Templates quote what they fill in, and Go takes JSON's and TOML's names in any case."""
    flags = parse(text, format)

    assert not flags["f"].track
    assert flags["f"].variations == {"a": 1}
    assert not flags.invalid


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{date: soon, version: 2}", "no readable date, but 'soon'"),
        ("{version: 2}", "it has no date"),
        ("{date: 2024-13-01, version: 2}", "no readable date, but '2024-13-01'"),
        ("{date: 2024-01-01, version: 2, disable: x}", "disable is neither true nor false"),
        ("later", "the step is not a map"),
    ],
)
def test_a_step_that_cannot_be_read_is_passed_over_alone(step: str, problem: str) -> None:
    """The flag stands, and so do its other steps; an untracked flag stays untracked. The fault is named."""
    steps = f"[{step}, {{date: 2024-01-01, disable: true}}]"
    flags = parse(
        f"f: {{variations: {{a: 1}}, version: 1, trackEvents: false, scheduledRollout: {steps}}}",
    )

    assert flags["f"] == Flag(False, True, "1", {"a": 1})
    assert problem in flags.invalid["f"]
    assert "scheduled step 1" in flags.invalid["f"]


@pytest.mark.parametrize(
    ("format", "date", "moment"),
    [
        ("yaml", "2026-1-5", "2026-01-05T00:00:00+00:00"),
        ("yaml", "2026-01-05", "2026-01-05T00:00:00+00:00"),
        ("yaml", "2026-1-5T1:2:3Z", "2026-01-05T01:02:03+00:00"),
        ("yaml", "2026-1-5t1:2:3.5+02:00", "2026-01-05T01:02:03.500000+02:00"),
        ("yaml", "2026-01-05 10:20:30.123456789", "2026-01-05T10:20:30.123456+00:00"),
        ("yaml", "'2026-01-05T10:20:30Z'", "2026-01-05T10:20:30+00:00"),
        ("json", '"2026-01-05T10:20:30.1-05:00"', "2026-01-05T10:20:30.100000-05:00"),
        ("toml", "2026-01-05", "2026-01-05T00:00:00+00:00"),
        ("toml", "2026-01-05T10:20:30", "2026-01-05T10:20:30+00:00"),
        ("toml", "2026-01-05T10:20:30Z", "2026-01-05T10:20:30+00:00"),
    ],
)
def test_dates_are_read_in_the_forms_that_go_reads(format: FlagFormat, date: str, moment: str) -> None:
    """The YAML package of Go takes one digit and no zone, TOML has types of its own."""
    around = {
        "yaml": "f: {variations: {a: 1}, scheduledRollout: [{date: %s}]}",
        "json": '{"f": {"variations": {"a": 1}, "scheduledRollout": [{"date": %s}]}}',
        "toml": "[f]\nvariations = {a = 1}\nscheduledRollout = [{date = %s}]",
    }
    flags = parse(around[format] % date, format)

    assert flags.next_change == datetime.fromisoformat(moment)
    assert not flags.invalid


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("yaml", "upstream connect error or disconnect/reset before headers. reset reason: timeout"),
        ("yaml", "error: not found\nstatus: 502"),
        ("json", '{"message": "Service Unavailable"}'),
        ("json", '{"error": {"code": 502, "message": "bad gateway"}}'),
        ("json", '{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404}'),
        ("toml", 'error = "not found"'),
        ("yaml", "f: 5"),
    ],
)
def test_a_document_in_which_no_entry_is_a_flag_is_no_flag_file(format: FlagFormat, text: str) -> None:
    """Proxies answer 200 with the text of an error: it is not "no flags", and the older flags stay."""
    with pytest.raises(FlagFileError, match="is a flag"):
        parse(text, format)


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("yaml", "# flags to come\n"),
        ("yaml", "---\n"),
        ("yaml", "---\n# nothing yet\n"),
        ("yaml", "null"),
        ("json", "null"),
        ("toml", "# flags to come\n"),
        ("toml", "\n"),
    ],
)
def test_a_file_of_comments_is_unfinished(format: FlagFormat, text: str) -> None:
    """It is what a reader sees of a file that is being written, in each format; {} means no flags."""
    with pytest.raises(FlagFileError, match=r"write \{\}"):
        parse(text, format)


@pytest.mark.parametrize("end", ["---\n", "---\n# the end\n", "...\n", "...\n---\n---\n", "--- ~\n"])
def test_an_empty_yaml_document_at_the_end_is_read_over(end: str) -> None:
    """Templates end each file with `---`."""
    assert list(parse("f: {variations: {a: 1}}\n" + end)) == ["f"]


@pytest.mark.parametrize("text", ["{a}---\n{b}", "{a}---\n---\n{b}", "---\n---\n{a}", "{a}---\n{{}}"])
def test_a_second_yaml_document_with_content_is_refused_in_those_words(text: str) -> None:
    """GO Feature Flag reads only the first one: what is in the second would be exported as unknown."""
    flags = {"a": "a: {variations: {x: 1}}\n", "b": "b: {variations: {x: 1}}\n"}
    with pytest.raises(FlagFileError, match="a second YAML document with content"):
        parse(text.format(**flags))


@pytest.mark.parametrize("half", [r"\ud800", r"\uDFFF", r"\ud83d\ud83d"])
@pytest.mark.parametrize("text", ['{"a": {"variations": {"%s": 1}}}', '{"%s": {"variations": {"a": 1}}}'])
def test_half_of_a_surrogate_pair_is_a_broken_file(text: str, half: str) -> None:
    """Python reads it and no output can hold it; a whole pair is a character like any other."""
    with pytest.raises(FlagFileError, match="half of a surrogate pair"):
        parse(text % half, "json")
    assert parse(text % r"\ud83d\ude00", "json")


def bomb(levels: int, around: str) -> str:
    """A few hundred bytes in which each level names the one before it ten times."""
    lines = ["a0: &a0 {variations: {x: 1, y: 2}}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + around % ", ".join([f"*a{level - 1}"] * 10))
    return "\n".join(lines)


@pytest.mark.parametrize("around", ["{variations: {v: [%s]}}", "{variations: {<<: [%s]}}"])
def test_aliases_to_aliases_are_refused_by_what_they_stand_for(around: str) -> None:
    """They are refused before anything is built of them; a file that uses aliases as people do is read."""
    with pytest.raises(FlagFileError, match="its aliases stand for"):
        parse(bomb(12, around))
    assert len(parse(bomb(3, around))) == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_over(encoding: str) -> None:
    """Editors of Windows write one, its shell UTF-16."""
    assert list(parse_flags("f: {variations: {é: 1}}".encode(encoding), "yaml", NOW)["f"].variations) == ["é"]


def test_track_events_takes_the_boolean_words_of_yaml() -> None:
    """`trackEvents: no` is false, as it is to Go, which expects a boolean there."""
    assert parse("f: {variations: {a: 1}, trackEvents: no}")["f"] == Flag(False, False, "", {"a": 1})


SCHEDULE = """
new:
  variations: {a: 1}
  version: "1"
  scheduledRollout:
    - {date: 2025-01-01T10:00:00+02:00, variations: {b: 2}, version: 2.0}
    - {date: 2025-01-01T12:00:00.5Z, trackEvents: false}
old:
  true: 1
  false: 2
  rollout: {scheduled: {steps: [{date: "2025-01-01T09:00:00Z", true: 3, disable: true}]}}
"""


@pytest.mark.parametrize(
    ("hour", "new", "old", "next_hour"),
    [
        (7, Flag(True, False, "1", {"a": 1}), Flag(True, False, "", {"True": 1, "False": 2}), 8.0),
        (8, Flag(True, False, "2.0", {"a": 1, "b": 2}), Flag(True, False, "", {"True": 1, "False": 2}), 9.0),
        (
            9,
            Flag(True, False, "2.0", {"a": 1, "b": 2}),
            Flag(True, True, "", {"True": 3, "False": 2}),
            12 + 0.5 / 3600,
        ),
        (
            13,
            Flag(False, False, "2.0", {"a": 1, "b": 2}),
            Flag(True, True, "", {"True": 3, "False": 2}),
            None,
        ),
    ],
)
def test_scheduled_steps_apply_from_their_date_on(
    hour: int, new: Flag, old: Flag, next_hour: float | None
) -> None:
    """Steps of both formats change what they name from their date on; the set knows when the next is due."""
    flags = parse(SCHEDULE, now=NOW + timedelta(hours=hour))

    assert {"new": new, "old": old} == dict(flags)
    assert flags.next_change == (None if next_hour is None else NOW + timedelta(hours=next_hour))


@pytest.mark.parametrize("text", ["a." * 100_000 + "b = 1", "[" + '"a" . ' * 100_000 + "b]"])
def test_a_toml_key_of_thousands_of_parts_is_refused_at_once(text: str) -> None:
    """Reading it would take minutes, in which no other change of a flag is seen."""
    with pytest.raises(FlagFileError, match="nested too deeply"):
        parse(text, "toml")


def test_a_toml_key_of_several_parts_and_texts_with_many_dots_are_read() -> None:
    """What people write is far below the bound."""
    texts = {"a": "Dots. " * 500, "b": ".".join("1" * 500), "c": ",".join(["10.0.0.1"] * 500)}
    values = "".join(f'{name} = "{text}"\n' for name, text in texts.items())
    flags = parse(f"[f.variations]\n{values}[checkout.new.flow.variations]\na = 1\n", "toml")
    assert flags["f"].variations == texts
