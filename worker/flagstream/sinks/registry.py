"""All sinks: those of the worker, and those of other distributions.

A new sink of the worker is a module, and a line in each of the two places here (``SINKS`` and ``build``);
CONTRIBUTING.md lists the other files. Another distribution adds one
by an entry point of the group ``flagstream.sinks``, which names a :class:`SinkType`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from flagstream.errors import FlagstreamError
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.log import LogSettings, LogSink
from flagstream.sinks.objects.file import FileSettings, FileSink
from flagstream.sinks.objects.gcs.settings import GcsSettings
from flagstream.sinks.objects.s3.settings import S3Settings
from flagstream.sinks.protocol import ConfiguredTransactionalSink, Sink
from flagstream.sinks.settings import SinkSettings
from flagstream.sinks.webhook.settings import WebhookSettings

SINKS: Mapping[str, type[SinkSettings]] = {
    "file": FileSettings,
    "gcs": GcsSettings,
    "kafka": KafkaSinkSettings,
    "log": LogSettings,
    "s3": S3Settings,
    "webhook": WebhookSettings,
}
"""The settings of each ``type`` of the worker itself."""

GROUP = "flagstream.sinks"
PROTOCOL = 2
"""The version of ``flagstream.sinks.protocol``. It rises whenever existing sinks have to be changed."""

AnySink = Sink[Any] | ConfiguredTransactionalSink[Any]


@dataclass(frozen=True, slots=True)
class SinkType:
    """The object that an entry point of ``flagstream.sinks`` names. The name of the entry point is the
    ``type`` in the configuration.

    ``settings`` is the class of its settings. ``build`` makes a sink of them and touches nothing outside.
    ``protocol`` is the ``PROTOCOL`` that the sink was written for: a number in its source, not a reference to
    ours.
    """

    settings: type[SinkSettings]
    build: Callable[[Any], AnySink]
    protocol: int


class UnusableSink(FlagstreamError):
    """A sink of another distribution cannot be used; the message says why and what to do."""


class InstalledSinks(Mapping[str, type[SinkSettings]]):
    """Holds the settings of every ``type``. A sink of another distribution is looked up and imported only
    when somebody asks for its name; a lookup raises UnusableSink if that sink cannot be used.
    """

    def __getitem__(self, kind: str) -> type[SinkSettings]:
        points = _points(kind)
        if kind in SINKS:
            if points:
                raise UnusableSink(
                    f'"{kind}" is a sink of the worker, and {_origin(points[0])} takes its name'
                )
            return SINKS[kind]
        if not points:
            raise KeyError(kind)
        return _loaded(kind, points).settings

    def __contains__(self, kind: object) -> bool:
        return kind in SINKS or (isinstance(kind, str) and bool(_points(kind)))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*SINKS, *entry_points(group=GROUP).names}))

    def __len__(self) -> int:
        return len(list(iter(self)))


def build(settings: SinkSettings) -> AnySink:
    """Return the sink that ``settings`` describe. It touches nothing outside: ``open`` does that."""
    match settings:
        case FileSettings():
            return FileSink(settings)
        case GcsSettings():
            from flagstream.sinks.objects.gcs.store import GcsStore
            from flagstream.sinks.objects.sink import ObjectSink

            return ObjectSink(GcsStore(settings), settings)
        case KafkaSinkSettings(bootstrap_servers=""):
            return TopicSink(settings)
        case KafkaSinkSettings():
            from flagstream.sinks.kafka.other_cluster import OtherClusterSink

            return OtherClusterSink(settings)
        case LogSettings():
            return LogSink(settings)
        case S3Settings():
            from flagstream.sinks.objects.s3.store import S3Store
            from flagstream.sinks.objects.sink import ObjectSink

            return ObjectSink(S3Store(settings), settings)
        case WebhookSettings():
            from flagstream.sinks.webhook.sink import WebhookSink

            return WebhookSink(settings)
    if points := _points(settings.type):
        return _loaded(settings.type, points).build(settings)
    raise TypeError(f"no sink for {type(settings).__name__}; add it to worker/flagstream/sinks/registry.py")


def _points(kind: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUP, name=kind))


def _loaded(kind: str, points: list[EntryPoint]) -> SinkType:
    if len(points) > 1:
        raise UnusableSink(f'"{kind}" is brought by {" and by ".join(map(_origin, points))}; uninstall one')
    (point,) = points
    try:
        found = point.load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise UnusableSink(f"{_origin(point)} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, SinkType):
        raise UnusableSink(
            f"{_origin(point)} is a {type(found).__name__}, not a flagstream.sinks.registry.SinkType"
        )
    if found.protocol != PROTOCOL:
        raise UnusableSink(
            f"{_origin(point)} is written for version {found.protocol} of the sink protocol, and this worker "
            f"has version {PROTOCOL}; install releases of both that agree"
        )
    field = found.settings.model_fields.get("type")
    if field is None or field.default != kind:
        raise UnusableSink(f'{_origin(point)}: its settings must have type: Literal["{kind}"] = "{kind}"')
    return found


def _origin(point: EntryPoint) -> str:
    distribution = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.value}{distribution}"
