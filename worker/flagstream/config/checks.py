"""Mistakes that no single setting shows: how settings go together.

The default stands in for a setting that could not be read. No check reports
a problem that rests on such a default.
"""

from collections.abc import Collection, Iterator
from itertools import combinations
from os.path import abspath

from flagstream import librdkafka
from flagstream.config.settings import Settings
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.objects import ObjectSettings
from flagstream.units import format_bytes, format_seconds

Path = tuple[str, ...]
Problem = tuple[Path, str]

_PROTOCOL = "security.protocol"
FLAG_SUFFIXES = (".yaml", ".yml", ".json", ".toml")


def cross_field_problems(settings: Settings, failed: set[Path], *, enrich: bool) -> Iterator[Problem]:
    """Yield everything that is wrong, as path and message. ``failed``: paths with a default in place of the
    value that was written.

    ``enrich``: whether the enrich stage is to run, which needs more than the sinks do.
    """
    yield from _topics(settings, failed)
    yield from _registry(settings, failed)
    yield from _formats(settings, failed, enrich=enrich)
    yield from _static_membership(settings, failed)
    yield from _transaction(settings, failed)
    if enrich:
        yield from _flags(settings, failed)
    yield from _properties(settings, failed)
    yield from _sinks(settings, failed)
    yield from _object_names(settings, failed)


def _unread(failed: set[Path], *paths: Path) -> bool:
    """Return whether one of ``paths``, or a table that contains it, could not be read."""
    return any(path[:length] in failed for path in paths for length in range(1, len(path) + 1))


