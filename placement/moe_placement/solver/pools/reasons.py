"""Why a plan is as it is: figures of what was not chosen, as clauses."""

from collections.abc import Mapping, Sequence

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.solver.pools.deployment_service import predict, served
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.solution import Choice
from moe_placement.solver.workers.candidate import Candidate
from moe_placement.solver.workers.service import Demand, batch_bound
from moe_placement.solver.workers.worker import Deployment, Workers

_ALMOST = 0.995
_AS_MANY = 0.9995
# Of the time, from which on prefill workers are what clients of a closed loop wait for.
_BUSY = 0.95
# Of a decode step: less is noise of the sums, and no cause.
_LEAST_RISE = 1e-3
# What a part of a step is, to a reader.
_CAUSES: Mapping[str, str] = {
    "dense": "weights that every step reads",
    "experts": "experts",
    "attention": "attention",
    "elements": "small kernels",
    "exchange": "exchanges between devices",
    "bridge": "the bridge between pools",
    "kernels": "kernel launches",
    "host": "host work",
}


def percent_less(value: float, best: float) -> str:
    """As in `12 % fewer`, of requests."""
    return f"{1 - value / best:.1%} fewer requests/s ({value:.4g} against {best:.4g})"


def loses_because(other: Deployment, best: Deployment, rates: Rates) -> str:
    """One clause on why a deployment serves less than the best one."""
    rate, most = served(other, rates), served(best, rates)
    if rate >= most * _AS_MANY:
        return (
            f"serves as many requests/s ({rate:.4g} against {most:.4g}) with "
            f"{_count(len(other.workers), 'kind')} of workers and "
            f"{_count(other.num_devices, 'device')}"
        )
    return f"{percent_less(rate, most)}: {_cause(other, best, rates)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _cause(other: Deployment, best: Deployment, rates: Rates) -> str:
    if other.is_apart:
        waiting = _idle_phase(other, rates)
        if waiting:
            return waiting
    mine, its = step_parts(best, rates), step_parts(other, rates)
    rises = {part: its.get(part, 0.0) - mine.get(part, 0.0) for part in {*mine, *its}}
    part = max(sorted(rises), key=lambda name: rises[name])
    if rises[part] <= _LEAST_RISE * sum(mine.values()):
        return _other_cause(other, best)
    more = f"{rises[part] * 1e6:.3g} us more"
    return f"each output token costs {more} in {_CAUSES.get(part, part)}"


def _other_cause(other: Deployment, best: Deployment) -> str:
    """Where decode steps are no slower: devices that do something else."""
    if not other.is_apart:
        return "prompts interrupt its decode steps"
    more = _prefill_devices(other) - _prefill_devices(best)
    if more > 0:
        return f"{more} devices more have to prefill"
    unused = best.num_devices - other.num_devices
    return f"{unused} devices more are left over" if unused > 0 else "its devices serve less each"


def _prefill_devices(deployment: Deployment) -> int:
    return sum(
        workers.count * workers.kind.num_devices
        for workers in deployment.workers
        if workers.phase == "prefill"
    )


def _idle_phase(deployment: Deployment, rates: Rates) -> str:
    """Which phase has much to spare, in whole workers that cannot be given to the other."""
    by_phase = _phase_rates(deployment, rates)
    idle, busy = sorted(("prefill", "decode"), key=lambda phase: -by_phase[phase])
    share = 1 - by_phase[busy] / by_phase[idle]
    return f"{idle} workers idle {share:.0%} of the time, waiting for {busy}" if share > 0.1 else ""


def step_parts(deployment: Deployment, rates: Rates) -> dict[str, float]:
    """Seconds of a full decode step by part, for each output token, of its largest workers."""
    workers = decoders(deployment)[0]
    candidate = rates.candidates[workers.kind]
    request = rates.demand.request
    batch = batch_bound(candidate, workers.phase, rates.demand)
    tokens = max(batch, 1.0) * request.tokens_per_step
    parts = candidate.timer.parts(request.step(0.0, max(batch, 1.0)))
    return {part: seconds / tokens for part, seconds in parts.items()}


