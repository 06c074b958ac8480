"""The settings of every sink of objects; each kind of store adds its own in a subclass."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from flagstream.chunk import Partition
from flagstream.formats.compression import Compression, TextCompression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.protocol import Format
from flagstream.sinks.objects.layouts import Layout
from flagstream.sinks.objects.names import DEFAULT_NAME, NameTemplate, ObjectName
from flagstream.sinks.objects.overlap import overlap
from flagstream.sinks.objects.places import NameLimits
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Count, wrong

LAST_PARTITION = 2**31 - 1
"""The largest number that Kafka gives a partition: none has a longer name."""

INDEX_NAME = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json"
"""Template of an index object's name below ``_index/``."""

FormatName = Literal["jsonl", "csv", "avro", "parquet"]
CompressionName = Literal["auto", "none", "gzip", "zstd", "snappy", "lz4"]

_COMPRESSIONS: dict[FormatName, tuple[CompressionName, ...]] = {
    "jsonl": ("gzip", "none", "zstd"),
    "csv": ("gzip", "none", "zstd"),
    "avro": ("gzip", "none", "zstd", "snappy"),
    "parquet": ("snappy", "none", "gzip", "zstd", "lz4"),
}
"""The compressions of each format, its default first."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise wrong(f'"{name}" is not a time zone; write UTC, Europe/Berlin and so on') from error
    return name


def _csv(text: str) -> str:
    try:
        CsvFormat(text, Compression("none", 1))
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


class ObjectSettings(SinkSettings):
    """Settings of a sink of objects."""

    keeps_manifests: ClassVar[bool] = False
    """Whether the store keeps an object's manifest beside it and compares that, so that the object needs
    none inside.
    """

    name: ObjectName = Field(
        default=DEFAULT_NAME,
        description=(
            "Template of an object's name. Must contain Topic, Partition, Start and End; further Extension, "
            'Format, {{ .Time "%Y-%m-%d" }} (the first event\'s), and fields of events, by which a window '
            'becomes several objects: {{ .EventTime "%H" }}, Key, ContextKind, Source and so on.'
        ),
    )
    format: FormatName = Field(
        default="jsonl", description="JSON lines, CSV, Avro or Parquet (needs the extra parquet)."
    )
    compression: CompressionName = Field(
        default="auto",
        description=(
            'How objects are compressed. "auto" is gzip, for Parquet snappy. JSON lines and CSV: none, gzip, '
            "zstd; Avro these and snappy; Parquet these, snappy and lz4."
        ),
    )
    compression_level: Count = Field(
        default=3,
        ge=1,
        le=19,
        description=(
            "From fast to small; gzip knows 1 to 9. With gzip 3 takes no more time than 1 and stores a tenth "
            "less; 6 stores a tenth to a fifth less again, in two to three times the time. JSON lines and "
            "CSV only."
        ),
    )
    csv_template: Annotated[str, AfterValidator(_csv)] = Field(
        default=DEFAULT_TEMPLATE,
        description=(
            "A row, in GO Feature Flag's syntax. The default has no place for tracking events, which then "
            'become dead letters; leave them out with events = "feature".'
        ),
    )
    event_ids: bool = Field(
        default=False,
        description=(
            "Give each event an id, topic-partition-offset of the output topic: the same on every try. An "
            "event with an id of its own keeps it."
        ),
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Zone of the times in names."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        known = _COMPRESSIONS[self.format]
        if self.compression not in ("auto", *known):
            yield (
                "compression",
                f'"{self.compression}" is not known to {self.format}; write {", ".join(known)}',
            )
        if self.compression in ("auto", "gzip") and self.compression_level > 9:
            yield "compression_level", "gzip has levels 1 to 9"
        default_level = type(self).model_fields["compression_level"].default
        if self.format in ("avro", "parquet") and self.compression_level != default_level:
            yield "compression_level", f'is not used by format = "{self.format}"; leave it out'
        elif self.compression == "none" and self.compression_level != default_level:
            yield "compression_level", 'is not used with compression = "none"; leave it out'
        if self.format != "csv" and self.csv_template != DEFAULT_TEMPLATE:
            yield (
                "csv_template",
                f'is not used by format = "{self.format}"; write format = "csv", or leave it out',
            )
        if self.format == "parquet":
            try:
                self.make_format()
            except ImportError:
                yield "format", "parquet needs pyarrow: install flagstream[parquet]"

    def place(self) -> NameLimits:
        """Return where the objects are stored and how long their names may be, from the configuration
        alone.
        """
        return NameLimits()

    def where(self) -> str:
        """Return the text that people write before a name to find the object, the prefix included."""
        return ""

    def templates(self) -> Sequence[NameTemplate]:
        """Return the templates of all names of this sink. Raises ImportError if a format's library is
        missing.
        """
        form = self.make_format()
        names = NameTemplate(self.name, form.name, form.extension)
        index = NameTemplate(f"{names.folder}_index/{INDEX_NAME}", "index", "json")
        return (names, index) if names.event_fields else (names,)

    def shares_names(self, other: "ObjectSettings", topic: str) -> bool:
        """Return whether an object of this sink can have the same name, in the same place, as one of
        ``other``.
        """
        here, there = self.place(), other.place()
        if not here.store or here.store != there.store:
            return False
        try:
            return overlap((here.root, self.templates()), (there.root, other.templates()), topic)
        except ImportError:
            return False  # another problem, which another check reports

    def takes_own_index(self, topic: str) -> bool:
        """Return whether an event with a suitable value would give an object the name of its window's
        index.
        """
        try:
            names, *index = self.templates()
        except ImportError:
            return False  # another problem, which another check reports
        return overlap(("", (names,)), ("", index), topic)

    def name_problem(self, topic: str) -> str | None:
        """Return why no object of ``topic`` could ever be stored (its name would be too long); None if it
        can be.
        """
        try:
            form = self.make_format()
        except ImportError:
            return None  # another problem, which another check reports
        names = NameTemplate(self.name, form.name, form.extension)
        layout = Layout(names, form, self.time_zone, self.place())
        return layout.always_too_long(Partition(topic, LAST_PARTITION))

    def make_format(self) -> Format:
        """Return the format. Raises ImportError if its library is missing."""
        kind: Any = _COMPRESSIONS[self.format][0] if self.compression == "auto" else self.compression
        match self.format:
            case "jsonl":
                return JsonLinesFormat(self._text_compression(kind))
            case "csv":
                return CsvFormat(self.csv_template, self._text_compression(kind))
            case "avro":
                from flagstream.formats.avro import AvroFormat

                return AvroFormat("deflate" if kind == "gzip" else kind, self.event_ids)
            case "parquet":
                from flagstream.formats.parquet import ParquetFormat

                return ParquetFormat(self.events, kind, self.event_ids)

    def _text_compression(self, kind: TextCompression) -> Compression:
        return Compression(kind, self.compression_level, described=not self.keeps_manifests)
