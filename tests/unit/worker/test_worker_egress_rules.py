"""What the policy `egress` lets through, read off the ruleset as nft(8) would apply it."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret_worker.qemu.network import deny, own_addresses, ruleset

HOST = (IPv4Address("93.184.216.34"), IPv6Address("2606:2800::1"))


def let_through(address: IPv4Address | IPv6Address) -> bool:
    """What becomes of a TCP packet to `address`, by the ruleset's own words and order."""
    text = ruleset(HOST)
    sets = {f"@host{one.version}": str(one) for one in HOST}
    for line in text.splitlines():
        if "policy" in line or "icmpv6" in line or 'oif "lo"' in line:
            continue
        if line.strip() == "jump denied":
            return False
        if "nfproto ipv4 accept" in line and address.version == 4:
            return True
        match = re.fullmatch(r"\s+(ip6?) daddr (@host\d|\{.*\}|\S+) (jump denied|accept)", line)
        if match is None or (match[1] == "ip") is not (address.version == 4):
            continue
        networks = sets.get(match[2], match[2]).strip("{} ").split(", ")
        if any(address in ip_network(network) for network in networks):
            return match[3] == "accept"
    raise AssertionError("the ruleset has no end")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.2.2", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255", "192.168.0.1",
        "192.0.0.1", "192.0.0.170", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.251", "255.255.255.255",
        "::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "3fff::1", "5f00::1", "fc00::1",
        "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::fb", *map(str, HOST),
    ],
)  # fmt: skip
def test_what_is_special_or_the_hosts_own_is_denied(address: str) -> None:
    assert not let_through(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.35", "192.0.0.3", "2606:4700::1111", "64:ff9b::808:808"])
def test_what_is_reachable_from_anywhere_is_let_through(address: str) -> None:
    assert let_through(ip_address(address))


# Anycast services of the IETF, which no build needs.
_UNUSED = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23")))


@given(st.ip_addresses())
def test_python_agrees_about_what_is_global(address: IPv4Address | IPv6Address) -> None:
    if any(address in network for network in _UNUSED) or address in HOST:
        return
    if isinstance(address, IPv6Address) and (address.sixtofour or not address.is_global):
        assert not let_through(address) or address in ip_network("64:ff9b::/96")
    elif isinstance(address, IPv4Address):
        assert let_through(address) is (address.is_global and not address.is_multicast)


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 192.168.7.0/24 2 0 2
           |-- 192.168.7.0
              /24 link UNICAST
           |-- 192.168.7.42
              /32 host LOCAL
        |-- 192.168.7.255
           /32 link BROADCAST
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000042 02 40 00 00     eth0
"""


def test_the_hosts_own_addresses_are_read_from_proc() -> None:
    expected = {ip_address(one) for one in ("127.0.0.1", "192.168.7.42", "::1", "2001:db8::42")}
    assert own_addresses(FIB_TRIE, IF_INET6) == expected
    assert own_addresses(FIB_TRIE, "") == {one for one in expected if one.version == 4}


def test_an_address_that_the_host_gets_later_is_added() -> None:
    added = deny([IPv4Address("93.184.216.36"), IPv6Address("2606::2")])
    assert added == "add element inet leveret host4 { 93.184.216.36 }\nadd element inet leveret host6 { 2606::2 }\n"
