"""Which pool does which phase: what `role: auto` becomes, and why."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moe_placement.hardware.section import HardwareError

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment, plan_deployment
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.control.planning.phase_reasons import PhaseOption, Rivals, phase_reasons
from moe_serve.control.planning.role_choices import (
    Roles,
    TooManyWaysError,
    freed,
    role_choices,
    roles_of,
    with_roles,
)
from moe_serve.control.planning.service import PlannedService, asked
from moe_serve.errors import ConfigError, MoeServeError, PlacementError

logger = logging.getLogger(__name__)

# Of the most that one way serves: from which on another serves as much.
_AS_MUCH = 0.99


def plan_phases(
    config: Config, model_json: Mapping[str, Any], device_bytes_by_rank: Sequence[int]
) -> tuple[Config, Deployment]:
    """The resolved config with the role of every pool, and its deployment.

    A workload has every way in which the pools could share the phases planned and priced, as it
    would be served: the deployment's reasons then say what was chosen, what it is predicted to
    give and what the best other way would. Roles that are given are kept.

    Args, Raises:
        as `plan_deployment` has them.
    """
    if not config.placement.workload.is_given:
        return config, plan_deployment(config, model_json, device_bytes_by_rank)
    search = _Search(config, model_json, device_bytes_by_rank)
    nameless = _without_hardware(config)
    own = [] if nameless else search.own()
    if not own and "auto" in roles_of(config):
        raise search.refused[0][1]
    if not own:
        deployment = plan_deployment(config, model_json, device_bytes_by_rank)
        why = f"pool {nameless!r} names no hardware" if nameless else search.refused[0][1]
        return config, _with_reasons(deployment, [f"nothing is predicted for the workload: {why}"])
    best = _best(own)
    reasons = search.reasons(best)
    for index, (before, after) in enumerate(zip(config.pools, best.config.pools, strict=True)):
        if before.role != after.role:
            logger.info("pools[%d].role: chose %s", index, after.role)
    return best.config, _with_reasons(best.deployment, reasons)


def _without_hardware(config: Config) -> str:
    return next((pool.name for pool in config.pools if not pool.hardware), "")


def _with_reasons(deployment: Deployment, reasons: Sequence[str]) -> Deployment:
    chosen = deployment.chosen
    return replace(deployment, chosen=replace(chosen, reasons=(*reasons, *chosen.reasons)))


@dataclass(slots=True)
class _Search:
    """Plans and prices ways to share the phases, each once.

    Attributes:
        refused: roles that cannot be planned, and why.
    """

    config: Config
    model_json: Mapping[str, Any]
    device_bytes_by_rank: Sequence[int]
    refused: list[tuple[Roles, MoeServeError]] = field(default_factory=list)
    _known: dict[Roles, PhaseOption | None] = field(default_factory=dict)

    def own(self) -> list[PhaseOption]:
        """Those with the roles that are given; where none fits the memory, what lacks room."""
        given = roles_of(self.config)
        if "auto" not in given:
            return self._priced([given], must_fit=False)
        try:
            wanted = role_choices(self.config, pool_hardware(self.config))
        except TooManyWaysError as error:
            raise ConfigError(f"pools[..].role: {error}") from error
        return self._priced(wanted) or self._priced(wanted[:1], must_fit=False)

    def reasons(self, best: PhaseOption) -> list[str]:
        """Beside all other ways that could be served."""
        try:
            choices = role_choices(freed(self.config), pool_hardware(self.config))
        except TooManyWaysError as error:
            return phase_reasons(self.config, best, error)
        rivals = self._priced([roles for roles in choices if roles != best.roles])
        refused = [(roles, str(error)) for roles, error in self.refused]
        return phase_reasons(self.config, best, Rivals(rivals, refused))

    def _priced(self, choices: Sequence[Roles], *, must_fit: bool = True) -> list[PhaseOption]:
        for roles in choices:
            if roles not in self._known or not must_fit:
                self._known[roles] = self._price(roles, must_fit)
        return [option for roles in choices if (option := self._known[roles]) is not None]

    def _price(self, roles: Roles, must_fit: bool) -> PhaseOption | None:
        config = with_roles(self.config, roles)
        if roles != roles_of(self.config):
            # A plan file is made for the roles that are given.
            config = replace(config, placement=replace(config.placement, plan="auto"))
        try:
            deployment = plan_deployment(config, self.model_json, self.device_bytes_by_rank)
            if must_fit:
                deployment.require_fit()
            service = PlannedService.of(config, deployment, *asked(config.placement.workload))
            return PhaseOption(roles, config, deployment, service, service.prediction())
        except (ConfigError, PlacementError) as error:
            self.refused.append((roles, error))
        except HardwareError as error:
            self.refused.append((roles, ConfigError(f"pools[..].weights: {error}")))
        return None


def _best(options: Sequence[PhaseOption]) -> PhaseOption:
    """First comes what serves the workload, then what serves the most of it, then what is first
    with the first token."""
    able = [option for option in options if option.prediction.meets_objective] or list(options)
    most = max(option.prediction.most_rate for option in able)
    near = [option for option in able if option.prediction.most_rate >= _AS_MUCH * most]
    if most == 0.0:
        return min(near, key=lambda option: option.excess)
    return min(near, key=lambda option: option.prediction.ttft)
