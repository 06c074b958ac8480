"""Try a sink before a worker runs: its permissions, its names, and a record as it exports it."""

from collections.abc import Iterator
from dataclasses import dataclass

from flagstream.chunk import Headers, Partition
from flagstream.outcomes import Proof
from flagstream.sinks.protocol import Preview
from flagstream.sinks.registry import build
from flagstream.sinks.settings import SinkSettings
from flagstream.window import ContentDigest, Manifest, OffsetRange

FEATURE = (
    b'{"kind":"feature","contextKind":"user","userKey":"94a25909-20d8-40cc-8500-fee99b569345",'
    b'"creationDate":1795350615,"key":"new-checkout","variation":"on","value":true,"default":false,'
    b'"version":"1.4","source":"SERVER","metadata":{"environment":"production"}}'
)
TRACKING = (
    b'{"kind":"tracking","contextKind":"user","userKey":"94a25909-20d8-40cc-8500-fee99b569345",'
    b'"creationDate":1795350617,"key":"order-placed","evaluationContext":{"targetingKey":'
    b'"94a25909-20d8-40cc-8500-fee99b569345"},"trackingEventDetails":{"value":99.77}}'
)
FIRST_OFFSET = 120_000
"""The offset of the first sample record."""


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """Stands for a record of the output topic that nobody produced."""

    at: int
    content: bytes

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"94a25909-20d8-40cc-8500-fee99b569345"

    def value(self) -> bytes:
        return self.content

    def headers(self) -> Headers:
        return []

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_795_350_615_000)


def probe(settings: SinkSettings) -> Iterator[Proof]:
    """Yield what the sink of these settings may do at its destination. It tries, and leaves nothing there."""
    return build(settings).probe()


def render(topic: str, settings: SinkSettings) -> Iterator[Preview]:
    """Yield how the sink would store one window after the other, each with one sample event, of every kind
    that it exports.
    """
    samples = {"both": (FEATURE, TRACKING), "feature": (FEATURE,), "tracking": (TRACKING,)}
    for offset, value in enumerate(samples[settings.events], FIRST_OFFSET):
        yield _preview(Partition(topic, 0), settings, offset, value)


def _preview(partition: Partition, settings: SinkSettings, offset: int, value: bytes) -> Preview:
    sink = build(settings)
    encoder = sink.begin(partition, offset)
    if rejects := encoder.add([value], [SampleRecord(offset, value)]):
        return Preview((), f"a dead letter of this sink: {rejects[0].error}")
    digest = ContentDigest()
    digest.update([value])
    manifest = Manifest(OffsetRange(partition, offset, offset + 1), 1, digest.hexdigest(), sink.fingerprint)
    return sink.preview(manifest, encoder.finish(manifest))
