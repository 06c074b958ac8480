"""The decoders and encoders that the configuration asks for; None where a topic is JSON."""

from pathlib import Path

from worker.config.settings import Settings
from worker.formats import avro_schemas as schemas
from worker.topic_formats.decoding import FixedDecoder, RegistryDecoder
from worker.topic_formats.encoding import FixedEncoder, RegistryEncoder
from worker.topic_formats.known_schemas import KnownSchemas
from worker.topic_formats.protocol import Decoder, Encoder
from worker.topic_formats.registry import SchemaRegistry


def ingest_decoder(settings: Settings) -> Decoder | None:
    """Of the ingest topic. Raises ConfigError for a schema file that cannot be used."""
    topics = settings.topics
    if topics.ingest_format == "json":
        return None
    if not topics.ingest_schema:
        return RegistryDecoder(KnownSchemas(SchemaRegistry(settings.registry), "enrich"))
    return FixedDecoder(schemas.parsed(schemas.from_file(Path(topics.ingest_schema), "topics.ingest_schema")))


def output_encoder(settings: Settings) -> Encoder | None:
    """Of the output topic. Raises ConfigError for a schema file that cannot be used."""
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
    """Of the output topic, for the sink of this name. Raises ConfigError for a schema file that cannot be
    used.
    """
    topics = settings.topics
    if topics.output_format == "json":
        return None
    if not topics.output_schema:
        return RegistryDecoder(KnownSchemas(SchemaRegistry(settings.registry), sink))
    return FixedDecoder(schemas.parsed(schemas.from_file(Path(topics.output_schema), "topics.output_schema")))
