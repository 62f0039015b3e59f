"""QUIC: the only importer of aioquic."""

from meshsync.transports.quic.endpoint import QuicEndpoint, open_endpoint
from meshsync.transports.quic.udp import DatagramSocket, UdpSocket, open_udp_socket

__all__ = ["DatagramSocket", "QuicEndpoint", "UdpSocket", "open_endpoint", "open_udp_socket"]
