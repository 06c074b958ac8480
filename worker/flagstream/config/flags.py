"""Where flags come from, as settings: one file, or any number of sources."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from flagstream.config.section import Section
from flagstream.http import address
from flagstream.sinks.objects.gcs.settings import GcsAccess
from flagstream.sinks.objects.s3.settings import S3Access
from flagstream.sinks.objects.store_values import (
    GcsBucket,
    MaybeRegion,
    RoleArn,
    S3Bucket,
    endpoint_of,
    endpoint_problem,
)
from flagstream.units import MIB, Bytes, Line, Seconds, Written, shown, wrong

Format = Literal["yaml", "json", "toml"]

RELAY_PATH = "/v1/flag/configuration"
"""Where a relay has its flags, after its address."""


def _checked_url(url: SecretStr) -> SecretStr:
    if not address.is_address(url.get_secret_value()):
        raise wrong("is not an address; write https://HOST/PATH")
    if re.search(r"\s", url.get_secret_value()):
        raise wrong("is not an address, as it holds white space; write %20 for a space in a path")
    return url


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token


def _checked_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise wrong("holds a name that HTTP headers cannot have; write letters, digits and -")
        if not value.get_secret_value().isascii():
            raise wrong(f"{name} has a value with characters that headers cannot hold")
    return headers


Url = Annotated[SecretStr, AfterValidator(_checked_url), Written("secret", str)]
"""A URL may hold a token, so of it only scheme, host and path are ever shown."""
Headers = Annotated[dict[str, SecretStr], AfterValidator(_checked_headers), Written("table of secrets", str)]


Endpoint = Annotated[str, endpoint_of("credentials are found as the client library finds them")] | None


def _bare(url: SecretStr) -> str:
    parts = urlsplit(url.get_secret_value())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


class SourceSettings(Section):
    """What all sources of flags share."""

    type: str = Field(description="Which source this is; decides what else can be set here.")
    name: str = Field(
        default="",
        description=(
            "What the source is called in logs, metrics and the cache; by default its place. Needed where "
            "two have the same place, such as two API keys of one relay."
        ),
    )

    def place(self) -> str:
        """Return where the flags are, without anything secret."""
        raise NotImplementedError

    def called(self) -> str:
        """Return the source's name."""
        return self.name or self.place()

    def problems(self) -> Iterator[str]:
        """Mistakes that no single setting shows."""
        return iter(())

    def variable_problems(self) -> Iterator[str]:
        """As :meth:`flagstream.sinks.settings.SinkSettings.variable_problems`."""
        return iter(())


class FetchedSettings(SourceSettings):
    """A source that is asked over a network."""

    timeout: Seconds = Field(
        default=10.0,
        gt=0,
        le=300,
        description=(
            "How long making a connection may take, over all addresses of the host, and then how long the "
            "answer may take; GO Feature Flag's figure."
        ),
    )
    max_bytes: Bytes = Field(
        default=16 * MIB,
        gt=0,
        description="A larger document is refused, before it is read: it would take the worker's memory.",
    )


class FileFlagSettings(SourceSettings):
    """A local file."""

    type: Literal["file"] = Field(description="A local file.")
    path: Path = Field(description="The file.")
    format: Format | None = Field(default=None, description="Absent: by the suffix, else YAML.")

    def place(self) -> str:
        return str(self.path)


class HttpFlagSettings(FetchedSettings):
    """An HTTP(S) address."""

    type: Literal["http"] = Field(description="An HTTP(S) address, asked with If-None-Match and -Modified.")
    url: Url = Field(description="The address. Only scheme, host and path are ever shown.")
    headers: Headers = Field(
        default_factory=dict, description="Sent with each request, such as Authorization. Never shown."
    )
    format: Format | None = Field(
        default=None, description="Absent: by the content type, else the suffix of the path, else YAML."
    )

    def place(self) -> str:
        return _bare(self.url)

    def problems(self) -> Iterator[str]:
        if re.match(r"https?://(www\.)?git(hub|lab)\.com/.*/blob/", self.url.get_secret_value()):
            yield (
                "url is a page about the file; write the address of the raw file, which begins with "
                "https://raw.githubusercontent.com/ or has /raw/ in place of /blob/"
            )


