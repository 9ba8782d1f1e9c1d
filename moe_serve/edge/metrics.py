"""Prometheus metrics: the edge's own, and the newest ones of every rank."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moe_serve.control.requests.client import EngineClient
from moe_serve.messages import RankStats

_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80)
_NEXT_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2)
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320, 640)

_GAUGES: dict[str, tuple[str, str]] = {
    "moe_serve_waiting": ("num_waiting", "Sequences waiting to be admitted"),
    "moe_serve_running": ("num_running", "Sequences being computed"),
    "moe_serve_pages": ("num_pages", "Pages of the KV cache"),
    "moe_serve_pages_used": ("num_pages_used", "Pages held by live sequences"),
    "moe_serve_pages_cached": ("num_pages_cached", "Pages kept for prefixes only"),
    "moe_serve_plan_epoch": ("plan_epoch", "Epoch of the plan that the rank runs"),
    "moe_serve_experts_to_load": ("num_experts_to_load", "Experts that are on their way here"),
}
_COUNTERS: dict[str, tuple[str, str]] = {
    "moe_serve_prompt_tokens": ("num_prompt_tokens", "Prompt tokens admitted"),
    "moe_serve_prefix_hit_tokens": ("num_cached_tokens", "Prompt tokens from the prefix cache"),
    "moe_serve_generated_tokens": ("num_generated_tokens", "Tokens generated"),
    "moe_serve_preemptions": ("num_preemptions", "Sequences set back for want of pages"),
    "moe_serve_steps": ("num_steps", "Model steps taken"),
    "moe_serve_expert_rows": ("num_expert_rows", "(token, expert) rows computed"),
    "moe_serve_dispatch_bytes": ("dispatch_bytes", "Bytes sent by dispatch and combine"),
    "moe_serve_handovers": ("num_handovers", "Prompts that another rank computed for this one"),
    "moe_serve_handover_failures": ("num_handover_failures", "Prompts computed here after all"),
    "moe_serve_kv_bytes": ("kv_bytes_sent", "Bytes of keys and values sent to other ranks"),
    "moe_serve_moved_bytes": ("moved_bytes", "Bytes of experts loaded while serving"),
    "moe_serve_segments": ("num_segments", "Parts of steps with a declared time"),
    "moe_serve_overruns": ("num_overruns", "Parts of steps that took longer than declared"),
}


class Metrics:
    """One registry for one server.

    Args:
        client: asked for the newest statistics of the ranks.
    """

    def __init__(self, client: EngineClient) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(RankCollector(client))
        self._live = Gauge(
            "moe_serve_live_requests", "Sequences in flight", ["model"], registry=self.registry
        )
        self._finished = Counter(
            "moe_serve_requests",
            "Sequences ended, by finish reason",
            ["model", "finish_reason"],
            registry=self.registry,
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From request to first token", _FIRST_TOKEN_BUCKETS
        )
        self._next_token = self._histogram(
            "inter_token_seconds", "Between tokens of one sequence", _NEXT_TOKEN_BUCKETS
        )
        self._request = self._histogram(
            "request_seconds", "From request to last token", _REQUEST_BUCKETS
        )

    def timer(self, model: str) -> "SequenceTimer":
        """For one sequence; its clock runs from now, it counts as live from its `start`."""
        return SequenceTimer(
            live=self._live.labels(model),
            finished=lambda reason: self._finished.labels(model, reason).inc(),
            first_token=self._first_token.labels(model),
            next_token=self._next_token.labels(model),
            request=self._request.labels(model),
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            f"moe_serve_{name}", text, ["model"], buckets=buckets, registry=self.registry
        )


class SequenceTimer:
    """The life of one sequence as its client sees it."""

    def __init__(
        self,
        live: Gauge,
        finished: Callable[[str], None],
        first_token: Histogram,
        next_token: Histogram,
        request: Histogram,
    ) -> None:
        self._live = live
        self._finished = finished
        self._first_token = first_token
        self._next_token = next_token
        self._request = request
        self._start = perf_counter()
        self._last: float | None = None
        self._ended = True

    def start(self) -> None:
        self._ended = False
        self._live.inc()

    def token(self) -> None:
        now = perf_counter()
        if self._last is None:
            self._first_token.observe(now - self._start)
        else:
            self._next_token.observe(now - self._last)
        self._last = now

    def end(self, finish_reason: str) -> None:
        """Only the first end counts."""
        if self._ended:
            return
        self._ended = True
        self._live.dec()
        self._finished(finish_reason)
        self._request.observe(perf_counter() - self._start)


class RankCollector(Collector):
    """The ranks' statistics, each rank's own under a `rank` label, read when asked for."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        ranks = self._client.stats()
        for name, (field, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["rank"])
            for rank in ranks:
                gauge.add_metric([str(rank.plan_rank)], getattr(rank, field))
            yield gauge
        for name, (field, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["rank"])
            for rank in ranks:
                counter.add_metric([str(rank.plan_rank)], getattr(rank, field))
            yield counter
        yield GaugeMetricFamily(
            "moe_serve_expert_imbalance",
            "Max / mean over ranks of expert rows computed of late",
            value=self._client.expert_imbalance,
        )
        yield from self._membership()
        yield self._kv_use(ranks)
        yield self._step_seconds(ranks)
        yield self._link_bytes(ranks)
        yield from self._slices(ranks)

    def _membership(self) -> Iterator[Metric]:
        membership = self._client.membership
        yield GaugeMetricFamily(
            "moe_serve_lost_ranks", "Ranks that are lost", value=len(membership.lost)
        )
        yield GaugeMetricFamily(
            "moe_serve_membership_epoch",
            "Times that ranks were lost or came back",
            value=membership.epoch,
        )

    def _kv_use(self, ranks: Sequence[RankStats]) -> Metric:
        use = GaugeMetricFamily("moe_serve_kv_use_ratio", "Share of pages used", labels=["rank"])
        for rank in ranks:
            use.add_metric([str(rank.plan_rank)], rank.num_pages_used / max(1, rank.num_pages))
        return use

    def _step_seconds(self, ranks: Sequence[RankStats]) -> Metric:
        seconds = CounterMetricFamily(
            "moe_serve_step_seconds", "Seconds of steps, by part", labels=["rank", "part"]
        )
        for rank in ranks:
            for part, total in sorted(rank.step_seconds.items()):
                seconds.add_metric([str(rank.plan_rank), part], total)
        return seconds

    def _link_bytes(self, ranks: Sequence[RankStats]) -> Metric:
        sent = CounterMetricFamily(
            "moe_serve_link_bytes", "Bytes sent to other pools, by link", labels=["rank", "link"]
        )
        for rank in ranks:
            for link, total in sorted(rank.link_bytes.items()):
                sent.add_metric([str(rank.plan_rank), link], total)
        return sent

    def _slices(self, ranks: Sequence[RankStats]) -> Iterator[Metric]:
        labels = ["rank", "model"]
        seconds = CounterMetricFamily(
            "moe_serve_slice_seconds", "Seconds of the device, by model", labels=labels
        )
        memory = GaugeMetricFamily(
            "moe_serve_slice_memory_bytes", "Memory, by model and part", labels=[*labels, "part"]
        )
        for rank in ranks:
            for each in rank.slices:
                where = [str(rank.plan_rank), each.model]
                seconds.add_metric(where, each.seconds)
                for part, num_bytes in sorted(each.memory.items()):
                    memory.add_metric([*where, part], num_bytes)
        yield seconds
        yield memory
