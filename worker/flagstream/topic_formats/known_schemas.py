"""The schemas that records name by id. The registry is asked for each of them once."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import structlog

from flagstream.formats.avro_schemas import NotAvro, parsed
from flagstream.operate import metrics
from flagstream.operate.retry import Backoff, retry_until_ready
from flagstream.outcomes import Dead
from flagstream.topic_formats.registry import RegistryError, SchemaMissing

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
DOUBTS = 3
"""How often the registry has to say that there is no such schema before that counts: a replica can lag the
one that a producer registered with.
"""
DOUBT_PAUSE = 0.5
ASK_AGAIN = 60.0
"""Seconds after which an id that had no schema is asked for again."""


class Schemas(Protocol):
    """The part of a registry that is needed here."""

    def schema(self, number: int) -> str: ...


class Missing(NamedTuple):
    """A schema that the registry did not have, and when it was asked (monotonic seconds)."""

    dead: Dead
    asked: float


class KnownSchemas:
    """Holds all schemas of one stage. ``source`` is the stage's name, for log and metrics. An id is the four
    bytes that records hold.
    """

    def __init__(self, registry: Schemas, source: str) -> None:
        self.trouble: str | None = None
        self._registry = registry
        self._source = source
        self._schemas: dict[bytes, dict[str, Any]] = {}
        self._missing: dict[bytes, Missing] = {}

    def get(self, identity: bytes) -> dict[str, Any] | Dead:
        """Return the schema of an id that was learned, or why the records that name it are dead letters."""
        return self._schemas.get(identity) or self._missing[identity].dead

    async def learn(self, identities: Iterable[bytes]) -> None:
        """Ask for the ids that are not known, with back-off, until the registry answers, however long it
        takes.

        An id that the registry does not know is asked for again after a pause. All such ids share the pauses:
        a chunk waits :data:`DOUBT_PAUSE` for each repetition, however many ids are foreign.
        """
        unknown = asked = {identity for identity in identities if self._worth_asking(identity)}
        for doubts in reversed(range(DOUBTS)):
            unknown = {identity for identity in unknown if not await self._answers(identity)}
            if unknown and doubts:
                await asyncio.sleep(DOUBT_PAUSE)
        for identity in asked - self._schemas.keys():
            error = self._missing[identity].dead.error
            log.warning("schema_missing", source=self._source, id=int.from_bytes(identity), error=error)

    def _worth_asking(self, identity: bytes) -> bool:
        if identity in self._schemas:
            return False
        missing = self._missing.get(identity)
        return missing is None or time.monotonic() - missing.asked > ASK_AGAIN

    async def _answers(self, identity: bytes) -> bool:
        """Return whether the registry has this id, even if its schema cannot be used."""
        number = int.from_bytes(identity)
        try:
            self._schemas[identity] = parsed(await self._text(number))
        except (SchemaMissing, NotAvro) as error:
            dead = Dead("unknown_schema", f"There is no schema with the id {number} to read it with: {error}")
            self._missing[identity] = Missing(dead, time.monotonic())
            return isinstance(error, NotAvro)
        return True

    async def _text(self, number: int) -> str:
        pauses = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            text = await retry_until_ready(
                lambda: self._registry.schema(number),
                (RegistryError,),
                lambda error: self._failed(number, error),
                pauses,
            )
        except SchemaMissing:
            self._answered()
            raise
        self._answered()
        return text

    def _failed(self, number: int, error: RegistryError) -> None:
        metrics.REGISTRY_FAILURES.labels(self._source, error.kind).inc()
        trouble = f"waits for schema {number} of the registry: {error}"
        if self.trouble != trouble:
            facts = {"source": self._source, "id": number, "kind": error.kind, "error": str(error)}
            if error.kind == "refused":  # a person has to act
                log.error("registry_failed", **facts)
            else:
                log.warning("registry_failed", **facts)
        self.trouble = trouble

    def _answered(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            log.info("registry_recovered", source=self._source)
