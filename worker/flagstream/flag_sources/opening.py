"""Makes sources from settings. A client library is imported only if a source needs it."""

from collections.abc import Callable, Iterator
from itertools import islice

from flagstream.config.flags import (
    FileFlagSettings,
    FlagSettings,
    GcsFlagSettings,
    HttpFlagSettings,
    RelayFlagSettings,
    S3FlagSettings,
    SourceUnion,
)
from flagstream.flag_sources import FlagLocation
from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.file import FileLocation
from flagstream.flag_sources.kept import KeptFlags
from flagstream.flag_sources.watching import EXPORTED, LONGEST_NAME, MOST_NAMED, FlagWatch, words
from flagstream.flags import FlagSet
from flagstream.outcomes import Proof


def watch(settings: FlagSettings, use: Callable[[FlagSet], None]) -> FlagWatch:
    """Return the watch over all sources. It touches none of them yet."""
    cache = FlagCache(settings.cache_path) if settings.cache_path is not None else None
    return FlagWatch(_sources(settings), settings.poll_interval, use, cache)


def probe(settings: FlagSettings) -> Iterator[Proof]:
    """Yield whether each source can be read, by reading it once. ``flagstream check`` calls it. It raises
    nothing.
    """
    for source in _sources(settings):
        try:
            flags = source.load()
        except Exception as error:  # whatever a client library raises
            yield Proof("flags", "failed", words(error))
            continue
        named = islice(flags.invalid.items(), MOST_NAMED)
        faults = "; ".join(f"{name[:LONGEST_NAME]} {why}" for name, why in named)
        invalid = f"; {len(flags.invalid)} with mistakes, {EXPORTED}: {faults}" if faults else ""
        yield Proof("flags", "proved", f"{len(flags)} from {source.name}{invalid}")


def _sources(settings: FlagSettings) -> list[KeptFlags]:
    return [KeptFlags(source.called(), place(source)) for source in settings.all_sources()]


def place(settings: SourceUnion) -> FlagLocation:
    """Return the location of one source's flags."""
    match settings:
        case FileFlagSettings():
            return FileLocation(settings.path, settings.format)
        case HttpFlagSettings():
            from flagstream.flag_sources.http import HttpLocation

            return HttpLocation(settings)
        case S3FlagSettings():
            from flagstream.flag_sources.s3 import S3Location

            return S3Location(settings)
        case GcsFlagSettings():
            from flagstream.flag_sources.gcs import GcsLocation

            return GcsLocation(settings)
        case RelayFlagSettings():
            from flagstream.flag_sources.relay import RelayLocation

            return RelayLocation(settings)
