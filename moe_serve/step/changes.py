"""Who is served changes while ranks serve: each makes ready beside its steps, all act at once."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from moe_serve.errors import MoeServeError, UnsupportedError
from moe_serve.messages import ALL_RANKS, TenantChange, TenantNews
from moe_serve.step.tenants import Tenant, Tenants
from moe_serve.types import ServedModel

logger = logging.getLogger(__name__)

Loaded = tuple[Tenant, ServedModel]


class TenantChanges:
    """One rank's part in changes of who is served.

    Args:
        load: makes a new tenant of this rank; called in a thread of its own, while others step.
    """

    def __init__(
        self, plan_rank: int, tenants: Tenants, load: Callable[[TenantChange], Loaded]
    ) -> None:
        self._plan_rank = plan_rank
        self._tenants = tenants
        self._load = load
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
        self._change: TenantChange | None = None
        self._loading: Future[Loaded] | None = None
        self._done = 0

    @property
    def is_loading(self) -> bool:
        return self._loading is not None and not self._loading.done()

    @property
    def ready_number(self) -> int:
        """Of the newest change that this rank is ready for."""
        return self._change.number if self._change and not self.is_loading else self._done

    def take(self, change: TenantChange) -> None:
        """Begin to make a change ready."""
        assert self._change is None, f"change {change.number} came before {self._done + 1} was done"
        self._change = change
        if change.kind == "load" and change.rank in (ALL_RANKS, self._plan_rank):
            self._loading = self._thread.submit(self._load, change)

    def follow(self, ready_number: int) -> TenantNews | None:
        """Act on the change that is under way, if all ranks are ready for it -> what came of it."""
        change, loading = self._change, self._loading
        if change is None or change.number > ready_number:
            return None
        self._change, self._loading, self._done = None, None, change.number
        try:
            served = self._act(change, loading)
        except (MoeServeError, OSError, RuntimeError, ValueError) as error:
            logger.warning("rank %d: %s of a model: %s", self._plan_rank, change.kind, error)
            return TenantNews(number=change.number, error=str(error))
        return TenantNews(number=change.number, served=served)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _act(self, change: TenantChange, loading: "Future[Loaded] | None") -> ServedModel | None:
        if change.kind == "unload":
            self._tenants.close(change.tenant)
        elif change.kind == "resize":
            self._resize(change)
        else:
            return self._open(change, loading)
        return None

    def _open(self, change: TenantChange, loading: "Future[Loaded] | None") -> ServedModel | None:
        share, is_hard = share_of(change)
        absent = Tenant(number=change.tenant, rank=change.rank, share=share, is_hard=is_hard)
        try:
            tenant, served = loading.result() if loading is not None else (absent, None)
        except BaseException:
            # All ranks open the same accounts, also where there is nothing to run.
            self._tenants.open(absent)
            raise
        self._tenants.open(tenant)
        return served

    def _resize(self, change: TenantChange) -> None:
        share, is_hard = share_of(change)
        self._tenants.change_share(change.tenant, share, is_hard=is_hard)
        if change.rank in (ALL_RANKS, self._plan_rank):
            self._tenants.resize(change.tenant, change.memory)


def no_changes(plan_rank: int, tenants: Tenants) -> TenantChanges:
    """Of ranks whose models stay as they are."""

    def refuse(change: TenantChange) -> Loaded:
        raise UnsupportedError("these ranks take no other model")

    return TenantChanges(plan_rank, tenants, refuse)


def share_of(change: TenantChange) -> tuple[float, bool]:
    """Of a device's time, and whether it is never more."""
    asked = change.model.slice
    return asked.compute_percent / 100, asked.mode == "hard"
