"""What can be set for Google Cloud Storage.

The store itself is in :mod:`flagstream.sinks.objects.gcs.store`, which loads Google's library (0.7 s). It is
imported only where the sink is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from flagstream.sinks.objects.places import NameLimits
from flagstream.sinks.objects.places import bucket as in_bucket
from flagstream.sinks.objects.settings import ObjectSettings
from flagstream.sinks.objects.store_values import (
    GCS_CLASSES,
    ContentEncoding,
    ContentType,
    GcsBucket,
    KmsKeyName,
    Prefix,
    Project,
    StorageClass,
    class_problem,
    endpoint_of,
)
from flagstream.sinks.objects.variables import GOOGLE, GOOGLE_CREDENTIALS, PROXIES, malformed
from flagstream.units import MIB, Bytes, Seconds, wrong

CHUNK_UNIT = 256 * 1024
"""A piece of a resumable upload is a multiple of this, says the protocol."""


@dataclass(frozen=True, slots=True)
class GcsAccess:
    """How to reach a store, and as whom. Google's library finds out what is empty here."""

    endpoint: str = ""
    credentials_file: Path | None = None
    anonymous: bool = False
    project: str = ""

    def variable_problems(self) -> Iterator[str]:
        """Satisfies :meth:`flagstream.sinks.settings.SinkSettings.variable_problems`."""
        own = self.anonymous or self.credentials_file is not None
        yield from malformed((*(() if own else GOOGLE_CREDENTIALS), *GOOGLE, *PROXIES))


def _in_units(count: int) -> int:
    if count % CHUNK_UNIT:
        raise wrong(f"{count} bytes is not a multiple of 256KiB; write 256KiB, 8MiB or 64MiB")
    return count


class GcsSettings(ObjectSettings):
    """Settings of a Google Cloud Storage sink."""

    keeps_manifests: ClassVar[bool] = True

    type: Literal["gcs"] = Field(default="gcs", description="Objects in a bucket of Google Cloud Storage.")
    bucket: GcsBucket = Field(description="The bucket; it has to exist.")
    prefix: Prefix = Field(
        default="",
        description="Put in front of every object's name as it is; end it with / to make it a folder.",
    )
    credentials_file: Path | None = Field(
        default=None,
        description=(
            "Key file of a service account. Without it, application default credentials: workload identity, "
            "GOOGLE_APPLICATION_CREDENTIALS, the machine's own account."
        ),
    )
    anonymous: bool = Field(
        default=False, description="Send no credentials, as emulators want it. Needs endpoint."
    )
    project: Project = Field(
        default="",
        description="The project that pays for the requests to a bucket whose requester pays; else empty.",
    )
    endpoint: Annotated[str, endpoint_of("use credentials_file")] = Field(
        default="", description="Address of an emulator or a private endpoint in place of Google's own."
    )
    storage_class: StorageClass = Field(
        default="", description="Storage class of the objects, such as NEARLINE; the bucket's own when empty."
    )
    kms_key_name: KmsKeyName = Field(
        default="",
        description=(
            "The Cloud KMS key that encrypts the objects: projects/P/locations/L/keyRings/R/cryptoKeys/K. "
            "The bucket's default key when empty."
        ),
    )
    content_type: ContentType = Field(
        default="", description="Content type of the objects; that of the format when empty."
    )
    content_encoding: ContentEncoding = Field(
        default="",
        description=(
            "Content encoding of the objects. None by default: with gzip, Cloud Storage hands gzip files out "
            "decompressed, and their checksums match no longer."
        ),
    )
    chunk_size: Annotated[Bytes, AfterValidator(_in_units)] = Field(
        default=8 * MIB,
        gt=0,
        description=(
            "Objects larger than this are uploaded resumably, in pieces of this size: a multiple of 256KiB. "
            "Each upload under way copies one piece in memory."
        ),
    )
    timeout: Seconds = Field(
        default=60.0,
        gt=0,
        description=(
            "How long a connection may take to be made, and then the store be silent, before it fails."
        ),
    )
    at_least_once: bool = Field(
        default=False,
        description=(
            "Accept a store that ignores ifGenerationMatch: what is delivered again is then stored again. "
            "Cloud Storage honours it; some emulators do not."
        ),
    )

    def access(self) -> GcsAccess:
        """Return how to reach the store."""
        return GcsAccess(self.endpoint, self.credentials_file, self.anonymous, self.project)

    def place(self) -> NameLimits:
        return in_bucket(f"gcs {self.endpoint} {self.bucket}", self.prefix)

    def where(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.anonymous and not self.endpoint:
            yield "anonymous", "only with endpoint: Cloud Storage itself takes no uploads without credentials"
        if self.anonymous and self.credentials_file:
            yield "anonymous", "contradicts credentials_file; leave one of them out"
        if not self.endpoint and (fault := class_problem(self.storage_class, GCS_CLASSES)):
            yield "storage_class", fault

    def variable_problems(self) -> Iterator[str]:
        return self.access().variable_problems()
