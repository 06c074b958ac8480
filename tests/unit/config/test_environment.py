"""Which variables are settings, which are misspelt, and which come from Kubernetes."""

from pathlib import Path

import pytest

from flagstream.config import load
from flagstream.config.flags import HttpFlagSettings
from flagstream.sinks.webhook.settings import WebhookSettings
from tests.unit.config.reading import WHOLE, accepted, problems

SERVICES = {
    "FLAGSTREAM_SERVICE_HOST": "10.0.0.11",
    "FLAGSTREAM_SERVICE_PORT": "6066",
    "FLAGSTREAM_SERVICE_PORT_WEB": "6066",
    "FLAGSTREAM_PORT": "tcp://10.0.0.11:6066",
    "FLAGSTREAM_PORT_6066_TCP": "tcp://10.0.0.11:6066",
    "FLAGSTREAM_PORT_6066_TCP_PROTO": "tcp",
    "FLAGSTREAM_PORT_6066_TCP_PORT": "6066",
    "FLAGSTREAM_PORT_6066_TCP_ADDR": "10.0.0.11",
    "FLAGSTREAM_WEB_SERVICE_HOST": "fd00::11",
    "FLAGSTREAM_WEB_SERVICE_PORT": "80",
    "FLAGSTREAM_WEB_SERVICE_PORT_HTTP": "80",
    "FLAGSTREAM_WEB_PORT": "tcp://[fd00::11]:80",
    "FLAGSTREAM_WEB_PORT_80_TCP": "tcp://[fd00::11]:80",
    "FLAGSTREAM_WEB_PORT_53_UDP": "udp://10.0.0.11:53",
    "FLAGSTREAM_WEB_PORT_53_UDP_PROTO": "udp",
    "FLAGSTREAM_WEB_PORT_80_TCP_ADDR": "fd00::11",
}
"""For the Services ``flagstream`` and ``flagstream-web``."""


def test_variables_of_services_are_passed_over(tmp_path: Path) -> None:
    """All seven forms are passed over, for both protocols and both families of addresses."""
    assert accepted(tmp_path, WHOLE, SERVICES) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLAGSTREAM_WEB_PORT", "8080"),
        ("FLAGSTREAM_WEB_PORT", "http://10.0.0.11:80"),
        ("FLAGSTREAM_WEB_PORT", "tcp://a.b:80"),
        ("FLAGSTREAM_WEB_SERVICE_HOST", "localhost"),
        ("FLAGSTREAM_WEB_SERVICE_PORT", "http"),
        ("FLAGSTREAM_WEB_SERVICE_PORT_HTTP", "99999"),
        ("FLAGSTREAM_WEB_PORT_80_TCP", "tcp://10.0.0.11:81"),
        ("FLAGSTREAM_WEB_PORT_80_TCP", "udp://10.0.0.11:80"),
        ("FLAGSTREAM_WEB_PORT_80_TCP_PROTO", "udp"),
        ("FLAGSTREAM_WEB_PORT_80_TCP_PORT", "81"),
        ("FLAGSTREAM_WEB_PORT_80_TCP_ADDR", "web"),
        ("FLAGSTREAM_WEB_PORT_80_TCP_HOST", "10.0.0.11"),
        ("FLAGSTREAM_WEB_HOST", "10.0.0.11"),
    ],
)
def test_a_form_of_kubernetes_with_another_value_is_not_passed_over(
    tmp_path: Path, name: str, value: str
) -> None:
    """It is a setting that somebody misspelt."""
    (problem,) = problems(tmp_path, WHOLE, {name: value})
    assert problem.startswith(f"{name}: unknown variable")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("FLAGSTREAM_SINKS__LOG__TYPE__X", "unknown variable; what it stands below is not a table"),
        ("FLAGSTREAM_FLAGS__PATH__X", "unknown variable; what it stands below is not a table"),
        ("FLAGSTREAM___", "unknown variable"),
        ("FLAGSTREAM_KAFKA__", "unknown variable"),
    ],
)
def test_a_variable_that_nothing_reads_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    """It would be set in vain."""
    (found,) = problems(tmp_path, WHOLE, {name: "x"})
    assert found.startswith(f"{name}: {problem}")


