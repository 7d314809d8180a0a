"""Which network addresses a webhook may reach: by default only those of the public internet. Pure.

A manifest comes from a stranger, and the notifier stands inside the operator's network: without this rule a webhook
would reach what only the inside may reach (a cloud's metadata service, a database's HTTP port, the notifier's host).
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

#: Where an IPv6 address can be at all public (IANA: global unicast).
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Tunnels whose far end the address does not tell: Teredo (RFC 4380), ORCHID (RFC 7343), benchmarks (RFC 5180).
_OPAQUE = (IPv6Network("2001::/23"),)


def is_public(host: str) -> bool:
    """Say whether the numeric address `host` (an IPv6 one may have a `%zone`) belongs to the public internet.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64) is judged by that. Raises ValueError for a name.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is None:
            return _is_public_v6(address)
        address = carried
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not any(address in network for network in _OPAQUE)
