"""What the configuration accepts, and what it says about everything else."""

import logging
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from flagstream.config import Settings, load
from flagstream.config.reference import reference
from flagstream.errors import ConfigError
from flagstream.sinks.registry import SINKS
from flagstream.sinks.settings import SinkSettings
from flagstream.units import MIB

ROOT = Path(__file__).parents[2]
HIDDEN = "hunter2"


class VaultSettings(SinkSettings):
    """Has a secret and a rule of its own, for these tests."""

    type: Literal["vault"] = Field(default="vault", description="For tests.")
    token: SecretStr = Field(description="A secret. For tests.")
    attempts: int = Field(default=3, ge=1, description="For tests.")
    fast: bool = Field(default=False, description="For tests.")

    def problems(self) -> Iterator[tuple[str, str]]:
        """Fast allows one attempt only."""
        if self.fast and self.attempts > 1:
            yield "attempts", "fast allows 1"


def read(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, **options: object) -> Settings:
    """The settings of ``text``; flags.path is given too, so that a test writes only its point."""
    path = tmp_path / "flagstream.toml" if text else None
    if path is not None:
        path.write_text(text, encoding="utf-8")
    known = {"known_sinks": {**SINKS, "vault": VaultSettings}} | options
    return load(path, {"FLAGSTREAM_FLAGS__PATH": "flags.yaml"} | dict(environ or {}), **known)  # type: ignore[arg-type]


