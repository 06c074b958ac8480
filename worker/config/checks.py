"""Mistakes that no single setting shows: how settings go together.

Each check names the settings that it reads and is left out when one of them could not be read: what stands in
its place then is the default, about which nobody needs to hear.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

from worker.config.settings import Settings
from worker.kafka import handed_through
from worker.units import format_bytes, format_seconds

Path = tuple[str, ...]
Problem = tuple[Path, str]
Check = Callable[[Settings], Iterator[Problem]]

FLAG_FORMATS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}


def cross_field_problems(settings: Settings, failed: set[Path], *, enrich: bool) -> Iterator[Problem]:
    """All that is wrong, as path and message. ``failed``: paths with a default in place of what was written.

    ``enrich``: whether the enrich stage is to run, which needs more than the sinks do.
    """
    for reads, check in _CHECKS:
        if not any(path[: len(read)] == read for read in reads for path in failed):
            yield from check(settings)
    if enrich and not failed & {("flags",), ("flags", "path")}:
        yield from _flags(settings, failed)
    yield from _properties(settings, failed)
    yield from _sinks(settings, failed)


def _topics(settings: Settings) -> Iterator[Problem]:
    topics = settings.topics
    names = {"ingest": topics.ingest, "output": topics.output, "dead_letters": topics.dead_letters}
    for (first, name), (second, other) in combinations(names.items(), 2):
        if name == other:
            yield ("topics", second), f'"{other}" is also topics.{first}; each needs a topic of its own'


def _static_membership(settings: Settings) -> Iterator[Problem]:
    if settings.kafka.static_membership and not settings.kafka.instance:
        yield (
            ("kafka", "static_membership"),
            "needs kafka.instance, a name that this process keeps and no other has",
        )


def _transaction(settings: Settings) -> Iterator[Problem]:
    interval, timeout = settings.enrich.commit_interval, settings.enrich.transaction_timeout
    if interval > timeout / 2:
        yield (
            ("enrich", "commit_interval"),
            f"{format_seconds(interval)} leaves no time to commit before enrich.transaction_timeout "
            f"({format_seconds(timeout)}) ends the transaction; write at most half of it",
        )


def _flags(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    path = settings.flags.path
    if path is None:
        yield ("flags", "path"), "is missing; the enrich stage needs the file with the flags"
    elif ("flags", "format") in failed:
        return
    elif settings.flags.format is None and path.suffix.lower() not in FLAG_FORMATS:
        yield (
            ("flags", "format"),
            f'is missing, and "{path.name}" does not tell it; write "yaml", "json" or "toml"',
        )


def _properties(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    kafka = settings.kafka
    protocol = None if ("kafka", "group_protocol") in failed else kafka.group_protocol
    tables = {
        "properties": kafka.properties,
        "consumer_properties": kafka.consumer_properties,
        "producer_properties": kafka.producer_properties,
    }
    for table, properties in tables.items():
        for name, message in handed_through.problems(properties, protocol):
            yield ("kafka", table, name), message


def _sinks(settings: Settings, failed: set[Path]) -> Iterator[Problem]:
    budget = settings.export.memory_budget
    budget_known = ("export", "memory_budget") not in failed
    for name, sink in settings.sinks.items():
        here = ("sinks", name)
        if budget_known and (*here, "max_bytes") not in failed and sink.max_bytes > budget:
            yield (
                (*here, "max_bytes"),
                f"{format_bytes(sink.max_bytes)} is more than export.memory_budget ({format_bytes(budget)}), "
                "which all windows share",
            )
        if not any(path[:2] == here for path in failed):
            for field, message in sink.problems():
                yield (*here, field), message


_CHECKS: tuple[tuple[tuple[Path, ...], Check], ...] = (
    ((("topics",),), _topics),
    ((("kafka", "static_membership"), ("kafka", "instance")), _static_membership),
    ((("enrich", "commit_interval"), ("enrich", "transaction_timeout")), _transaction),
)
