"""Where the controller listens: an address that engines on other machines reach."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil

from aeris.errors import ConfigurationError

FAST_INTERFACES = ("hsn", "ib", "bond")
"""How the interfaces of Slingshot and InfiniBand begin, and those of networks in pairs."""
VIRTUAL_INTERFACES = ("lo", "docker", "br-", "virbr", "veth", "vnet", "tun", "tap", "cni", "podman")
"""How the interfaces begin that lead to no other machine."""


def choose_address(interface: str | None = None, address: str | None = None) -> str:
    """The IPv4 address that engines on other machines reach this one by.

    Args:
        interface: Network interface to take it from, such as ``hsn0``.
        address: The address itself.

    Returns:
        The address given; else that of the interface given; else of a fast network, of any other, and at last loopback.

    Raises:
        ConfigurationError: This machine has no such interface or address.
    """
    there = _addresses()
    if address is not None and address not in there.values():
        raise ConfigurationError(f"address={address!r}", "The controller listens on an address of this machine", f"Use {_choices(there)}")
    if interface is not None and interface not in there:
        raise ConfigurationError(f"interface={interface!r}", "It is one that is up and has an IPv4 address", f"Use {_choices(there)}")
    if address is not None or interface is not None:
        return address or there[str(interface)]
    outward = [name for name in there if not name.startswith(VIRTUAL_INTERFACES)]
    outward.sort(
        key=lambda name: next((place for place, fast in enumerate(FAST_INTERFACES) if name.startswith(fast)), len(FAST_INTERFACES))
    )
    return there[outward[0]] if outward else "127.0.0.1"


def loopback() -> str:
    """The name of the interface that leads to no other machine."""
    return next((name for name, address in _addresses().items() if address == "127.0.0.1"), "lo")


def _addresses() -> dict[str, str]:
    """The IPv4 address of each interface that is up; link-local ones reach nobody."""
    states = psutil.net_if_stats()
    found = {}
    for name, entries in psutil.net_if_addrs().items():
        addresses = [entry.address for entry in entries if entry.family == socket.AF_INET and not entry.address.startswith("169.254.")]
        if addresses and name in states and states[name].isup:
            found[name] = addresses[0]
    return found


def _choices(there: Mapping[str, str]) -> str:
    return " or ".join(f"{name} ({address})" for name, address in there.items()) or "neither: this machine has none"
