"""Which IP addresses a webhook may reach: our own table, because the standard library's answers change. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, ECS and EKS metadata
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure, and it looks public
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google
    )
)
"""What tells a cloud machine its credentials: no list of an admin opens these."""

_REFUSED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this machine"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a carrier's own network"),
        ("127.0.0.0/8", "this machine"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "this machine"),
        ("::1/128", "this machine"),
        ("::/96", "an old form of an IPv4 address"),
        ("::ffff:0:0:0/96", "a translated IPv4 address"),
        ("64:ff9b::/96", "a translated IPv4 address"),
        ("64:ff9b:1::/48", "a translated IPv4 address"),
        ("100::/64", "discarded"),
        ("100:0:0:1::/64", "discarded"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a tunnelled IPv4 address"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "a private network"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_EMBEDDING: Final = tuple(
    IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
"""Their last 32 bits are an IPv4 address."""
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an admin opened with M_WEBHOOK_ALLOW: networks, and hosts by name (`*.corp.example` for all below it)."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Allowed:
        """Of entries that `entry_problem` finds good."""
        networks, hosts = [], set()
        for entry in entries:
            network = _network(entry)
            if network is not None:
                networks.append(network)
            else:
                hosts.add(entry.lower())
        return cls(tuple(networks), frozenset(hosts))

    def host(self, name: str) -> bool:
        parts = name.split(".")
        above = ("*." + ".".join(parts[at:]) for at in range(1, len(parts)))
        return name in self.hosts or any(wildcard in self.hosts for wildcard in above)

    def address(self, address: Address) -> bool:
        return any(_within(address, network) for network in self.networks)


def entry_problem(entry: str) -> str | None:
    """What is wrong with one entry of M_WEBHOOK_ALLOW and what is allowed; None when it is good."""
    last = entry.rpartition(".")[2]
    looks_like_an_address = ":" in entry or "/" in entry or last.isdigit()
    if _network(entry) is not None or (not looks_like_an_address and _HOST.fullmatch(entry.lower())):
        return None
    return (
        "must be networks like 10.0.0.0/8 and hosts like hooks.corp.example or *.corp.example, without ports"
    )


def plain(address: Address) -> Address:
    """An IPv4 address written as an IPv6 one (`::ffff:8.8.8.8`) as what it means."""
    mapped = isinstance(address, IPv6Address) and address in _MAPPED
    return IPv4Address(int(address) & 0xFFFFFFFF) if mapped else address


def is_metadata(address: Address) -> bool:
    return any(_within(form, network) for form in _forms(plain(address)) for network in METADATA)


def is_loopback(address: Address) -> bool:
    return any(_within(plain(address), network) for network in _LOOPBACK)


def kind_of(address: Address) -> str | None:
    """What kind of address it is when webhooks may not reach it by themselves; None for a public one."""
    address = plain(address)
    for network, what in _REFUSED:
        if _within(address, network):
            return what
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_V6:
            return "not public"
        if _is_isatap(address):
            return "a tunnelled IPv4 address"
    return None


def literal(host: str) -> Address | None:
    """The address a host names by itself, in its one proper spelling; None for anything else."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _forms(address: Address) -> list[Address]:
    """The address, and the IPv4 addresses that translators and tunnels would take out of it."""
    forms, number = [address], int(address)
    if isinstance(address, IPv6Address):
        if any(address in network for network in _EMBEDDING) or _is_isatap(address):
            forms.append(IPv4Address(number & 0xFFFFFFFF))
        if address in _SIX_TO_FOUR:
            forms.append(IPv4Address(number >> 80 & 0xFFFFFFFF))
    return forms


def _is_isatap(address: IPv6Address) -> bool:
    return int(address) >> 32 & 0xFFFFFFFF in _ISATAP


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return None


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
