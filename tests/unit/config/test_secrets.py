"""A secret of the wrong TOML type is never shown, whichever setting it is written for.

The settings are found in the models, so that one that is added later is tried too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, SecretStr

from flagstream.cli import cli
from flagstream.config import Settings, load, mask_of
from flagstream.config.declared import mentions
from flagstream.config.flags import SOURCES
from flagstream.errors import ExitCode
from flagstream.librdkafka import Properties
from flagstream.operate.health import Health, Problem
from flagstream.operate.pages import healthy
from flagstream.sinks.registry import SINKS

WRONG = {
    "number": ("9071625344", ("9071625344",)),
    "fraction": ("907162.5344", ("907162",)),
    "boolean": ("true", ("true",)),
    "list of texts": ("['correct-horse']", ("correct-horse",)),
    "list of numbers": ("[9071625344]", ("9071625344",)),
    "list of lists": ("[['correct-horse'], [9071625344]]", ("correct-horse", "9071625344")),
    "table": ("{ value = 'correct-horse', other = 9071625344 }", ("correct-horse", "9071625344")),
    "date": ("2031-07-19", ("2031", "07-19", "7, 19")),
    "time": ("07:19:31", ("07:19", "7, 19")),
    "date and time": ("2031-07-19T07:19:31Z", ("2031", "07:19", "7, 19")),
}
"""What somebody may write in place of a text, and what of it must appear nowhere."""

SECRET_PROPERTIES = {
    "sasl.password": "'security.protocol' = 'sasl_ssl', 'sasl.mechanisms' = 'PLAIN', 'sasl.username' = 'u'",
    "ssl.keystore.password": "'security.protocol' = 'ssl'",
    "ssl.key.pem": "'security.protocol' = 'ssl'",
}
"""Secret properties of librdkafka, each with others without which it is refused for another reason."""

REQUIRED = {
    "file": "path = '/tmp/x'",
    "gcs": "bucket = 'bucket'",
    "kafka": "topic = 'elsewhere'\nbootstrap_servers = 'broker:9092'",
    "log": "",
    "s3": "bucket = 'bucket'\nregion = 'eu-west-1'",
    "webhook": "endpoint_url = 'https://receiver.example.com'",
}
"""By the type of a sink, what it cannot do without."""
OF_SOURCES = {
    "file": "path = 'flags.yaml'",
    "http": "url = 'https://flags.example.com/f.yaml'",
    "s3": "bucket = 'bucket'\nkey = 'k'",
    "gcs": "bucket = 'bucket'\nobject = 'o'",
    "relay": "url = 'https://relay.example.com'",
}
"""The same by the type of a source of flags."""

REST = "[flags]\npath = 'flags.yaml'\n[sinks.rest]\ntype = 'log'\n"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret is written: the table of the file, and the key in it, in one of its forms."""

    table: str
    key: str
    form: str

    def __str__(self) -> str:
        return f"{self.table.splitlines()[0]}{self.table.partition('type = ')[2][:9]} {self.key} {self.form}"

    def content(self, written: str) -> str:
        """The whole file with ``written`` for the secret."""
        lines = [line for line in self.table.splitlines() if line.partition(" =")[0] != self.key]
        return "\n".join([REST, *lines, f"{self.key} = {self.form.format(written)}"])


def forms(annotation: Any) -> Iterator[str]:
    """How a secret stands in a value of this type, from the value itself down to its parts."""
    yield "{}"
    kinds = {get_origin(part) for part in parts(annotation)}
    if annotation is Properties:
        for name, others in SECRET_PROPERTIES.items():
            yield f"{{{{ {others}, '{name}' = {{}} }}}}"
    elif dict in kinds:
        yield "{{ 'X-Token' = {} }}"
        if list in kinds:
            yield "{{ 'X-Token' = [{}] }}"
    elif list in kinds:
        yield "[{}]"


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from parts(part)


def secrets(model: type[BaseModel], table: str) -> Iterator[Place]:
    for key, field in model.model_fields.items():
        if mentions(field.annotation, SecretStr):
            annotation = Properties if key.endswith("properties") else field.annotation
            yield from (Place(table, key, form) for form in forms(annotation))


def places() -> Iterator[Place]:
    """Every setting of every model that holds a secret."""
    for section, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from secrets(field.annotation, f"[{section}]")
    for kind, sink in SINKS.items():
        yield from secrets(sink, f"[sinks.a]\ntype = '{kind}'\n{REQUIRED[kind]}")
    for kind, source in SOURCES.items():
        yield from secrets(source, f"[[flags.sources]]\ntype = '{kind}'\n{OF_SOURCES[kind]}")


PLACES = list(places())


def test_the_models_have_secrets() -> None:
    """The search finds those that are known, so an empty search cannot pass for a good one."""
    found = {place.key for place in PLACES}
    assert {
        *("password", "properties", "consumer_properties", "producer_properties", "secret_key"),
        *("secret", "previous_secrets", "headers", "endpoint_url", "api_key", "url"),
    } <= found


def test_a_number_can_be_a_password_of_librdkafka(tmp_path: Path) -> None:
    """There it is taken for a text, so the tests below meet secrets that are accepted too."""
    file = tmp_path / "flagstream.toml"
    place = Place("[kafka]", "properties", list(forms(Properties))[1])
    file.write_text(place.content(WRONG["number"][0]))
    assert load(file).kafka.properties["sasl.password"] == SecretStr("9071625344")


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path, place: Place, kind: str) -> None:
    """Neither the command, nor a log of the settings, nor a page shows any part of it."""
    written, hidden = WRONG[kind]
    file = tmp_path / "flagstream.toml"
    file.write_text(place.content(written))
    result = CliRunner().invoke(cli, ["config", "check", "-c", str(file)])
    shown = [result.output.replace(str(tmp_path), "")]
    if result.exit_code == ExitCode.OK and kind != "boolean":  # the word stands in any text about settings
        settings = load(file)
        shown += [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
        shown += quoted_by_a_client(settings, written)
    assert not [part for part in hidden for text in shown if part in text], shown


def quoted_by_a_client(settings: Settings, secret: str) -> Iterator[str]:
    """Yield what the log and a page show of the error of a client library that quotes ``secret``."""
    mask = mask_of(settings).whole
    yield mask(f"refused: {secret} is not the password")
    health = Health(mask=mask)
    health.checks["a"] = lambda: iter([Problem("kafka", f"refused: {secret} is not the password")])
    yield str(healthy(health, ("a",)))
