"""Tries whether a worker would find what it needs: flags, topics, rights, schemas. For ``flagstream check``.

The sinks try their destinations themselves (:mod:`flagstream.sinks.rehearsal`).
"""

from collections.abc import Generator, Iterator, Mapping

from flagstream.config.settings import Settings
from flagstream.flag_sources.opening import probe as probe_flags
from flagstream.kafka.earlier_output import NotTold, earlier_output
from flagstream.kafka.properties import admin_properties, enrich_group, sink_group
from flagstream.kafka.rights import READ, WRITE, prove_rights
from flagstream.kafka.topics import probe as probe_topics
from flagstream.outcomes import Proof
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.building import probe as probe_formats


def probe(settings: Settings, sinks: Mapping[str, SinkSettings], *, enrich: bool) -> Iterator[Proof]:
    """Try what a worker with these ``sinks``, and the enrich stage if ``enrich``, needs. Creates nothing, and
    raises nothing.
    """
    topics = settings.topics
    needed: dict[str, set[str]] = {topics.output: set(), topics.dead_letters: {WRITE}}
    groups = [sink_group(settings, name) for name in sinks]
    if enrich:
        yield from probe_flags(settings.flags)
        needed[topics.ingest] = {READ}
        needed[topics.output].add(WRITE)
        groups.insert(0, enrich_group(settings))
    if sinks:
        needed[topics.output].add(READ)
    for sink in sinks.values():
        if isinstance(sink, KafkaSinkSettings) and not sink.bootstrap_servers:
            needed[sink.topic] = {WRITE}
    admin = admin_properties(settings)
    answered = yield from _passing_on(probe_topics(admin, topics, needed))
    if answered:
        yield from prove_rights(admin, needed, groups)
        yield _probe_name(settings)
    yield from probe_formats(settings, enrich=enrich)


def _passing_on(proofs: Iterator[Proof]) -> Generator[Proof, None, bool]:
    """Pass the proofs on; return whether the first one, that the brokers answer, did not fail."""
    first = True
    answered = True
    for proof in proofs:
        if first:
            answered, first = proof.outcome != "failed", False
        yield proof
    return answered


def _probe_name(settings: Settings) -> Proof:
    try:
        found = earlier_output(admin_properties(settings), settings)
    except NotTold as error:
        return Proof("name", "unproved", f"whether it is the one that filled the output topic: {error}")
    if found:
        return Proof("name", "unproved", found)
    return Proof("name", "proved", settings.name)
