"""What a node has of the network: its sockets, its interfaces, and its ways of finding peers."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import structlog

from meshsync.addresses import HostPort
from meshsync.config import Config
from meshsync.core.limits import SUMMARY_ADDRESSES_MAX, Limits
from meshsync.core.summary import only_reachable
from meshsync.discovery.base import Discovery
from meshsync.errors import ConfigError, LocalError
from meshsync.ids import EndpointId
from meshsync.interfaces import Interfaces
from meshsync.transports.quic.udp import UdpSocket, is_loopback, open_udp_socket

_log = structlog.get_logger("meshsync.network")


class Network:
    """The sockets are open from the beginning on; `interfaces.follow` is the caller's to run."""

    def __init__(self, config: Config, limits: Limits) -> None:
        """ConfigError: an address cannot be listened on."""
        self._config = config
        self._limits = limits
        self.sockets: list[UdpSocket] = []
        try:
            for address in config.listen:
                self.sockets.append(_bind(address, is_default="listen" not in config.model_fields_set))
        except ConfigError:
            self.close()
            raise
        self.listen = tuple(HostPort(*socket.address) for socket in self.sockets)
        only_loopback = all(is_loopback(address) for address in self.listen)
        self.interfaces = Interfaces(config.interfaces, only_loopback=only_loopback, limits=limits)

    def close(self) -> None:
        """Close the sockets.  Idempotent."""
        for socket in self.sockets:
            socket.close()

    def reachable_at(self) -> tuple[HostPort, ...]:
        """Where others can reach this node, as addresses that mean the same elsewhere."""
        found: list[HostPort] = []
        for address in self.listen:
            hosts: tuple[str, ...] = (address.host,)
            if ip_address(address.host.partition("%")[0]).is_unspecified:
                hosts = self.interfaces.reachable_at(hosts, SUMMARY_ADDRESSES_MAX)
            found += [HostPort(host, address.port) for host in hosts]
        return only_reachable(found)

    def discoveries(
        self, own: EndpointId, mesh_key: bytes | None, rng: random.Random, is_known: Callable[[EndpointId], bool]
    ) -> list[Discovery]:
        """The ways of finding peers that the configuration asks for; `is_known`: whom the owner named or accepted."""
        config = self._config
        found: list[Discovery] = []
        if config.discovery.mdns:
            # Imported by whoever wants it: each takes a tenth of a second.
            from meshsync.discovery.mdns.discovery import MdnsDiscovery

            found.append(
                MdnsDiscovery(
                    own,
                    config.name,
                    self.listen,
                    self.interfaces,
                    mesh_key=mesh_key if config.trust == "mesh-key" else None,
                    is_known=is_known,
                    rng=rng,
                    limits=self._limits,
                )
            )
        if config.discovery.dns:
            from meshsync.discovery.dns import DnsDiscovery

            found.append(DnsDiscovery(own, config.discovery.dns, rng=rng, limits=self._limits))
        return found


def _bind(address: HostPort, *, is_default: bool) -> UdpSocket:
    try:
        return open_udp_socket(address.host, address.port)
    except LocalError as error:
        if not is_default:
            raise ConfigError(f"{error}; stop what uses the port, or name another with --listen") from error
    # Several nodes on one machine, which find each other without an address: nobody asked for this port.
    socket = open_udp_socket(address.host, 0)
    _log.info(f"port {address.port}/udp is taken: listening on port {socket.address[1]} instead")
    return socket