def _topics(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    topics = settings.topics
    names = {"ingest": topics.ingest, "output": topics.output, "dead_letters": topics.dead_letters}
    for (first, name), (second, other) in combinations(names.items(), 2):
        if name == other and not _unread(failed, ("topics", first), ("topics", second)):
            yield ("topics", second), f'"{other}" is also topics.{first}; each needs a topic of its own'
        elif name.replace(".", "_") == other.replace(".", "_") and not _unread(
            failed, ("topics", first), ("topics", second)
        ):
            yield (
                ("topics", second),
                f'"{other}" and topics.{first}, "{name}", differ in . and _ only; Kafka creates one of them, '
                "as its metrics cannot tell them apart",
            )


def _formats(settings: Settings, failed: set[Path], *, enrich: bool) -> Iterator[Problem]:
    topics, registry = settings.topics, settings.registry
    sides = {
        "ingest": (topics.ingest_format, topics.ingest_schema, enrich),
        "output": (topics.output_format, topics.output_schema, True),
    }
    for side, (form, schema, needed) in sides.items():
        here, file = ("topics", f"{side}_format"), ("topics", f"{side}_schema")
        if _unread(failed, here, file):
            continue
        if form == "json" and schema:
            yield file, f'is for topics.{side}_format = "avro" only'
        missing = form == "avro" and not schema and needed and not registry.url
        if missing and not _unread(failed, ("registry", "url")):
            yield here, f"needs registry.url, or topics.{side}_schema for Avro that names no schema"


def _registry(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    registry = settings.registry
    if (
        registry.password.get_secret_value()
        and not registry.user
        and not _unread(failed, ("registry", "user"))
    ):
        yield ("registry", "password"), "is not used without registry.user; set both or none"
    if registry.user and not registry.url and not _unread(failed, ("registry", "url")):
        yield ("registry", "user"), "is not used without registry.url"


def variable_problems(settings: Settings, sinks: Collection[str], *, enrich: bool) -> Iterator[str]:
    """Yield what ``flagstream config check`` reports of variables that clients of stores read. A worker that
    runs does not refuse them: the sink or source that fails says so, and all else goes on.
    """
    for name in sinks:
        yield from (f"sinks.{name}: {problem}" for problem in settings.sinks[name].variable_problems())
    for source in settings.flags.all_sources() if enrich else ():
        yield from (f"flags: {source.called()}: {problem}" for problem in source.variable_problems())


def cross_field_warnings(settings: Settings) -> Iterator[Problem]:
    """Yield what is likely a mistake, but could be meant, as path and message."""
    topics = settings.topics
    if settings.registry.url and "avro" not in (topics.ingest_format, topics.output_format):
        yield (
            ("registry", "url"),
            'is not used: neither topics.ingest_format nor topics.output_format is "avro"',
        )
    for name, sink in settings.sinks.items():
        if isinstance(sink, KafkaSinkSettings) and _same_cluster(sink, settings):
            yield (
                ("sinks", name, "bootstrap_servers"),
                "is the worker's own cluster, taken for another one: at least once; leave it out for "
                "exactly once",
            )


def _same_cluster(sink: KafkaSinkSettings, settings: Settings) -> bool:
    """Return whether the sink's brokers are some of the worker's own, judged by their names."""
    here, there = (
        {broker.strip().lower() for broker in servers.split(",") if broker.strip()}
        for servers in (settings.kafka.bootstrap_servers, sink.bootstrap_servers)
    )
    return bool(here & there)


def _static_membership(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    here = ("kafka", "static_membership")
    kafka = settings.kafka
    if kafka.static_membership and not kafka.instance and not _unread(failed, here, ("kafka", "instance")):
        yield here, "needs kafka.instance, a name that this process keeps and no other has"
    if (
        kafka.static_membership
        and kafka.group_protocol == "consumer"
        and not _unread(failed, here, ("kafka", "group_protocol"))
    ):
        yield (
            here,
            'does not go with kafka.group_protocol = "consumer": there the broker takes commits of a static '
            "member's former life still, and a late one could make events come twice",
        )


def _transaction(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    here = ("enrich", "commit_interval")
    interval, timeout = settings.enrich.commit_interval, settings.enrich.transaction_timeout
    if interval > timeout / 2 and not _unread(failed, here, ("enrich", "transaction_timeout")):
        yield (
            here,
            f"{format_seconds(interval)} leaves no time to commit before enrich.transaction_timeout "
            f"({format_seconds(timeout)}) ends the transaction; write at most half of it",
        )


def _flags(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    path, kind = settings.flags.path, settings.flags.format
    sources_read = not any(at[:2] == ("flags", "sources") for at in failed)
    if sources_read and not _unread(failed, ("flags", "path")):
        for key, message in settings.flags.problems():
            yield ("flags", key), message
    cache = settings.flags.cache_path
    files = {abspath(source.path) for source in settings.flags.all_sources() if source.type == "file"}
    if cache and abspath(cache) in files:
        yield (
            ("flags", "cache_path"),
            f'"{cache}" is the flag file itself, which would be overwritten; write another path',
        )
    if path is None:
        if not settings.flags.sources and sources_read and not _unread(failed, ("flags", "path")):
            yield (
                ("flags", "path"),
                "is missing; the enrich stage needs the file with the flags, or [[flags.sources]]",
            )
        return
    is_known = kind is not None or path.suffix.lower() in FLAG_SUFFIXES
    if not is_known and not _unread(failed, ("flags", "format")):
        yield (
            ("flags", "format"),
            f'is missing, and the name "{path.name}" does not show it; write "yaml", "json" or "toml"',
        )


def _properties(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    kafka = settings.kafka
    protocol = None if _unread(failed, ("kafka", "group_protocol")) else kafka.group_protocol
    tables = {
        "properties": kafka.properties,
        "consumer_properties": kafka.consumer_properties,
        "producer_properties": kafka.producer_properties,
    }
    for table, properties in tables.items():
        for name, message in librdkafka.problems(properties, protocol):
            yield ("kafka", table, name), message
    reported: set[str] = set()
    for own in ("consumer_properties", "producer_properties"):
        speaks = str(tables[own].get(_PROTOCOL, "")).lower()
        if speaks and speaks != str(kafka.properties.get(_PROTOCOL, "plaintext")).lower():
            yield (
                ("kafka", own, _PROTOCOL),
                "belongs into kafka.properties: all clients speak to the same brokers, also the one "
                "that looks at "
                "the topics",
            )
            continue
        for name, message in librdkafka.contradictions({**kafka.properties, **tables[own]}):
            if name not in reported:
                reported.add(name)
                yield ("kafka", own if name in tables[own] else "properties", name), message


def _sinks(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    budget = settings.export.memory_budget // max(1, len(settings.sinks))
    for name, sink in settings.sinks.items():
        here = ("sinks", name)
        unread = _unread(failed, ("export", "memory_budget"), (*here, "max_bytes"))
        # Nobody asked for the default, and windows of many sinks are closed early by the budget.
        if "max_bytes" in sink.model_fields_set and sink.max_bytes > budget and not unread:
            yield (
                (*here, "max_bytes"),
                f"{format_bytes(sink.max_bytes)} is more than the sink's share of export.memory_budget, "
                f"{format_bytes(budget)}",
            )
        if not any(path[:2] == here for path in failed):
            for field, message in sink.problems():
                yield (*here, field), message
        if isinstance(sink, KafkaSinkSettings) and (
            not sink.bootstrap_servers or _same_cluster(sink, settings)
        ):
            for role in ("ingest", "output", "dead_letters"):
                if sink.topic == getattr(settings.topics, role) and not _unread(failed, ("topics", role)):
                    yield (
                        (*here, "topic"),
                        f'"{sink.topic}" is topics.{role}; a sink needs a topic of its own',
                    )


def _object_names(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    if _unread(failed, ("topics", "output")):
        return
    topic = settings.topics.output
    read: dict[str, ObjectSettings] = {
        name: sink
        for name, sink in settings.sinks.items()
        if isinstance(sink, ObjectSettings)
        and not any(path[:2] == ("sinks", name) for path in failed)
        and not any(True for _ in sink.problems())
    }
    for name, sink in read.items():
        if fault := sink.name_problem(topic):
            yield ("sinks", name, "name"), f"every name would be too long: {fault}"
        if sink.takes_own_index(topic):
            yield (
                ("sinks", name, "name"),
                'an event with the value "_index" would get the name of its window\'s index, and stop the '
                "partition; write a text in front of the value, such as flag={{ .Key }}",
            )
    for (name, sink), (other, its) in combinations(read.items(), 2):
        if sink.shares_names(its, topic):
            yield (
                ("sinks", other, "name"),
                f"can give a name that sinks.{name} can give too (in a layout also that of an index), in the "
                "same place: each would take the other's objects for its own; give one of the two another "
                "place, or begin its name with a folder of its own",
            )
