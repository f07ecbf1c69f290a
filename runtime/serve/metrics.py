"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One server's counters."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"voxrill_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"voxrill_{name}", what, registry=registry)

        self.requests = counter("requests", "Requests answered, by route and HTTP status", "route", "status")
        self.seconds = Histogram("voxrill_request_seconds", "From a request to its answer's end", registry=registry)
        self.shed = counter("shed", "Requests and sessions refused because there was too much to do")
        self.requests_held = gauge("requests_held", "Requests that are worked on or wait")
        self.sessions = gauge("realtime_sessions", "Realtime sessions that are open")
        self.turns = counter("realtime_turns", "Realtime answers, by how they ended", "status")
        self.steps = counter("steps", "Small steps of the model")
        self.busy = counter("busy_seconds", "Seconds that the model computed")
        self.state_bytes = gauge("state_bytes", "Bytes of conversations' states in memory")
        self.parked = gauge("parked_states", "States of conversations that are on disk")
        self.evictions = counter("evictions", "States that were moved to disk")

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
