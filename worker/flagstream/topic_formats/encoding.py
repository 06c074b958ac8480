"""Encoders of Avro: with the id of the registered schema before each value, or bare."""

from io import BytesIO
from typing import Final

import structlog
from fastavro import schemaless_writer

from flagstream.formats.avro_record import avro_record, columns
from flagstream.formats.avro_schemas import parsed
from flagstream.outcomes import Dead
from flagstream.topic_formats.registry import RegistryError, SchemaMissing, SchemaRegistry

log = structlog.get_logger(__name__)

MAGIC: Final = b"\0"


def subject_of(topic: str) -> str:
    """Return the subject of a topic's values in the registry (TopicNameStrategy)."""
    return f"{topic}-value"


class FixedEncoder:
    """Bare Avro data of the schema in ``text`` (see ``schemas.check_output``)."""

    def __init__(self, text: str) -> None:
        self._schema = parsed(text)
        self._columns = columns(self._schema)
        self._prefix = b""

    def open(self) -> None:
        """Return at once: there is nothing to wait for."""

    def encode(self, text: bytes) -> bytes | Dead:
        out = BytesIO()
        out.write(self._prefix)
        try:
            schemaless_writer(out, self._schema, avro_record(self._columns, text))
        except RecursionError:  # the stack that sufficed to enrich it may not here
            return Dead("too_deep", "Arrays or objects are nested too deeply")
        return out.getvalue()


class RegistryEncoder(FixedEncoder):
    """Confluent's wire format. The registry has the schema under the topic's subject, ``<topic>-value``
    (TopicNameStrategy); with ``auto_register`` the encoder puts it there.
    """

    def __init__(self, text: str, registry: SchemaRegistry, topic: str, *, auto_register: bool) -> None:
        super().__init__(text)
        self._text = text
        self._registry = registry
        self._subject = subject_of(topic)
        self._auto_register = auto_register

    def open(self) -> None:
        number = self._register() if self._auto_register else self._find()
        self._prefix = MAGIC + number.to_bytes(4)
        log.info("schema_in_use", subject=self._subject, id=number)

    def _register(self) -> int:
        try:
            return self._registry.register(self._subject, self._text)
        except SchemaMissing as error:  # an answer that registering has no use for
            raise RegistryError("refused", str(error)) from error

    def _find(self) -> int:
        try:
            return self._registry.find(self._subject, self._text)
        except SchemaMissing as error:
            allowed = "" if self._registry.compatible(self._subject, self._text) else " (its rules forbid it)"
            raise RegistryError(
                "refused",
                f'avro/enriched_event.avsc is not registered under the subject "{self._subject}": register '
                f"it{allowed} or set registry.auto_register",
            ) from error
