"""What the configuration says about formats, schemas and the registry."""

from pathlib import Path

import pytest

from flagstream.config import load
from flagstream.config.settings import Settings
from flagstream.errors import ConfigError
from flagstream.topic_formats.building import ingest_decoder, output_decoder, output_encoder

ENVIRONMENT = {"FLAGSTREAM_FLAGS__PATH": "flags.yaml"}


def read(tmp_path: Path, text: str, *, enrich: bool = True) -> Settings:
    path = tmp_path / "flagstream.toml"
    path.write_text(text)
    return load(path, ENVIRONMENT, enrich=enrich)


def problems(tmp_path: Path, text: str, *, enrich: bool = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, enrich=enrich)
    return caught.value.problems


def test_topics_are_json_unless_told_otherwise(tmp_path: Path) -> None:
    """Nothing stands between the stages and the bytes of a JSON topic."""
    settings = read(tmp_path, "[topics]\ncreate = false")

    assert ingest_decoder(settings) is None
    assert output_encoder(settings) is None
    assert output_decoder(settings, "archive") is None


def test_avro_needs_a_registry_or_a_schema(tmp_path: Path) -> None:
    """The ingest topic needs one only where the enrich stage runs."""
    text = '[topics]\ningest_format = "avro"\noutput_format = "avro"'
    output = "topics.output_format: needs registry.url, or topics.output_schema for Avro that names no schema"

    assert problems(tmp_path, text) == [output.replace("output", "ingest"), output]
    assert problems(tmp_path, text, enrich=False) == [output]
    read(tmp_path, text + '\n[registry]\nurl = "https://registry:8081"')


def test_a_schema_for_json_is_a_mistake(tmp_path: Path) -> None:
    """A setting that does nothing is said."""
    [problem] = problems(tmp_path, '[topics]\noutput_schema = "x.avsc"')

    assert problem == 'topics.output_schema: is for topics.output_format = "avro" only'


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "https://me:hunter2@registry"])
def test_the_address_is_checked_and_holds_no_password(tmp_path: Path, url: str) -> None:
    """User and password have settings of their own, of which nothing is shown."""
    [problem] = problems(tmp_path, f'[registry]\nurl = "{url}"')

    assert problem.startswith("registry.url: ")
    assert "https://HOST/PATH" in problem
    assert "hunter2" not in problem


def test_a_schema_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The file is missing, or holds no schema of a record."""
    path = tmp_path / "own.avsc"
    settings = read(tmp_path, f'[topics]\ningest_format = "avro"\ningest_schema = "{path}"')

    with pytest.raises(ConfigError, match=r"topics\.ingest_schema: .*own\.avsc: No such file"):
        ingest_decoder(settings)
    path.write_text('"string"')
    with pytest.raises(ConfigError, match=r"topics\.ingest_schema: .*own\.avsc: it is not the schema of a"):
        ingest_decoder(settings)
