"""The rule for where a webhook may go: the shape of its URL, then every address of its host. Pure, with the same words at
save and at send; `transport` resolves and dials."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from worker.settings import Settings
from worker.webhooks import addresses
from worker.webhooks.addresses import Address, Allowed

MAX_LENGTH: Final = 2000
MOST_ANSWERS: Final = 8
"""A name with more addresses than this is refused."""

REFUSED_PORTS: Final = frozenset(
    {
        1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 162, 179, 389, 427, 445, 465, 512, 513, 514,
        515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 873, 989, 990, 993, 995, 1433, 1521, 1719,
        1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3260, 3306, 3389, 3659, 4045, 4190, 4222, 4369, 5060, 5061,
        5432, 5433, 5672, 5900, 5984, 6000, 6222, 6379, 6380, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697,
        7001, 8222, 9042, 9092, 9200, 9300, 10080, 10250, 11211, 15672, 26379, 27017, 27018, 50000,
    }
)  # fmt: skip
"""Where other protocols live: those that browsers refuse, and the usual ports of databases, brokers and machines' managers."""

_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_INTERNAL: Final = (
    "localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "svc", "cluster",
)  # fmt: skip
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_TO_ALLOW: Final = "An admin may allow it with M_WEBHOOK_ALLOW."


NOTHING: Final = Allowed()


class Refused(Exception):
    """A URL that a webhook may not use; the text says why and what is allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL of good shape. `address` is set when the host is an address itself and no name."""

    url: httpx.URL
    host: str
    port: int
    address: Address | None

    @property
    def is_plain(self) -> bool:
        return self.url.scheme == "http"


@dataclass(frozen=True, slots=True)
class Rule:
    """What this desk allows, and where it stands itself."""

    allowed: Allowed = NOTHING
    own: frozenset[tuple[str, int]] = frozenset()
    """Hosts and ports at which people reach this desk: a webhook to it would tell the desk of itself."""
    own_port: int = 0
    """The port it listens on, which on this machine's own addresses is the desk as well."""

    @classmethod
    def of(cls, settings: Settings) -> Rule:
        parts = urlsplit(settings.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        own = frozenset({((parts.hostname or "").lower(), port)})
        return cls(Allowed.parse(settings.webhook_allow), own, settings.port)

    def judge(self, target: Target, answers: Sequence[Address]) -> tuple[Address, ...]:
        """The addresses that may be dialled, of all that the host has. No answers judges what the name alone tells.

        Raises:
            Refused: the host, or one of its addresses, is not allowed.
        """
        by_name = self.allowed.host(target.host)
        if target.host in _METADATA_NAMES:
            raise Refused(f"{target.host} gives out a cloud machine's credentials: webhooks never go there")
        if (target.host, target.port) in self.own:
            raise Refused(f"{target.host}:{target.port} is this desk itself")
        if len(answers) > MOST_ANSWERS:
            raise Refused(f"{target.host} has {len(answers)} addresses; {MOST_ANSWERS} is the most")
        if target.host == "localhost" or target.host.endswith(".localhost"):
            answers = [one for one in answers if self.allowed.address(addresses.plain(one))] or answers
        opened = [self._open(target, address, by_name=by_name) for address in answers]
        if not by_name and not (opened and all(opened)):
            self._public_only(target)
        return tuple(answers)

    def _open(self, target: Target, address: Address, *, by_name: bool) -> bool:
        """Whether the admin's list opened this address; a public one needs no list."""
        where = (
            str(address) if target.address is not None else f"{target.host} has the address {address}, which"
        )
        if addresses.is_metadata(address):
            raise Refused(f"{where} is a cloud machine's metadata address: webhooks never go there")
        if addresses.is_loopback(address) and target.port == self.own_port:
            raise Refused(f"{target.host}:{target.port} is this desk itself")
        opened = by_name or self.allowed.address(addresses.plain(address))
        kind = addresses.kind_of(address)
        if kind is not None and not opened:
            raise Refused(f"{where} is not public ({kind}). {_TO_ALLOW}")
        return opened

    def _public_only(self, target: Target) -> None:
        """What only a host on the list may be: a name of inside, plain HTTP."""
        last = target.host.rpartition(".")[2]
        if target.address is None and ("." not in target.host or last in _INTERNAL):
            raise Refused(f"{target.host} is a name of an inner network. {_TO_ALLOW}")
        if target.is_plain:
            raise Refused(
                f"must begin with https://, because {target.host} is not on the list of M_WEBHOOK_ALLOW"
            )


def parse(text: str) -> Target:
    """A URL whose shape leaves nothing to guess: one that every program reads alike.

    Raises:
        Refused: naming what is wrong and what is allowed.
    """
    if not 0 < len(text) <= MAX_LENGTH:
        raise Refused(f"must have 1 to {MAX_LENGTH} characters")
    if odd := next((sign for sign in text if not "!" <= sign <= "~" or sign in '\\"<>^`{|}'), None):
        raise Refused(
            f"holds {odd!r}: it must be printable ASCII; write other characters percent-encoded, "
            "and a host's name in its xn-- form"
        )
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise Refused("must begin with https://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise Refused("must not hold a user name or password: use a secret header")
    if "#" in rest:
        raise Refused("must not hold a #fragment: it is never sent")
    try:
        url = httpx.URL(text)
        host, port = url.raw_host.decode("ascii").lower(), url.port
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Refused("is no URL that can be read") from None
    return Target(url, host, _port(authority, port, url.scheme), _host(authority, host))


def _port(authority: str, port: int | None, scheme: str) -> int:
    after = authority.rpartition("]")[2] if "]" in authority else authority
    written = after.partition(":")[2]
    if ":" in after and not (written.isdigit() and 1 <= int(written) <= 65535):
        raise Refused(f"has the port {written!r}: it must be a number from 1 to 65535")
    number = port or (443 if scheme == "https" else 80)
    if number in REFUSED_PORTS:
        raise Refused(f"has the port {number}, where another protocol lives")
    return number


def _host(authority: str, host: str) -> Address | None:
    """The address that the host is; None when it is a good name."""
    if not host:
        raise Refused("has no host")
    if "[" in authority or ":" in host:
        address = addresses.literal(host) if "%" not in host else None
        if address is None:
            raise Refused(f"has the host [{host}], which is no IPv6 address without a zone")
        return address
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        address = addresses.literal(host)
        if address is None:
            raise Refused(f"has the host {host}: write an address as four decimal numbers")
        return address
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused(
            f"has the host {host[:100]!r}: it must be labels of a-z, 0-9, - and _ joined by single dots"
        )
    if any(label.startswith("xn--") and not _decodes(label) for label in labels):
        raise Refused(f"has the host {host}, in which an xn-- label means nothing")
    return None


def _decodes(label: str) -> bool:
    import idna

    try:
        return bool(idna.decode(label))
    except UnicodeError:
        return False
