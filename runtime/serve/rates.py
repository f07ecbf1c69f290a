"""How often one address may do something."""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from voxrill.runtime.serve.api_errors import Busy

_ADDRESSES = 4096
"""Addresses whose rate is remembered; the one that was longest away is forgotten for a new one."""


@lru_cache(_ADDRESSES)
def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network that an IPv6 provider gives to one customer."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # of a Unix socket: empty
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))


class RateLimit:
    """A token bucket for each address. It holds what is allowed in a minute, and fills evenly.

    Args:
        rate: how often in a minute.
        what: what is counted, in the plural, for the refusal.
    """

    def __init__(self, rate: int, what: str = "requests") -> None:
        self._rate = rate
        self._what = what
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when it was counted

    def check(self, address: str) -> None:
        """Count one, if it is allowed.

        Raises:
            Busy: there were too many.
        """
        self.require(address)
        self.count(address)

    def require(self, address: str) -> None:
        """Raise Busy if the next one is not allowed."""
        if self._left(network_of(address)) < 1:
            raise Busy(max(1, round(60 / self._rate)), f"More than {self._rate} {self._what} in a minute")

    def count(self, address: str) -> None:
        """Count one."""
        network = network_of(address)
        self._buckets[network] = (self._left(network) - 1, time.monotonic())
        self._buckets.move_to_end(network)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)

    def _left(self, network: str) -> float:
        now = time.monotonic()
        left, at = self._buckets.get(network, (float(self._rate), now))
        return min(self._rate, left + (now - at) * self._rate / 60)
