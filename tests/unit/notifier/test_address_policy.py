"""Which addresses a webhook may reach."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_notifier.address_policy import is_public

REFUSED = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "2001:db8::1", "2001::1", "100::1", "64:ff9b:1::1", "2600::1%eth0",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2002:a00:1::1",
]  # fmt: skip
ALLOWED = [
    "1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "193.0.0.1",
    "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("host", REFUSED)
def test_addresses_of_the_inside_are_refused(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ALLOWED)
def test_addresses_of_the_internet_are_allowed(host: str) -> None:
    assert is_public(host)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_ipv6_dress(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    dressed = [(0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | number << 80]
    for each in dressed:
        assert is_public(str(ipaddress.IPv6Address(each))) == is_public(str(address))


def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="localhost"):
        is_public("localhost")
