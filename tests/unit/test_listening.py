"""The web server listens where the settings say."""

import pytest

from flagstream import faust_app


def test_a_star_is_every_family_that_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6 refuses its addresses, and IPv4 is served all the same; and the reverse."""
    monkeypatch.setattr(faust_app, "_can_bind", lambda address: True)
    assert faust_app.addresses_of("*") == ["0.0.0.0", "::"]
    monkeypatch.setattr(faust_app, "_can_bind", lambda address: address != "::")
    assert faust_app.addresses_of("*") == ["0.0.0.0"]
    monkeypatch.setattr(faust_app, "_can_bind", lambda address: address == "::")
    assert faust_app.addresses_of("*") == ["::"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::", "localhost"])
def test_any_other_host_is_taken_as_it_is(address: str) -> None:
    """The host may be an address or a name."""
    assert faust_app.addresses_of(address) == [address]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1"], ["::"], ["localhost"], ["0.0.0.0", "::"]])
def test_port_0_is_a_free_one_at_every_kind_of_address(addresses: list[str]) -> None:
    """It is free also at those of IPv6; where the machine has none, that is an error."""
    if not faust_app._can_bind(addresses[0]):
        with pytest.raises(OSError):
            faust_app.free_port(addresses)
    else:
        assert 0 < faust_app.free_port(addresses) < 65536