def test_sources_are_numbered_from_0_on(tmp_path: Path) -> None:
    """A gap is a source that somebody forgot."""
    assert problems(tmp_path, WHOLE, {"FLAGSTREAM_FLAGS__SOURCES__1__TYPE": "file"}) == [
        "flags.sources: has numbers that do not go from 0 on without a gap: "
        "FLAGSTREAM_FLAGS__SOURCES__0__TYPE"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLAGSTREAM_WEB_PORT", "FLAGSTREAM_WEB__PORT"),
        ("FLAGSTREAM_LOG_LEVEL", "FLAGSTREAM_LOG__LEVEL"),
        ("FLAGSTREAM__LOG__LEVEL", "FLAGSTREAM_LOG__LEVEL"),
        ("FLAGSTREAM_WEB___PORT", "FLAGSTREAM_WEB__PORT"),
        ("FLAGSTREAM_KAFKA_BOOTSTRAP_SERVERS", "FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS"),
        ("FLAGSTREAM_KAFKA__BOOTSTRAP__SERVERS", "FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS"),
        ("FLAGSTREAM_KAFKA_PROPERTIES_SASL_PASSWORD", "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD"),
        ("FLAGSTREAM_KAFKA__PROPERTIES_SASL_PASSWORD", "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD"),
        ("FLAGSTREAM_KAFKA__SASL_PASSWORD", "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD"),
        ("FLAGSTREAM_KAFKA_INSTANCE_FILE", "FLAGSTREAM_KAFKA__INSTANCE_FILE"),
        ("FLAGSTREAM_REGISTRY_PASSWORD_FILE", "FLAGSTREAM_REGISTRY__PASSWORD_FILE"),
        ("FLAGSTREAM_SINKS_MY_FILES_PATH", "FLAGSTREAM_SINKS__MY_FILES__PATH"),
        ("FLAGSTREAM_SINKS__MY_FILES_PATH", "FLAGSTREAM_SINKS__MY_FILES__PATH"),
        ("FLAGSTREAM_SINKS_MY_FILES__MAX_BYTES", "FLAGSTREAM_SINKS__MY_FILES__MAX_BYTES"),
        ("FLAGSTREAM_SINKS_OTHER_BUCKET", "FLAGSTREAM_SINKS__OTHER__BUCKET"),
        ("FLAGSTREAM_FLAGS_SOURCES_0_API_KEY", "FLAGSTREAM_FLAGS__SOURCES__0__API_KEY"),
        ("FLAGSTREAM_CONFIG_FILE", "FLAGSTREAM_CONFIG"),
        ("flagstream_web__port", "FLAGSTREAM_WEB__PORT"),
        ("Flagstream_Kafka__Instance", "FLAGSTREAM_KAFKA__INSTANCE"),
    ],
)
def test_a_wrong_number_of_underscores_names_the_right_variable(
    tmp_path: Path, name: str, meant: str
) -> None:
    """Underscores between the words of sinks, properties and sources count, too, and small letters do. The
    message never quotes the value."""
    text = WHOLE + '[sinks.my-files]\ntype = "file"\npath = "a"\n'
    assert problems(tmp_path, text, {name: "hunter2"}) == [f"{name}: unknown variable; did you mean {meant}?"]


def test_a_variable_is_stronger_than_the_same_header_of_the_file(tmp_path: Path) -> None:
    """However its name is written there: two headers of one name would be sent. ``_`` stands for ``-``, as
    proxies drop a header with ``_``; the same of a mounted file, and of a header that the file does not have.
    """
    text = (
        'headers = { Authorization = "old", "X-Api-Key" = "old" }\n[[flags.sources]]\ntype = "http"\n'
        'url = "https://h/f.yaml"\nheaders = { "X-Api-Key" = "old" }\n[enrich.metadata]\nTeam = "old"\n'
    )
    file = tmp_path / "flagstream.toml"
    file.write_text(f'[sinks.hook]\ntype = "webhook"\nendpoint_url = "https://receiver.example.com/"\n{text}')
    mounted = tmp_path / "key"
    mounted.write_text("mounted\n")
    settings = load(
        file,
        {
            "FLAGSTREAM_SINKS__HOOK__HEADERS__AUTHORIZATION": "new",
            "FLAGSTREAM_SINKS__HOOK__HEADERS__X_API_KEY_FILE": str(mounted),
            "FLAGSTREAM_SINKS__HOOK__HEADERS__X_TEAM": "added",
            "FLAGSTREAM_FLAGS__SOURCES__0__HEADERS__X_API_KEY": "new",
            "FLAGSTREAM_FLAGS__SOURCES__0__HEADERS__AUTHORIZATION_FILE": str(mounted),
            "FLAGSTREAM_ENRICH__METADATA__TEAM": "new",
        },
    )
    hook, source = settings.sinks["hook"], settings.flags.sources[0]
    assert isinstance(hook, WebhookSettings)
    assert isinstance(source, HttpFlagSettings)
    assert {
        name: [value.get_secret_value() for value in values] for name, values in hook.headers.items()
    } == {
        "Authorization": ["new"],
        "X-Api-Key": ["mounted"],
        "x-team": ["added"],
    }
    assert {name: value.get_secret_value() for name, value in source.headers.items()} == {
        "X-Api-Key": "new",
        "authorization": "mounted",
    }
    assert settings.enrich.metadata == {"Team": "new"}


def test_a_relays_variable_with_our_prefix_is_told_what_says_the_same(tmp_path: Path) -> None:
    """The words are those of the file."""
    (problem,) = problems(tmp_path, WHOLE, {"FLAGSTREAM_POLLINGINTERVAL": "60000"})
    assert problem.startswith("FLAGSTREAM_POLLINGINTERVAL: unknown variable; for GO Feature Flag's polling")
    (problem,) = problems(tmp_path, WHOLE, {"FLAGSTREAM_RETRIEVERS_0_KIND": "file"})
    assert "write [[flags.sources]] with type, one for each" in problem


@pytest.mark.parametrize(
    "name",
    [
        "FLAGSTREAM_NAME",
        "FLAGSTREAM_ENRICH__METADATA__TEAM",
        "FLAGSTREAM_ENRICH__DEFAULT_SOURCE",
        "FLAGSTREAM_KAFKA__PROPERTIES__CLIENT_RACK",
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD_FILE",
        "FLAGSTREAM_FLAGS__PATH",
    ],
)
def test_a_variable_that_is_no_utf_8_is_refused(tmp_path: Path, name: str) -> None:
    """Python holds its bytes as halves of surrogate pairs, which nothing can write, not even a message."""
    assert problems(tmp_path, WHOLE, {name: "a\udcff"}) == [f"{name}: is not UTF-8 text"]


def test_a_name_and_a_reference_that_are_no_utf_8_are_refused(tmp_path: Path) -> None:
    """The name is shown with its bytes."""
    assert problems(tmp_path, WHOLE, {"FLAGSTREAM_SINKS__\udcff__TYPE": "log"}) == [
        "FLAGSTREAM_SINKS__\\udcff__TYPE: is not UTF-8 text"
    ]
    assert problems(tmp_path, 'name = "${OWN}"\n' + WHOLE, {"OWN": "a\udcff"}) == [
        "name: the variable OWN is not UTF-8 text"
    ]