def problems(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, **options: object
) -> list[str]:
    """The problems of ``text``, which has some."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, environ, **options)
    return caught.value.problems


def test_without_a_file_there_are_defaults_for_all_but_the_flags() -> None:
    """Only the path of the flags has no default that could be right."""
    settings = load(None, {"FLAGSTREAM_FLAGS__PATH": "flags.yaml"})
    assert settings.kafka.bootstrap_servers == "localhost:9092"
    assert settings.enrich.commit_interval == 0.2
    assert settings.export.memory_budget == 256 * MIB
    assert settings.sinks == {}


def test_the_example_loads() -> None:
    """The file that users begin with has no problems, and all sections."""
    path = ROOT / "flagstream.example.toml"
    settings = load(path, {})
    assert set(settings.sinks) == {"archive", "console"}
    assert set(tomllib.loads(path.read_text(encoding="utf-8"))) == set(Settings.model_fields)


def test_the_example_shows_every_setting_with_its_default() -> None:
    """A setting that is added is added to the example, and no default there is out of date."""
    example = tomllib.loads((ROOT / "flagstream.example.toml").read_text(encoding="utf-8"))
    not_defaults = {("enrich", "metadata"), ("flags", "path"), ("flags", "format"), ("flags", "cache_path")}
    settings, defaults = load(ROOT / "flagstream.example.toml", {}), Settings()
    for section, model in defaults:
        if section not in ("name", "sinks"):
            assert set(example[section]) == set(type(model).model_fields)
            for key, default in model:
                if (section, key) not in not_defaults:
                    assert getattr(getattr(settings, section), key) == default, f"{section}.{key}"
    archive = settings.sinks["archive"]
    assert set(example["sinks"]["archive"]) == set(type(archive).model_fields)
    assert archive == type(archive)(path=Path("archive"))  # type: ignore[call-arg]


def test_static_membership_needs_the_classic_protocol(tmp_path: Path) -> None:
    """Under KIP-848 leaving and joining again does not fence what a static member sent before."""
    text = '[kafka]\ngroup_protocol = "consumer"\nstatic_membership = true\ninstance = "pod-0"'
    [problem] = problems(tmp_path, text)
    assert problem.startswith('kafka.static_membership: does not go with kafka.group_protocol = "consumer"')


def test_ten_mistakes_give_ten_lines(tmp_path: Path) -> None:
    """Every mistake is reported at once, each with its path, what was found and what would be right."""
    text = """
        name = "my worker"
        [kafka]
        bootstrap_server = "broker:9092"
        static_membership = true
        [kafka.properties]
        "group.id" = "mine"
        [topics]
        output = "flag-evaluations"
        partitions = 0
        [enrich]
        start = "yesterday"
        [sinks.archive]
        type = "file"
        path = "archive"
        flush_interval = "60x"
        [sinks.other]
        type = "fil"
        [log]
        level = "inf"
    """
    assert problems(tmp_path, text) == [
        'name: "my worker" is not a name; use up to 100 letters, digits, ".", "_" and "-"',
        "kafka.bootstrap_server: unknown key; did you mean bootstrap_servers?",
        "kafka.static_membership: needs kafka.instance, a name that this process keeps and no other has",
        'kafka.properties."group.id": cannot be handed through: '
        "groups are <name>.enrich and <name>.sink.<sink>; set name",
        "topics.partitions: 0 is out of range; write at least 1",
        'topics.output: "flag-evaluations" is also topics.ingest; each needs a topic of its own',
        'enrich.start: "yesterday" is not a start; '
        'write "beginning", "latest" or a time such as "2026-01-31T00:00:00Z"',
        'sinks.archive.flush_interval: "60x" is not a duration; write 60s, 5m or 1h',
        'sinks.other.type: "fil" is not a sink; did you mean file?',
        'log.level: "inf" is not possible; '
        'write "debug" or "info" or "warning" or "error"; did you mean "info"?',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[topics]\ncreate = "maybe"', 'topics.create: "maybe" is neither true nor false'),
        ("[topics]\npartitions = true", "topics.partitions: true is not a number"),
        ('[topics]\npartitions = "x"', 'topics.partitions: "x" is not a whole number'),
        ("[topics]\ningest = 5", 'topics.ingest: 5 is not a text; write it in quotes: "..."'),
        (
            '[topics]\ningest = ".."',
            'topics.ingest: ".." is not a topic name; use up to 249 letters, digits, ".", "_" and "-"',
        ),
        ('[kafka]\nbootstrap_servers = ""', "kafka.bootstrap_servers: must not be empty"),
        (
            '_env_file = "x"',
            "_env_file: unknown key; known are "
            "enrich, export, flags, kafka, log, name, registry, shutdown, sinks, topics, web",
        ),
        ("kafka = 5", "kafka: is a table; write [kafka]"),
        ("sinks = 5", "sinks: is a table; write [sinks]"),
        ("[sinks]\narchive = 5", "sinks.archive: is a table; write [sinks.archive]"),
        ("[web]\nport = 70000", "web.port: 70000 is out of range; write at most 65535"),
        (
            "[enrich]\nmetadata = { a = [1] }",
            "enrich.metadata.a: [1] cannot be metadata; write a text, a number, true or false",
        ),
        (
            '[sinks.archive]\ntype = "file"',
            "sinks.archive.path: is missing: The folder for the files; created when missing",
        ),
        (
            "[sinks.archive]\npath = 'x'",
            "sinks.archive.type: is missing; write one of file, gcs, kafka, log, s3, vault, webhook",
        ),
        (
            '[sinks.Bad]\ntype = "log"',
            'sinks.Bad: "Bad" is not a sink name; use up to 63 lower-case letters, digits, "_" and "-"',
        ),
        (
            '[sinks.enrich]\ntype = "log"',
            'sinks.enrich: "enrich" is what metrics, pages and the log call the enrich stage; '
            "give the sink another name",
        ),
        (
            '[sinks.archive]\ntype = "log"\nstart = 2026-01-01T00:00:00',
            'sinks.archive.start: 2026-01-01T00:00:00 has no time zone; write "2026-01-01T00:00:00Z" for UTC',
        ),
        ('[flags]\nformat = "xml"', 'flags.format: "xml" is not possible; write "yaml" or "json" or "toml"'),
    ],
)
def test_a_single_mistake_is_a_single_line(tmp_path: Path, text: str, problem: str) -> None:
    """Each kind of mistake has its words."""
    assert [problem] == problems(tmp_path, text)


def test_a_file_name_that_lacks_the_range_is_refused(tmp_path: Path) -> None:
    """Without the start offset two windows would share a name."""
    text = '[sinks.archive]\ntype = "file"\npath = "x"\nname = "{{ .Topic }}/{{ .Partition }}/{{ .End }}"'
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("sinks.archive.name: ")
    assert "Start" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[topics]\noutput = "a"\ndead_letters = "a"',
            'topics.dead_letters: "a" is also topics.output; each needs a topic of its own',
        ),
        (
            '[enrich]\ncommit_interval = "6s"',
            "enrich.commit_interval: 6s leaves no time to commit before enrich.transaction_timeout (10s) "
            "ends the transaction; write at most half of it",
        ),
        (
            '[export]\nmemory_budget = "32MiB"\n[sinks.a]\ntype = "log"\nmax_bytes = "64MiB"',
            "sinks.a.max_bytes: 64MiB is more than the sink's share of export.memory_budget, 32MiB",
        ),
        ('[sinks.v]\ntype = "vault"\ntoken = "t"\nfast = true', "sinks.v.attempts: fast allows 1"),
        (
            f"""[topics]\noutput = "{"t" * 220}"\n[sinks.a]\ntype = "file"\npath = "x"
            name = "{{{{ .Topic }}}}-{{{{ .Partition }}}}-{{{{ .Start }}}}-{{{{ .End }}}}\"""",
            f'sinks.a.name: every name would be too long: "{"t" * 40}…" has 271 bytes, and 255 is the most '
            "between slashes",
        ),
        (
            f'[sinks.a]\ntype = "s3"\nbucket = "b"\nprefix = "{"é" * 500}"',
            'sinks.a.name: every name would be too long: "flag-evaluations-enriched/2147483647/000…" has '
            "1085 bytes with its place, and 1024 is the most",
        ),
        (
            f'[sinks.a]\ntype = "file"\npath = "{"/x" * 2020}"',
            'sinks.a.name: every name would be too long: "flag-evaluations-enriched/2147483647/000…" has '
            "4126 bytes with its place, and 4095 is the most",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """They are refused also where every single one is acceptable."""
    assert problems(tmp_path, text) == [problem]


def test_two_sinks_that_would_share_objects_are_refused(tmp_path: Path) -> None:
    """Both are named, along with all other problems; at run time each would stop the other."""
    found = problems(
        tmp_path,
        """
        [sinks.old]
        type = "s3"
        bucket = "b"
        [sinks.new]
        type = "s3"
        bucket = "b"
        format = "csv"
        [sinks.elsewhere]
        type = "s3"
        bucket = "b"
        prefix = "new/"
        [sinks.unread]
        type = "s3"
        bucket = "b"
        format = "txt"
        """,
    )

    assert [problem.partition(";")[0] for problem in found] == [
        'sinks.unread.format: "txt" is not possible',
        "sinks.new.name: can give a name that sinks.old can give too (in a layout also that of an index), in "
        "the same place: each would take the other's objects for its own",
    ]


def test_a_flag_file_of_unknown_format_is_refused(tmp_path: Path) -> None:
    """Its suffix decides the format, or the setting does."""
    assert problems(tmp_path, "", {"FLAGSTREAM_FLAGS__PATH": "flags"}) == [
        'flags.format: is missing, and the name "flags" does not show it; write "yaml", "json" or "toml"'
    ]


def test_contradictions_are_told_also_when_single_settings_fail(tmp_path: Path) -> None:
    """A mistake in the same section, or in the same sink, hides nothing."""
    text = """
        [kafka]
        static_membership = true
        session_timeout = "soon"
        [flags]
        format = "xml"
        [export]
        memory_budget = "32MiB"
        [sinks.archive]
        type = "file"
        start = "now"
        max_bytes = "48MiB"
    """
    path = tmp_path / "flagstream.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    found = [line.partition(":")[0] for line in caught.value.problems]
    assert found[:4] == ["kafka.session_timeout", "kafka.static_membership", "flags.format", "flags.path"]
    assert {"sinks.archive.path", "sinks.archive.start", "sinks.archive.max_bytes"} == set(found[4:])


def test_a_setting_that_cannot_be_read_is_not_judged_by_its_default(tmp_path: Path) -> None:
    """An instance that fails its own check is not also reported as missing."""
    assert problems(tmp_path, '[kafka]\nstatic_membership = true\ninstance = "a b"') == [
        'kafka.instance: "a b" is not an instance name; use up to 100 letters, digits, ".", "_" and "-"'
    ]


def test_broken_toml_is_one_line_with_the_position(tmp_path: Path) -> None:
    """The parser knows the line; nothing else can be said."""
    (problem,) = problems(tmp_path, 'name = "x"\n[kafka\n')
    assert "is not TOML" in problem
    assert "line 2" in problem
    assert "\n" not in problem


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """It names the file and why it cannot be read."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml", {})
    assert [f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"] == caught.value.problems


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    """TOML is UTF-8."""
    (tmp_path / "x.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="is not UTF-8 text at byte 8"):
        load(tmp_path / "x.toml", {})


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    """Sections, sinks (also with a dash in their names), librdkafka's properties and metadata."""
    text = '[kafka]\ninstance = "a"\n[sinks.my-files]\ntype = "file"\npath = "x"\nmax_events = 5'
    settings = read(
        tmp_path,
        text,
        {
            "FLAGSTREAM_KAFKA__INSTANCE": "b",
            "FLAGSTREAM_KAFKA__STATIC_MEMBERSHIP": "true",
            "FLAGSTREAM_ENRICH__COMMIT_INTERVAL": "500ms",
            "FLAGSTREAM_ENRICH__METADATA__TEAM": "blue",
            "FLAGSTREAM_SINKS__MY_FILES__PATH": "y",
            "FLAGSTREAM_SINKS__CONSOLE__TYPE": "log",
            "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD": "1e5",
            "FLAGSTREAM_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "sasl_ssl",
            "FLAGSTREAM_KAFKA__PROPERTIES__SASL_MECHANISMS": "PLAIN",
        },
    )
    assert settings.kafka.instance == "b"
    assert settings.kafka.static_membership
    assert settings.enrich.commit_interval == 0.5
    assert settings.enrich.metadata == {"team": "blue"}
    assert set(settings.sinks) == {"my-files", "console"}
    assert settings.sinks["my-files"] == SINKS["file"](path=Path("y"), max_events=5)  # type: ignore[call-arg]
    assert settings.kafka.properties["sasl.password"] == SecretStr("1e5")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("FLAGSTREAM_NAMES", "x", "FLAGSTREAM_NAMES: unknown variable; did you mean FLAGSTREAM_NAME?"),
        (
            "FLAGSTREAM_KAFKA__BOOTSTRAP_SERVER",
            "x",
            "FLAGSTREAM_KAFKA__BOOTSTRAP_SERVER: unknown variable; "
            "did you mean FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS?",
        ),
        ("FLAGSTREAM_PORT", "8080", "FLAGSTREAM_PORT: unknown variable; did you mean FLAGSTREAM_WEB__PORT?"),
        (
            "FLAGSTREAM_BOOTSTRAP_SERVERS",
            "b:9092",
            "FLAGSTREAM_BOOTSTRAP_SERVERS: unknown variable; did you mean "
            "FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS?",
        ),
        (
            "FLAGSTREAM_SINKS__C__TEMPLAT",
            "x",
            "FLAGSTREAM_SINKS__C__TEMPLAT: unknown variable; did you mean FLAGSTREAM_SINKS__C__TEMPLATE?",
        ),
        (
            "FLAGSTREAM_FOO",
            "x",
            "FLAGSTREAM_FOO: unknown variable; known are FLAGSTREAM_ENRICH__<KEY>, FLAGSTREAM_EXPORT__<KEY>, "
            "FLAGSTREAM_FLAGS__<KEY>, FLAGSTREAM_KAFKA__<KEY>, FLAGSTREAM_LOG__<KEY>, FLAGSTREAM_NAME, "
            "FLAGSTREAM_REGISTRY__<KEY>, FLAGSTREAM_SHUTDOWN__<KEY>, FLAGSTREAM_SINKS__<KEY>, "
            "FLAGSTREAM_TOPICS__<KEY>, FLAGSTREAM_WEB__<KEY>",
        ),
        (
            "FLAGSTREAM_SINKS__NOSUCH__PATH",
            "/x",
            "sinks.nosuch.type (from FLAGSTREAM_SINKS__NOSUCH__PATH): is missing; "
            "write one of file, gcs, kafka, log, s3, vault, webhook",
        ),
        (
            "FLAGSTREAM_KAFKA",
            "x",
            "FLAGSTREAM_KAFKA: names a table; set one of its keys: FLAGSTREAM_KAFKA__<KEY>",
        ),
        ("FLAGSTREAM_WEB__PORT", "x", 'web.port (from FLAGSTREAM_WEB__PORT): "x" is not a whole number'),
        (
            "FLAGSTREAM_KAFKA__PROPERTIES__GROUP_ID",
            "x",
            'kafka.properties."group.id" (from FLAGSTREAM_KAFKA__PROPERTIES__GROUP_ID): '
            "cannot be handed through: groups are <name>.enrich and <name>.sink.<sink>; set name",
        ),
    ],
)
def test_variables_go_through_the_same_checks(tmp_path: Path, name: str, value: str, problem: str) -> None:
    """The line names the variable, for that is what a person can change."""
    assert [problem] == problems(tmp_path, '[sinks.c]\ntype = "log"', {name: value})


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    """The file's path, crash points, what tests set, and everybody else's variables are not settings."""
    environ = {
        "FLAGSTREAM_CONFIG": "x",
        "FLAGSTREAM_CRASH": "x",
        "FLAGSTREAM_TEST_ANYTHING": "x",
        "PATH": "x",
    }
    assert read(tmp_path, "", environ) == read(tmp_path, "")


