"""Flags come from Google Cloud Storage, on fake-gcs-server."""

from flagstream.config.flags import GcsFlagSettings
from flagstream.flag_sources.gcs import GcsLocation
from flagstream.flag_sources.kept import KeptFlags
from tests.contract.test_flag_sources import A, B
from tests.support.fake_gcs import FakeGcs


def test_an_object_is_read_again_only_when_it_changed(gcs: FakeGcs, gcs_bucket: str) -> None:
    """A change is seen by the object's generation."""
    settings = GcsFlagSettings(
        type="gcs", bucket=gcs_bucket, object="p/f.yaml", endpoint=gcs.url, anonymous=True
    )
    place = GcsLocation(settings)
    source = KeptFlags(settings.called(), place)
    gcs.put(gcs_bucket, "p/f.yaml", A)
    assert list(source.load()) == ["a"]
    assert place.fetch(unconditional=False) is None
    gcs.put(gcs_bucket, "p/f.yaml", B)
    assert list(source.poll() or ()) == ["b"]
