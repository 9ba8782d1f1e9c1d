"""What a deployment gives from light load to all that it serves: speed paid with throughput."""

from dataclasses import replace

from moe_placement.serving.workload import Prediction
from moe_placement.solver.pools.deployment_service import predict
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.worker import Deployment

_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)


def load_curve(deployment: Deployment, rates: Rates) -> tuple[Prediction, ...]:
    """Predictions at shares of the rate that it serves within the objective, from low to high;
    none where it serves nothing."""
    most = rates.capacity(deployment)
    if not most:
        return ()
    workload = replace(rates.demand.workload, concurrency=0)
    return tuple(
        predict(deployment, replace(workload, rate=share * most), rates) for share in _SHARES
    )