def test_properties_can_be_written_without_quotes(tmp_path: Path) -> None:
    """TOML takes the dots for tables; what is meant is clear."""
    protocol = 'security.protocol = "sasl_ssl"\nsasl.mechanisms = "PLAIN"'
    text = f'[kafka.properties]\nsasl.username = "me"\nssl.key.password = "secret"\n{protocol}'
    properties = read(tmp_path, text).kafka.properties
    assert (properties["sasl.username"], properties["ssl.key.password"]) == ("me", SecretStr("secret"))


def test_only_what_is_to_run_needs_its_settings(tmp_path: Path) -> None:
    """A worker that only exports needs no flags; a sink that is to run has to be there."""
    path = tmp_path / "flagstream.toml"
    path.write_text('[sinks.archive]\ntype = "log"', encoding="utf-8")
    assert load(path, {}, enrich=False, sinks=["archive"]).flags.path is None
    with pytest.raises(ConfigError) as caught:
        load(path, {}, enrich=True, sinks=["archives"])
    assert caught.value.problems == [
        "flags.path: is missing; the enrich stage needs the file with the flags, or [[flags.sources]]",
        "--sink archives: no such sink; did you mean archive?",
    ]


def test_a_start_can_be_a_time_for_each_stage_and_sink(tmp_path: Path) -> None:
    """A start is text or TOML's own date-time, always with a zone."""
    text = '[enrich]\nstart = "2026-01-31T00:00:00Z"\n[sinks.a]\ntype = "log"\nstart = 2026-01-31T00:00:00Z'
    settings = read(tmp_path, text)
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    assert (moment, moment) == (settings.enrich.start, settings.sinks["a"].start)


