"""Why pools share the phases as they do: what each way would give, in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isinf

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.kv_link import KvLink
from moe_serve.control.planning.role_choices import (
    Roles,
    TooManyWaysError,
    is_apart,
    named,
    roles_of,
)
from moe_serve.control.planning.service import PlannedService, ServicePrediction

# Times as many requests from which on they are more.
_MUCH = 1.01


@dataclass(frozen=True, slots=True, eq=False)
class PhaseOption:
    """One way to share the phases, planned and priced.

    Attributes:
        config: with these roles.
    """

    roles: Roles
    config: Config
    deployment: Deployment
    service: PlannedService
    prediction: ServicePrediction

    @property
    def excess(self) -> float:
        """How many times the worse of its times is what was asked for; 0 where nothing was."""
        found, slo = self.prediction, self.config.placement.workload.slo
        pairs = ((found.ttft_tail, slo.ttft), (found.tpot_tail, slo.tpot))
        return max((value / limit for value, limit in pairs if limit), default=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The other ways.

    Attributes:
        options: those that could be served.
        refused: roles that cannot be had, and why.
    """

    options: Sequence[PhaseOption]
    refused: Sequence[tuple[Roles, str]]


def phase_reasons(
    config: Config, best: PhaseOption, rivals: Rivals | TooManyWaysError
) -> list[str]:
    """What was chosen or given, what it is predicted to give, and what the other ways would.

    Args:
        config: as it was given.
    """
    if best.deployment.problems:
        return ["nothing is predicted for the workload: what it runs on has no room for the model"]
    if isinstance(rivals, TooManyWaysError):
        return [*_own(config, best), f"roles: other ways are not compared: {rivals}"]
    return [*_own(config, best), *_others(best, rivals)]


def _own(config: Config, best: PhaseOption) -> Iterator[str]:
    word = "chosen" if "auto" in roles_of(config) else "given"
    gives = f"{_figures(best)}; bound by {best.service.bound_by}"
    yield f"roles {word}: {_named(best)}: {gives}"
    found = best.prediction
    if is_apart(best.roles) and found.kv_link is None:
        scheduler = config.scheduler
        yield (
            f"roles: prompts of {config.placement.workload.prompt_tokens} tokens are computed "
            f"where they are decoded: scheduler.max_local_prefill is {scheduler.max_local_prefill}"
        )
    if not found.meets_objective:
        yield f"roles: this misses what placement.workload asks for; {_missed(best)}"


def _others(best: PhaseOption, rivals: Rivals) -> Iterator[str]:
    """The best that is apart where this is together, and the other way round; and the best other
    one that is as this is, where it would give more."""
    mine = is_apart(best.roles)
    other = [option for option in rivals.options if is_apart(option.roles) != mine]
    title = "apart" if not mine else "together"
    if other:
        rival = max(other, key=_rank)
        yield f"{_verdict(best, rival)}: {title} ({_named(rival)}) gives {_figures(rival)}"
    else:
        reasons = [why for roles, why in rivals.refused if is_apart(roles) != mine]
        yield f"roles: no way {title}: {reasons[0] if reasons else 'one pool has attention'}"
    alike = [option for option in rivals.options if is_apart(option.roles) == mine]
    better = max(alike, key=_rank, default=best)
    if _is_better(better, best):
        yield f"{_verdict(best, better)}: {_named(better)} gives {_figures(better)}"


def _rank(option: PhaseOption) -> tuple[bool, float, float]:
    found = option.prediction
    return found.meets_objective, found.most_rate, -option.excess


def _is_better(one: PhaseOption, other: PhaseOption) -> bool:
    """By more than what is called as much."""
    return _rank(one) > _rank(other) and _times(one, other) > _MUCH


def _times(one: PhaseOption, other: PhaseOption) -> float:
    """How many times as many requests one way serves; where neither serves any, how many times
    nearer to what is asked for it is."""
    most, least = one.prediction.most_rate, other.prediction.most_rate
    if most == least == 0.0:
        return other.excess / one.excess if one.excess else 1.0
    return most / least if least else inf


def _verdict(best: PhaseOption, rival: PhaseOption) -> str:
    """Which of the two is better, and by how much."""
    if _is_better(rival, best):
        return f"roles: better not so, {_faster(rival, best)}"
    advice = "disaggregate" if is_apart(best.roles) else "do not disaggregate"
    return f"roles: {advice}, {_faster(best, rival)}"


def _faster(one: PhaseOption, other: PhaseOption) -> str:
    way = "apart" if is_apart(one.roles) else "together"
    if one.prediction.meets_objective and not other.prediction.meets_objective:
        return f"{way} alone serves what is asked for"
    if not one.prediction.most_rate:
        return f"{way} is nearer to what is asked for"
    if (times := _times(one, other)) <= _MUCH:
        return f"{way} serves as many requests and gives their first tokens sooner"
    return f"{way} serves {times:.3g} times as many requests"


def _figures(option: PhaseOption) -> str:
    found, workload = option.prediction, option.config.placement.workload
    most = found.most_rate
    limit = f"{most:.3g}/s at most" if most else "no rate keeps to what is asked for"
    return (
        f"TTFT {_time(found.ttft)} and TPOT {_time(found.tpot)} at {workload.rate:g} requests/s, "
        f"{limit}{_transfer(found.kv_link)}"
    )


def _missed(option: PhaseOption) -> str:
    found, slo = option.prediction, option.config.placement.workload.slo
    pairs = (("TTFT", found.ttft_tail, slo.ttft), ("TPOT", found.tpot_tail, slo.tpot))
    missed = [
        f"{name} is {_time(value)}, {_time(limit)} is asked for"
        for name, value, limit in pairs
        if limit and value > limit
    ]
    return " and ".join(missed) or f"more requests come than {found.most_rate:.3g}/s"


def _transfer(link: KvLink | None) -> str:
    if link is None:
        return ""
    return (
        f"; keys and values of a prompt, {link.num_bytes / 1e6:.3g} MB, take {_time(link.seconds)}"
        f" over {link.name}, {_time(link.left)} of it after the prefill"
    )


def _named(option: PhaseOption) -> str:
    return named(option.config, option.roles)


def _time(seconds: float) -> str:
    if isinf(seconds):
        return "without end"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
