"""The names of this checkout. When a module moves, its import here moves with it, and nothing else does."""

from flagstream import __version__
from flagstream.chunk import Partition
from flagstream.dead_letters import dead_letter, fit
from flagstream.formats.manifest import manifest_json, parse_manifest
from flagstream.kafka.commit_metadata import Committed, Division, GroupStart, MetadataUnreadable, Plan
from flagstream.sinks.log import LogSink
from flagstream.sinks.registry import SINKS, build
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.window import ContentDigest, Manifest, OffsetRange
from tests.golden.product import Product

TODAY = Product(
    version=__version__,
    Partition=Partition,
    OffsetRange=OffsetRange,
    Manifest=Manifest,
    ContentDigest=ContentDigest,
    manifest_json=manifest_json,
    parse_manifest=parse_manifest,
    Committed=Committed,
    Plan=Plan,
    Division=Division,
    GroupStart=GroupStart,
    MetadataUnreadable=MetadataUnreadable,
    dead_letter=dead_letter,
    fit=fit,
    SINKS=SINKS,
    build=build,
    LogSink=LogSink,
    WebhookSink=WebhookSink,
)