class S3FlagSettings(FetchedSettings):
    """An object in S3."""

    type: Literal["s3"] = Field(description="An object in S3, or in a store that speaks its protocol.")
    bucket: S3Bucket = Field(min_length=1, description="The bucket.")
    key: Line = Field(min_length=1, description="The object's key.")
    endpoint: Endpoint = Field(default=None, description="Address of a store other than AWS.")
    region: MaybeRegion = Field(default=None, description="Absent: as the AWS SDK finds it.")
    profile: str | None = Field(
        default=None, description="A profile of ~/.aws; absent: credentials as the AWS SDK finds them."
    )
    role_arn: RoleArn = Field(
        default="", description="Role to assume with these credentials; renewed before it expires."
    )
    external_id: Line = Field(default="", description="External id that the role's owner asks for.")
    path_style: bool = Field(
        default=False, description="The bucket in the path, not in the host's name; many stores need it."
    )
    format: Format | None = Field(
        default=None, description="Absent: by the content type, else the suffix of the key, else YAML."
    )

    def place(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def access(self) -> S3Access:
        """How the store is reached."""
        return S3Access(
            endpoint=self.endpoint or "",
            region=self.region or "",
            path_style=self.path_style,
            profile=self.profile or "",
            role_arn=self.role_arn,
            external_id=self.external_id,
            connect_timeout=self.timeout,
            read_timeout=self.timeout,
        )

    def problems(self) -> Iterator[str]:
        if fault := endpoint_problem(self.endpoint or "", self.bucket):
            yield f"endpoint {fault}"
        if self.external_id and not self.role_arn:
            yield "external_id belongs to role_arn, which is not set"

    def variable_problems(self) -> Iterator[str]:
        return self.access().variable_problems()


class GcsFlagSettings(FetchedSettings):
    """An object in Google Cloud Storage."""

    type: Literal["gcs"] = Field(description="An object in Google Cloud Storage.")
    bucket: GcsBucket = Field(min_length=1, description="The bucket.")
    object: Line = Field(min_length=1, description="The object's name.")
    endpoint: Endpoint = Field(default=None, description="Address of an emulator.")
    credentials: Path | None = Field(
        default=None, description="File of a service account; absent: application default credentials."
    )
    anonymous: bool = Field(default=False, description="No credentials: public objects and emulators.")
    format: Format | None = Field(
        default=None, description="Absent: by the content type, else the suffix of the name, else YAML."
    )

    def place(self) -> str:
        return f"gs://{self.bucket}/{self.object}"

    def access(self) -> GcsAccess:
        """How the store is reached."""
        return GcsAccess(self.endpoint or "", self.credentials, self.anonymous)

    def problems(self) -> Iterator[str]:
        if self.anonymous and self.credentials:
            yield "anonymous contradicts credentials; leave one of them out"

    def variable_problems(self) -> Iterator[str]:
        return self.access().variable_problems()


class RelayFlagSettings(FetchedSettings):
    """A GO Feature Flag relay."""

    type: Literal["relay"] = Field(description="A GO Feature Flag relay: POST /v1/flag/configuration.")
    url: Url = Field(description="The relay's address, without a path unless it has a prefix.")
    api_key: SecretStr | None = Field(
        default=None, description="Sent as X-API-Key; chooses the flag set where the relay has several."
    )
    flags: Annotated[list[str], Written("list of names", str)] = Field(
        default_factory=list, description="Only these flags; empty: all."
    )

    def place(self) -> str:
        return _bare(self.url)

    def problems(self) -> Iterator[str]:
        if urlsplit(self.url.get_secret_value()).path.rstrip("/").endswith(RELAY_PATH):
            yield f"url is the relay's address; leave out {RELAY_PATH}, which is added to it"


def _numbered(sources: object) -> object:
    """Environment variables number the sources, from 0 on: FLAGSTREAM_FLAGS__SOURCES__0__API_KEY."""
    if isinstance(sources, dict) and set(sources) == {str(number) for number in range(len(sources))}:
        return [sources[str(number)] for number in range(len(sources))]
    if isinstance(sources, dict) and sources and all(key.isdecimal() for key in sources):
        raise wrong("has numbers that do not go from 0 on without a gap: FLAGSTREAM_FLAGS__SOURCES__0__TYPE")
    return sources


SourceUnion = FileFlagSettings | HttpFlagSettings | S3FlagSettings | GcsFlagSettings | RelayFlagSettings
SOURCES: Final[Mapping[str, type[SourceSettings]]] = {
    "file": FileFlagSettings,
    "http": HttpFlagSettings,
    "s3": S3FlagSettings,
    "gcs": GcsFlagSettings,
    "relay": RelayFlagSettings,
}


class FlagSettings(Section):
    """Where the flag configuration comes from."""

    path: Path | None = Field(
        default=None,
        description=(
            "File with the flags; this or flags.sources is needed where the enrich stage runs. Re-read when "
            "it changes; replace it by renaming a complete file into its place."
        ),
    )
    format: Format | None = Field(
        default=None, description="Format of the file; absent: by its suffix (.yaml, .yml, .json, .toml)."
    )
    sources: Annotated[
        list[Annotated[SourceUnion, Field(discriminator="type")]],
        BeforeValidator(_numbered),
        Written("list of tables", str),
    ] = Field(
        default_factory=list,
        description=(
            "More sources, merged after the file in this order; of a flag that several have, the last one "
            "counts. Each is a table [[flags.sources]]."
        ),
    )
    poll_interval: Seconds = Field(
        default=10.0,
        gt=0,
        description="How often each source is looked at for a change, a tenth more or less by chance.",
    )
    cache_path: Path | None = Field(
        default=None,
        description=(
            "File in which the flags last read are kept. They stand in for a source that does not answer "
            "when the worker starts, which otherwise waits for it."
        ),
    )

    def all_sources(self) -> Iterator[SourceUnion]:
        """The file of the simple case, then the others: the order in which they are merged."""
        if self.path is not None:
            yield FileFlagSettings(type="file", path=self.path, format=self.format)
        yield from self.sources

    def problems(self) -> Iterator[tuple[str, str]]:
        """Mistakes in how sources go together, each with the key that it belongs to."""
        seen = set()
        for source in self.all_sources():
            if source.called() in seen:
                yield (
                    "sources",
                    f"{shown(source.called())} is there twice; give each source a name of its own",
                )
            seen.add(source.called())
            for problem in source.problems():
                yield "sources", f"{shown(source.called())}: {problem}"
