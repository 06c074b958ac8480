"""Makes the decoders and encoders that the configuration asks for; None for a topic in JSON."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flagstream.config.settings import Settings
from flagstream.errors import ConfigError
from flagstream.formats import avro_schemas as schemas
from flagstream.outcomes import Proof
from flagstream.topic_formats.decoding import FixedDecoder, RegistryDecoder
from flagstream.topic_formats.encoding import FixedEncoder, RegistryEncoder, subject_of
from flagstream.topic_formats.known_schemas import KnownSchemas
from flagstream.topic_formats.protocol import Decoder, Encoder
from flagstream.topic_formats.registry import RegistryError, SchemaMissing, SchemaRegistry


def ingest_decoder(settings: Settings) -> Decoder | None:
    """Return the decoder of the ingest topic. Raises ConfigError for a schema file that cannot be used."""
    topics = settings.topics
    if topics.ingest_format == "json":
        return None
    if not topics.ingest_schema:
        return RegistryDecoder(KnownSchemas(SchemaRegistry(settings.registry), "enrich"))
    return FixedDecoder(schemas.parsed(schemas.from_file(Path(topics.ingest_schema), "topics.ingest_schema")))


def output_encoder(settings: Settings) -> Encoder | None:
    """Return the encoder of the output topic. Raises ConfigError for a schema file that cannot be used."""
    topics, registry = settings.topics, settings.registry
    if topics.output_format == "json":
        return None
    if not topics.output_schema:
        return RegistryEncoder(
            schemas.own("enriched_event"),
            SchemaRegistry(registry),
            topics.output,
            auto_register=registry.auto_register,
        )
    text = schemas.from_file(Path(topics.output_schema), "topics.output_schema")
    schemas.check_output(text, "topics.output_schema")
    return FixedEncoder(text)


def output_decoder(settings: Settings, sink: str) -> Decoder | None:
    """Return the decoder of the output topic, for the sink of this name. Raises ConfigError for a schema file
    that cannot be used.
    """
    topics = settings.topics
    if topics.output_format == "json":
        return None
    if not topics.output_schema:
        return RegistryDecoder(KnownSchemas(SchemaRegistry(settings.registry), sink))
    return FixedDecoder(schemas.parsed(schemas.from_file(Path(topics.output_schema), "topics.output_schema")))


def probe(settings: Settings, *, enrich: bool) -> Iterator[Proof]:
    """Yield whether the schema registry and the schema files can be used. ``flagstream check`` calls it. It
    registers nothing and raises nothing.
    """
    topics, registry = settings.topics, settings.registry
    reads = enrich and topics.ingest_format == "avro"
    writes = topics.output_format == "avro"
    for needed, key, path in (
        (reads, "topics.ingest_schema", topics.ingest_schema),
        (writes, "topics.output_schema", topics.output_schema),
    ):
        if needed and path:
            yield _prove_file(key, path)
    named = [
        topic
        for needed, topic, path in (
            (reads, topics.ingest, topics.ingest_schema),
            (writes, topics.output, topics.output_schema),
        )
        if needed and not path
    ]
    if named:
        client = SchemaRegistry(registry)
        try:
            yield from _prove_registry(client, settings, write=topics.output in named)
        finally:
            client.close()


def _prove_file(key: str, path: str) -> Proof:
    try:
        text = schemas.from_file(Path(path), key)
        schemas.parsed(text)
        if key == "topics.output_schema":
            schemas.check_output(text, key)
    except ConfigError as error:
        return Proof(key, "failed", "; ".join(error.problems))
    return Proof(key, "proved", path)


def _prove_registry(client: SchemaRegistry, settings: Settings, *, write: bool) -> Iterator[Proof]:
    what = f"schema registry {client.shown}"
    try:
        with suppress(SchemaMissing):  # an answer, too: ids begin where the registry likes
            client.schema(1)
    except RegistryError as error:
        yield Proof(what, "failed", str(error))
        return
    yield Proof(what, "proved", "answers, and lets schemas be read")
    if not write:
        return
    subject, text = subject_of(settings.topics.output), schemas.own("enriched_event")
    here = f'schema under "{subject}"'
    try:
        yield Proof(here, "proved", f"is registered with the id {client.find(subject, text)}")
    except SchemaMissing:
        yield _prove_missing(client, here, subject, text, settings.registry.auto_register)
    except RegistryError as error:
        yield Proof(here, "failed", str(error))


def _prove_missing(client: SchemaRegistry, here: str, subject: str, text: str, auto_register: bool) -> Proof:
    try:
        allowed = client.compatible(subject, text)
    except (RegistryError, SchemaMissing) as error:
        return Proof(here, "failed", str(error))
    if not allowed:
        return Proof(here, "failed", "is missing, and the subject's rules of compatibility forbid it")
    if auto_register:
        return Proof(here, "unproved", "is missing; a worker would register it (registry.auto_register)")
    return Proof(
        here, "failed", "is missing; register avro/enriched_event.avsc, or set registry.auto_register = true"
    )
