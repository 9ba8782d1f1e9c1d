"""Why nothing can be had: what is short, by how much, and what would do."""

import math
from collections.abc import Iterable

from moe_placement.hardware.layout import device_layout
from moe_placement.memory.report import format_bytes
from moe_placement.model.spec import ModelSpec
from moe_placement.solver.constraints import Constraints, InfeasibleError
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.candidates import Candidates
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.service import rate_bound
from moe_placement.solver.workers.worker import Phase

# The narrowest format that most checkpoints can be had in, where it was not allowed.
_LAST_RESORT = "int4"
_PHASES: tuple[Phase, ...] = ("both", "prefill", "decode")


def memory_shortage(
    context: CostContext, found: Candidates, constraints: Constraints
) -> InfeasibleError:
    """No worker fits: the one that lacks least, and what would mend it."""
    cluster, spec = context.cluster, context.spec
    if not found.misfits:
        return InfeasibleError(
            "no group of the cluster may hold attention under the roles and formats allowed; "
            "allow a role besides experts"
        )
    kind, room = min(found.misfits, key=lambda pair: pair[1].shortfall)
    formats = sorted({part.weight_format for part in kind.parts})
    budget = sum(
        int(context.group(part).usable_memory * constraints.memory_fraction) * part.num_devices
        for part in kind.parts
    )
    group = context.group(kind.parts[0])
    each = int(group.usable_memory * constraints.memory_fraction)
    more = math.ceil(room.shortfall / each)
    return InfeasibleError(
        f"{spec.architecture} in {' and '.join(formats)} needs "
        f"{format_bytes(budget + room.shortfall)}, {kind.name(cluster)} has {format_bytes(budget)} "
        f"({constraints.memory_fraction:.0%} of its memory): {format_bytes(room.shortfall)} are "
        f"missing; add {more} {'device' if more == 1 else 'devices'} like {group.device.name}"
        f"{_narrower(spec, formats)}"
    )


def _narrower(spec: ModelSpec, formats: Iterable[str]) -> str:
    widest = max(spec.bytes(name)["experts"] for name in formats)
    last = spec.bytes(_LAST_RESORT)["experts"]
    return f", or allow {_LAST_RESORT} weights" if last < widest else ""


def service_shortage(
    context: CostContext, rates: Rates, served: Iterable[Phase] = ()
) -> InfeasibleError:
    """Workers fit, but none serves a single request within the objective.

    Args:
        served: phases that some workers serve, of no use without the other.
    """
    demand, cluster = rates.demand, context.cluster
    request, objective = demand.request, demand.objective
    steps = {
        kind: candidate.timer.seconds(request.step(0.0, 1.0)) / request.tokens_per_step
        for kind, candidate in rates.candidates.items()
    }
    fastest = min(steps, key=lambda kind: steps[kind])
    if objective.tpot and steps[fastest] > objective.tpot:
        return InfeasibleError(
            f"tpot {_time(objective.tpot)} cannot be had: the fastest step here, of one sequence "
            f"on {fastest.name(cluster)}, takes {_time(steps[fastest])}; ask for "
            f"{_time(steps[fastest] * 1.1)} or more, or add faster devices"
        )
    prompts = {
        kind: candidate.timer.seconds(request.step(request.prompt, 0.0))
        for kind, candidate in rates.candidates.items()
    }
    quickest = min(prompts, key=lambda kind: prompts[kind])
    if objective.ttft and prompts[quickest] > objective.ttft:
        return InfeasibleError(
            f"ttft {_time(objective.ttft)} cannot be had: a prompt of {request.prompt:.0f} tokens "
            f"takes {_time(prompts[quickest])} alone on {quickest.name(cluster)}, the quickest "
            f"here; ask for {_time(prompts[quickest] * 1.5)} or more, or add faster devices"
        )
    lone = set(served)
    if lone in ({"prefill"}, {"decode"}):
        return _phase_shortage(lone.pop())
    best = max(
        (rate_bound(candidate, phase, demand), candidate.kind.name(cluster))
        for candidate in rates.candidates.values()
        for phase in _PHASES
    )
    return InfeasibleError(
        f"ttft {_time(objective.ttft)} and tpot {_time(objective.tpot)} at the "
        f"{objective.percentile:.0%} percentile cannot be had together here (the nearest is "
        f"{best[1]}); relax one of them"
    )


def _phase_shortage(phase: Phase) -> InfeasibleError:
    lacking = "decode" if phase == "prefill" else "prefill"
    return InfeasibleError(
        f"workers that {phase} can be had, none that may {lacking} fits and keeps to the "
        f"objective; allow a group the role both or {lacking}"
    )


def spread_shortage(context: CostContext) -> InfeasibleError:
    """No worker of which two failure domains could each hold all experts, nor two workers."""
    domains = int(device_layout(context.cluster).domain_N[-1]) + 1
    have = "has 1" if domains == 1 else f"has {domains}, too few or too unlike"
    return InfeasibleError(
        f"spread needs each expert in 2 failure domains; the cluster {have}; add a domain, or "
        "allow spread: false"
    )


def rate_shortage(context: CostContext, served: float, wanted: float) -> InfeasibleError:
    """The best plan serves too little."""
    devices = context.cluster.num_devices
    more = math.ceil(devices * (wanted / served - 1))
    return InfeasibleError(
        f"{wanted:.4g} requests/s are asked for, the best plan on these {devices} devices serves "
        f"{served:.4g} within the objective, {wanted - served:.3g} less; add about {more} devices, "
        "or relax the objective"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
