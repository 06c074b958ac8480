"""What the proof exports to: a sink's configuration, and where the checker finds what it stored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.chaos.archive import Archive, Hive, OneObject
from tests.chaos.contents import GzipLines, ParquetRows
from tests.chaos.stores import Folder, GcsBucket, S3Bucket
from tests.support import seaweed
from tests.support.fake_gcs import FakeGcs

SinkName = Literal["file", "s3", "gcs", "parquet-hive"]


@dataclass(frozen=True)
class Destination:
    """`section` is what stands in the sink's section of the configuration, as TOML."""

    section: str
    archive: Archive


@contextmanager
def destination(name: SinkName, folder: Path) -> Iterator[Destination]:
    """Files are below `folder`; servers live as long as the `with`."""
    match name:
        case "file":
            yield Destination(_section(type="file", path=str(folder)), OneObject(Folder(folder), GzipLines()))
        case "parquet-hive":
            section = _section(type="file", path=str(folder), format="parquet", name=Hive.TEMPLATE)
            yield Destination(section, Hive(Folder(folder), ParquetRows()))
        case "s3":
            with seaweed.SeaweedFs() as server:
                yield _s3(server.folder())
        case "gcs":
            with FakeGcs() as google:
                yield _gcs(google)


def _s3(place: seaweed.Folder) -> Destination:
    section = _section(
        type="s3",
        bucket=place.bucket,
        prefix=place.prefix,
        endpoint=place.url,
        path_style=True,
        region="us-east-1",
        access_key=seaweed.ACCESS_KEY,
        secret_key=seaweed.SECRET_KEY,
    )
    return Destination(section, OneObject(S3Bucket(place.client, place.bucket, place.prefix), GzipLines()))


def _gcs(server: FakeGcs) -> Destination:
    bucket = server.create_bucket("proof")
    client = storage.Client(
        project="test",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": server.url},
    )
    section = _section(type="gcs", bucket=bucket, endpoint=server.url, anonymous=True)
    return Destination(section, OneObject(GcsBucket(client.bucket(bucket)), GzipLines()))


def _section(**settings: str | bool) -> str:
    return "\n".join(f"{name} = {_toml(value)}" for name, value in settings.items())


def _toml(value: str | bool) -> str:
    # a literal string: the templates have quotes, and nothing here has an apostrophe
    return str(value).lower() if isinstance(value, bool) else f"'{value}'"