def decoders(deployment: Deployment) -> list[Workers]:
    """Workers that decode, those with the most devices first."""
    found = [workers for workers in deployment.workers if workers.phase != "prefill"]
    return sorted(found, key=lambda workers: -workers.count * workers.kind.num_devices)


def binding_constraint(deployment: Deployment, rates: Rates, experts: str) -> str:
    """What keeps the deployment from serving more.

    Args:
        experts: what binds the placement of the experts.
    """
    demand = rates.demand
    if few := _few_clients(deployment, rates):
        return few
    if deployment.is_apart:
        by_phase = _phase_rates(deployment, rates)
        if by_phase["prefill"] < _ALMOST * by_phase["decode"]:
            return "tokens: prefill workers are full, decode workers are not"
    workers = decoders(deployment)[0]
    candidate = rates.candidates[workers.kind]
    batch = batch_bound(candidate, workers.phase, demand)
    most = candidate.full_batch(demand.request)
    if batch >= _ALMOST * most:
        return _full(candidate, demand, most)
    parts = step_parts(deployment, rates)
    part = max(parts, key=lambda name: parts[name])
    share = parts[part] / sum(parts.values())
    limit = "tpot" if demand.objective.tpot else "prefill"
    what = experts if part == "experts" and experts else _CAUSES.get(part, part)
    return f"{limit}, of which {share:.0%} is {_kind(part)}: {what}"


def _few_clients(deployment: Deployment, rates: Rates) -> str:
    """Where a closed loop neither fills the batch of a decode worker nor keeps prefill busy."""
    workload, candidates = rates.demand.workload, rates.candidates
    if not workload.concurrency:
        return ""
    busy = predict(deployment, workload, rates).utilisation
    phases = decoders(deployment)
    each = workload.concurrency / sum(workers.count for workers in phases)
    most = max(candidates[one.kind].full_batch(rates.demand.request) for one in phases)
    if each >= _ALMOST * most or busy.get("prefill", 0.0) >= _BUSY:
        return ""
    return (
        f"clients: {workload.concurrency} in a closed loop are {each:.4g} sequences for a worker, "
        f"which may have {most:.0f} under way"
    )


def _phase_rates(deployment: Deployment, rates: Rates) -> dict[str, float]:
    by_phase = dict.fromkeys(("both", "prefill", "decode"), 0.0)
    for workers in deployment.workers:
        by_phase[workers.phase] += rates.of(workers.kind, workers.phase, workers.count)
    return by_phase


def _full(candidate: Candidate, demand: Demand, most: float) -> str:
    request, limits = demand.request, candidate.limits
    if limits.max_sequences <= limits.kv_tokens / request.held:
        return f"max_sequences: a worker may have {most:.0f} sequences under way"
    return (
        f"memory: the caches of a worker hold {limits.kv_tokens:.0f} tokens, {most:.0f} sequences "
        f"of {request.held:.0f}"
    )


def _kind(part: str) -> str:
    if part in ("exchange", "bridge"):
        return "a link"
    return "expert bytes and tokens" if part == "experts" else "tokens"


def class_choice(
    subject: str,
    ours: tuple[str, Deployment],
    other: tuple[str, Deployment | None],
    rates: Rates,
    missing: str,
) -> Choice:
    """One way against another."""
    name, best = ours
    rival, runner_up = other
    if runner_up is None:
        return Choice(subject=subject, chosen=name, reason=missing)
    clause = loses_because(runner_up, best, rates)
    verb = "" if clause.startswith("serves") else "gives "
    return Choice(subject=subject, chosen=name, reason=f"{rival} {verb}{clause}")


def unused_groups(cluster: ClusterSpec, deployment: Deployment) -> Sequence[str]:
    used = deployment.devices_of_groups()
    return [group.name for index, group in enumerate(cluster.groups) if index not in used]
