"""What the network policy `egress` leads to, as a filter of packets. Pure: `egress` puts it into a network namespace.

Only what IANA's special-purpose address registries (RFC 6890) call globally reachable is reached, and of that not the
host itself. Routes and routing rules would not do: for a socket that is bound to an interface, Linux takes an IPv4
address without a route to be on the link (ip_route_output_key), and a QEMU that was taken over can bind one.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Addresses = Iterable[IPv4Address | IPv6Address]

LINK4 = IPv4Network("192.0.0.0/29")
"""Between the namespace and pasta (RFC 7335: the IPv4 service continuity prefix, routed nowhere)."""
ADDRESS4, GATEWAY4, RESOLVER4 = IPv4Address("192.0.0.2"), IPv4Address("192.0.0.1"), IPv4Address("192.0.0.3")
ADDRESS6, GATEWAY6 = IPv6Address("2001:2::2"), IPv6Address("fe80::1")

DENIED4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared with the provider (RFC 6598)
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local; clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocols
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
        ),
    )
)
GLOBAL6 = IPv6Network("2000::/3")
"""What of IPv6 is global unicast: all else is denied, loopback, mapped, unique local, link-local and multicast."""
NAT64 = IPv6Network("64:ff9b::/96")
"""Stands for IPv4 on networks that have IPv6 alone (RFC 6052): denied as the IPv4 addresses in it are."""
DENIED6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: any IPv4 address is in it
            "3fff::/20",  # documentation
        ),
    )
)

_NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert"


def ruleset(host: Addresses) -> str:
    """The filter, as nft(8) reads it; `host`: the host's own addresses. What is denied is told so at once."""
    embedded = (IPv6Network((int(NAT64[0]) | int(net[0]), NAT64.prefixlen + net.prefixlen)) for net in DENIED4)
    return f"""\
table inet leveret {{
  set host4 {{ type ipv4_addr; }}
  set host6 {{ type ipv6_addr; }}
  chain out {{
    type filter hook output priority filter; policy drop;
    oif "lo" accept
    ip daddr {RESOLVER4} accept
    ip daddr @host4 jump denied
    ip6 daddr @host6 jump denied
    ip daddr {{ {_joined(DENIED4)} }} jump denied
    ip6 daddr {{ {_joined((*DENIED6, *embedded))} }} jump denied
    meta nfproto ipv4 accept
    ip6 daddr {{ {GLOBAL6}, {NAT64} }} accept
    icmpv6 type {{ {_NEIGHBOURS} }} accept
    jump denied
  }}
  chain denied {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }}
}}
{deny(host)}"""


def deny(host: Addresses) -> str:
    """What adds addresses of the host to those that the filter denies."""
    addresses = sorted(host, key=lambda address: (address.version, int(address)))
    return "".join(f"add element inet leveret host{one.version} {{ {one} }}\n" for one in addresses)


def own_addresses(fib_trie: str, if_inet6: str) -> frozenset[IPv4Address | IPv6Address]:
    """A host's own addresses.

    Args:
        fib_trie: the text of `/proc/net/fib_trie`; an address stands in the line before its `/32 host LOCAL`.
        if_inet6: the text of `/proc/net/if_inet6`, empty where there is no IPv6.
    """
    found: set[IPv4Address | IPv6Address] = set()
    last = ""
    for line in map(str.strip, fib_trie.splitlines()):
        if line.startswith(("|--", "+--")):
            last = line[3:].strip()
        elif line == "/32 host LOCAL":
            found.add(IPv4Address(last))
    found.update(ip_address(bytes.fromhex(line[:32])) for line in if_inet6.splitlines())
    return frozenset(found)


def _joined(networks: Iterable[object]) -> str:
    return ", ".join(map(str, networks))
