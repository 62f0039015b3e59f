"""Metrics for Prometheus, read from the node's status when they are asked for; nothing is counted on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from meshsync.api.requests import refuse_unknown

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from meshsync.node import Node

_BY_PEER = ("collection", "peer")
_PEER_STATES = ("connected", "dialing", "waiting", "pending", "down")


class _NodeCollector:
    """What a registry asks for metrics."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily as Gauge

        status = self._node.status()
        info = Gauge("meshsync_info", "The node; always 1.", labels=["id", "name", "version"])
        info.add_metric([status["id"], status["name"], status["version"]], 1)
        yield info
        yield Gauge("meshsync_uptime_seconds", "Since the node was started.", value=status["uptime_s"])
        yield Gauge("meshsync_store_entries", "Entries in the store.", value=status["store"]["entries"])
        yield Gauge("meshsync_store_bytes", "What the store takes on disk.", value=status["store"]["bytes"])
        yield Gauge("meshsync_events_total", "Events since the start.", value=self._node.events.next - 1)
        peers = Gauge("meshsync_peers", "Known peers by state.", labels=["state"])
        for state in _PEER_STATES:
            peers.add_metric([state], sum(peer["state"] == state for peer in status["peers"]))
        yield peers
        yield from _collections(status["collections"])


def _collections(collections: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    for key, text in (("entries", "Entries"), ("documents", "Live documents"), ("logs", "Logs")):
        gauge = Gauge(f"meshsync_collection_{key}", f"{text} of a collection.", labels=["collection"])
        for collection in collections:
            gauge.add_metric([collection["name"]], collection[key])
        yield gauge
    for key, text in (("received", "Payload bytes received"), ("new", "Payload bytes received that were new")):
        counter = Counter(f"meshsync_payload_bytes_{key}", f"{text}, of a collection.", labels=["collection"])
        for collection in collections:
            counter.add_metric([collection["name"]], collection["payload_bytes"][key])
        yield counter
    for key, text in (("payloads", "Superseded payloads"), ("bytes", "Bytes of superseded payloads")):
        counter = Counter(f"meshsync_let_go_{key}", f"{text} that were dropped here.", labels=["collection"])
        for collection in collections:
            counter.add_metric([collection["name"]], collection["let_go"][key])
        yield counter
    for key, text in (("payloads", "Payloads"), ("bytes", "Bytes of payloads")):
        name, what = f"meshsync_unwanted_{key}", f"{text} that the query does not want and that were dropped."
        counter = Counter(name, what, labels=["collection"])
        for collection in collections:
            counter.add_metric([collection["name"]], collection["unwanted"][key])
        yield counter
    synced = Gauge("meshsync_synced", "1 where a collection equals the peer's.", labels=_BY_PEER)
    missing = Gauge("meshsync_missing_entries", "Entries that a peer has and this node lacks.", labels=_BY_PEER)
    unsent = Gauge("meshsync_unsent_entries", "Entries that a peer has yet to confirm.", labels=_BY_PEER)
    for collection in collections:
        for peer in collection["peers"]:
            labels = [collection["name"], peer["id"]]
            synced.add_metric(labels, peer["state"] == "synced")
            # A number that is not known yet is left out, and not told as zero.
            if peer["missing"] is not None:
                missing.add_metric(labels, peer["missing"])
            if peer["unsent"] is not None:
                unsent.add_metric(labels, peer["unsent"])
    yield from (synced, missing, unsent)


async def get_metrics(node: Node, request: Request) -> Response:
    """Metrics in the text format of Prometheus."""
    refuse_unknown(request)
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(node))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
