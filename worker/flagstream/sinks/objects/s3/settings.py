"""What can be set for S3 and stores that speak its protocol. The store itself is in
:mod:`flagstream.sinks.objects.s3.store`, which loads Amazon's library only where it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr

from flagstream.sinks.objects.places import NameLimits
from flagstream.sinks.objects.places import bucket as in_bucket
from flagstream.sinks.objects.settings import ObjectSettings
from flagstream.sinks.objects.store_values import (
    S3_CLASSES,
    ContentEncoding,
    ContentType,
    Prefix,
    Region,
    RoleArn,
    S3Bucket,
    StorageClass,
    Tags,
    class_problem,
    endpoint_of,
    endpoint_problem,
)
from flagstream.sinks.objects.variables import AWS, AWS_CREDENTIALS, PROXIES, malformed
from flagstream.units import MIB, Bytes, Line, Seconds

Acl = Literal[
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "",
]
"""The canned ACLs of S3, and none."""

MAX_TAGS = 10
"""Tags that S3 takes on an object."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach a store, and as whom. Amazon's library finds out what is empty here. Seconds."""

    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    profile: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    role_arn: str = ""
    external_id: str = ""
    connect_timeout: float = 5.0
    read_timeout: float = 60.0

    def variable_problems(self) -> Iterator[str]:
        """Satisfies :meth:`flagstream.sinks.settings.SinkSettings.variable_problems`."""
        own = bool(self.access_key or self.profile)
        names = (*(() if own else AWS_CREDENTIALS), *AWS, *PROXIES)
        # Amazon's library asks the endpoint of the configuration, and STS at its own.
        unread = {"AWS_ENDPOINT_URL_S3", "" if self.role_arn else "AWS_ENDPOINT_URL"} if self.endpoint else ()
        yield from malformed(name for name in names if name not in unread)


class S3Settings(ObjectSettings):
    """Settings of an S3 sink."""

    keeps_manifests: ClassVar[bool] = True

    type: Literal["s3"] = Field(
        default="s3", description="Objects in S3 or a store that speaks its protocol."
    )
    bucket: S3Bucket = Field(min_length=1, description="The bucket; it has to exist.")
    prefix: Prefix = Field(
        default="",
        description="Put in front of every object's name as it is; end it with / to make it a folder.",
    )
    endpoint: Annotated[str, endpoint_of("write them as access_key and secret_key")] = Field(
        default="",
        description=(
            "Address of another store than Amazon's: MinIO, SeaweedFS, Cloudflare R2, or a private endpoint."
        ),
    )
    region: Region = Field(default="", description="The bucket's region; that of the environment when empty.")
    path_style: bool = Field(
        default=False,
        description="Name the bucket in the path and not in the host, as most stores but Amazon's want it.",
    )
    profile: Line = Field(default="", description="Profile of the AWS configuration file to take.")
    access_key: Line = Field(
        default="",
        description=(
            "Access key id. Without it, the default chain: environment, profile, web identity, the "
            "container's or machine's own role."
        ),
    )
    secret_key: SecretStr = Field(default=SecretStr(""), description="The secret that belongs to access_key.")
    role_arn: RoleArn = Field(
        default="", description="Role to assume with these credentials; renewed before it expires."
    )
    external_id: Line = Field(default="", description="External id that the role's owner asks for.")
    encryption: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = Field(
        default="", description="Server-side encryption of the objects; the bucket's own when empty."
    )
    kms_key_id: Line = Field(
        default="", description="The KMS key for the encryption; the account's default key when empty."
    )
    storage_class: StorageClass = Field(
        default="",
        description="Storage class of the objects, such as STANDARD_IA; the bucket's own when empty.",
    )
    acl: Acl = Field(
        default="", description="Canned ACL of the objects; none when empty, as buckets without ACLs need it."
    )
    tags: Tags = Field(
        default={}, max_length=MAX_TAGS, description="Tags of the objects, ten at most: S3's own limit."
    )
    content_type: ContentType = Field(
        default="", description="Content type of the objects; that of the format when empty."
    )
    content_encoding: ContentEncoding = Field(
        default="",
        description=(
            "Content encoding of the objects. None by default: with gzip, browsers and some libraries "
            "decompress what they download."
        ),
    )
    part_size: Bytes = Field(
        default=8 * MIB,
        ge=5 * MIB,
        le=5 * 1024 * MIB,
        description=(
            "Objects larger than this are uploaded in parts of this size, 5MiB at least, as S3 wants it. "
            "Each upload under way copies one part in memory."
        ),
    )
    connect_timeout: Seconds = Field(
        default=5.0, gt=0, description="How long a connection may take to be made before the request fails."
    )
    read_timeout: Seconds = Field(
        default=60.0, gt=0, description="How long the store may be silent before the request fails."
    )
    at_least_once: bool = Field(
        default=False,
        description=(
            "Accept a store that ignores If-None-Match: the worker then looks before it writes, and two "
            "writers at the same moment both write. S3, MinIO, SeaweedFS and R2 honour it."
        ),
    )

    def access(self) -> S3Access:
        """Return how to reach the store."""
        return S3Access(
            endpoint=self.endpoint,
            region=self.region,
            path_style=self.path_style,
            profile=self.profile,
            access_key=self.access_key,
            secret_key=self.secret_key.get_secret_value(),
            role_arn=self.role_arn,
            external_id=self.external_id,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
        )

    def place(self) -> NameLimits:
        return in_bucket(f"s3 {self.endpoint} {self.bucket}", self.prefix)

    def where(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if bool(self.access_key) != bool(self.secret_key.get_secret_value()):
            yield "access_key", "access_key and secret_key go together; set both or none"
        if self.access_key and self.profile:
            yield "profile", "contradicts access_key; leave one of them out"
        if fault := endpoint_problem(self.endpoint, self.bucket):
            yield "endpoint", fault
        if self.external_id and not self.role_arn:
            yield "external_id", "belongs to role_arn, which is not set"
        if self.kms_key_id and not self.encryption.startswith("aws:kms"):
            yield "kms_key_id", 'only with encryption = "aws:kms" or "aws:kms:dsse"'
        if not self.endpoint and (fault := class_problem(self.storage_class, S3_CLASSES)):
            yield "storage_class", fault

    def variable_problems(self) -> Iterator[str]:
        return self.access().variable_problems()