SECRETS = f"""
    [kafka.properties]
    "security.protocol" = "sasl_ssl"
    "sasl.mechanisms" = "OAUTHBEARER"
    "sasl.oauthbearer.method" = "oidc"
    "sasl.password" = "{HIDDEN}"
    "ssl.key.pem" = "{HIDDEN}"
    "sasl.oauthbearer.client.secret" = "{HIDDEN}"
    [kafka.consumer_properties]
    "ssl.keystore.password" = "{HIDDEN}"
    [kafka.producer_properties]
    "ssl.key.password" = "{HIDDEN}"
    [sinks.v]
    type = "vault"
    token = "{HIDDEN}"
"""


def test_secrets_never_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Secrets are neither printed, nor dumped, nor logged, properties of librdkafka and a sink's own
    alike."""
    settings = read(tmp_path, SECRETS)
    logging.getLogger("test").warning("settings %s %r", settings, settings)
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        caplog.text,
    ):
        assert HIDDEN not in text
        assert "**********" in text


@pytest.mark.parametrize(
    "text",
    [
        f'[kafka]\npasword = "{HIDDEN}"',
        f'[kafka.properties]\n"sasl.pasword" = "{HIDDEN}"',
        f'[kafka.properties]\n"sasl.password" = ["{HIDDEN}"]',
        f'[kafka]\nproperties = "{HIDDEN}"',
        f'[kafka]\nproperties = ["{HIDDEN}"]',
        f'[sinks.v]\ntype = "vault"\ntoken = ["{HIDDEN}"]',
        f'[sinks.v]\ntype = "vault"\ntoken = {{ value = "{HIDDEN}" }}',
        f'[sinks.v]\ntype = "vault"\ntoken = "x"\nattempts = 0\ntokn = "{HIDDEN}"',
        f'[sinks.v]\ntype = "other"\ntoken = "{HIDDEN}"',
    ],
)
def test_secrets_never_show_in_problems(tmp_path: Path, text: str) -> None:
    """They are hidden also where the value or the name is wrong."""
    assert not [line for line in problems(tmp_path, text) if HIDDEN in line]


def test_the_printed_reference_is_up_to_date() -> None:
    """docs/configuration.md is the output of ``flagstream config reference``."""
    assert reference(SINKS) == (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_reference_has_every_setting_with_its_default_and_meaning() -> None:
    """Nothing can be set that is not documented."""
    page = reference(SINKS)
    sections = [type(model) for _, model in Settings() if isinstance(model, BaseModel)]
    models: list[type[BaseModel]] = [*sections, SinkSettings, *SINKS.values()]
    for model in models:
        for key, field in model.model_fields.items():
            assert f"| `{key}` | " in page
            assert field.description, f"{model.__name__}.{key}"
    for default in ('`"200ms"`', '`"64MiB"`', '`"256MiB"`', '`"murmur2_random"`', "`6066`", '`"beginning"`'):
        assert default in page


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_over(tmp_path: Path, encoding: str) -> None:
    """Editors of Windows begin a file with one; its shell writes UTF-16."""
    path = tmp_path / "flagstream.toml"
    path.write_bytes('name = "fleet"\r\n[flags]\r\npath = "flags.yaml"\r\n'.encode(encoding))

    assert load(path, {}).name == "fleet"
