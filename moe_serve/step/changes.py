"""Who is served changes while ranks serve: each makes ready beside its steps, all act at once."""

import logging
from collections.abc import Callable, Mapping
from threading import Thread

from moe_devices.errors import DeviceError

from moe_serve.errors import (
    CheckpointError,
    ConfigError,
    LedgerError,
    MoeServeError,
    PlacementError,
    UnsupportedError,
    is_out_of_memory,
)
from moe_serve.even_steps import beside_steps
from moe_serve.messages import ALL_RANKS, Fault, PlacedTenant, TenantChange, TenantNews
from moe_serve.step.tenant import Tenant
from moe_serve.step.tenants import Tenants
from moe_serve.types import ServedModel

logger = logging.getLogger(__name__)

Loaded = tuple[Tenant, ServedModel]

_FAULTS: Mapping[type[Exception], Fault] = {
    CheckpointError: "model",
    ConfigError: "model",
    UnsupportedError: "model",
    # In which the floors below say what they do not compute.
    ValueError: "model",
    PlacementError: "room",
    LedgerError: "room",
    DeviceError: "room",
}


class _Loading:
    """A load in a thread that nobody waits for at the end of the process."""

    def __init__(self, load: Callable[[TenantChange], Loaded], change: TenantChange) -> None:
        self._load = load
        self._change = change
        self._loaded: Loaded | None = None
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Loaded:
        """What was loaded, or raise what kept it from that."""
        # Its traceback has this, and the weights that were read: only a collection would end them.
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        assert self._loaded is not None
        return self._loaded

    def _run(self) -> None:
        try:
            beside_steps()
            self._loaded = self._load(self._change)
        except BaseException as failure:
            self._failure = failure


class TenantChanges:
    """One rank's part in changes of who is served.

    Args:
        load: makes a new tenant of this rank; called in a thread of its own, while others step.
        settle: takes back what others were lent and the new one needs; called between steps.
        dismiss: frees what models held that have gone, of which nobody else knows any more; called
            in a thread of its own, for that may take longer than a step.
    """

    def __init__(
        self,
        plan_rank: int,
        tenants: Tenants,
        load: Callable[[TenantChange], Loaded],
        settle: Callable[[], None] = lambda: None,
        dismiss: Callable[[list[Tenant]], None] = lambda gone: gone.clear(),
    ) -> None:
        self._plan_rank = plan_rank
        self._tenants = tenants
        self._load = load
        self._settle = settle
        self._dismiss = dismiss
        self._gone: list[Tenant] = []
        self._change: TenantChange | None = None
        self._loading: _Loading | None = None
        self._done = 0

    @property
    def is_preparing(self) -> bool:
        """Whether a change is being made ready in another thread."""
        change, loading = self._change, self._loading
        if change is not None and change.kind == "unload":
            return self._tenants.is_running(change.placed.number)
        return loading is not None and not loading.is_over

    @property
    def ready_number(self) -> int:
        """Of the newest change that this rank is ready for."""
        return self._change.number if self._change and not self.is_preparing else self._done

    def take(self, change: TenantChange) -> None:
        """Begin to make a change ready."""
        assert self._change is None, f"change {change.number} came before {self._done + 1} was done"
        self._change = change
        if change.kind == "load" and change.placed.rank in (ALL_RANKS, self._plan_rank):
            self._loading = _Loading(self._load, change)
        elif change.kind == "unload":
            self._tenants.stop(change.placed.number)

    def rest(self) -> None:
        """Between steps: make room for a model that is loading, free what one that went held."""
        if self._loading is not None:
            self._settle()
        if self._gone:
            gone, self._gone = self._gone, []
            Thread(target=self._let_go, args=(gone,), name="dismiss", daemon=True).start()

    def follow(self, ready_number: int) -> TenantNews | None:
        """Act on the change that is under way, if all ranks are ready for it -> what came of it."""
        change, loading = self._change, self._loading
        if change is None or change.number > ready_number:
            return None
        self.rest()
        self._change, self._loading, self._done = None, None, change.number
        try:
            served = self._act(change, loading)
        except Exception as error:
            said = self._complaint(change, error)
            return TenantNews(number=change.number, error=said, fault=_fault(error))
        return TenantNews(number=change.number, served=served)

    def _let_go(self, gone: list[Tenant]) -> None:
        beside_steps()
        self._dismiss(gone)

    def _complaint(self, change: TenantChange, error: Exception) -> str:
        """In one sentence: other models go on, whatever is wrong with this one."""
        is_ours = not isinstance(error, MoeServeError)
        why = f"{type(error).__name__}: {error}" if is_ours else str(error)
        name = change.placed.model.name
        logger.warning(
            "rank %d: %s %s: %s", self._plan_rank, change.kind, name, why, exc_info=is_ours
        )
        if not is_ours:
            return why
        return f"rank {self._plan_rank} cannot {change.kind} model {name}: {why}; its log has more"

    def _act(self, change: TenantChange, loading: _Loading | None) -> ServedModel | None:
        if change.kind == "unload":
            self._gone.append(self._tenants.close(change.placed.number))
            return None
        if change.kind == "resize":
            return self._resize(change.placed, change.restores)
        return self._open(change.placed, loading)

    def _open(self, placed: PlacedTenant, loading: _Loading | None) -> ServedModel | None:
        absent = Tenant(
            number=placed.number, rank=placed.rank, share=placed.share, is_hard=placed.is_hard
        )
        try:
            tenant, served = loading.result() if loading is not None else (absent, None)
        except BaseException:
            # All ranks open the same accounts, also where there is nothing to run.
            self._tenants.open(absent)
            raise
        self._tenants.open(tenant)
        return served

    def _resize(self, placed: PlacedTenant, restores: bool) -> ServedModel | None:
        number = placed.number
        self._tenants.change_share(number, placed.share, is_hard=placed.is_hard)
        if placed.rank not in (ALL_RANKS, self._plan_rank):
            return None
        return self._tenants.resize(number, placed.memory, restores=restores)


def _fault(error: Exception) -> Fault:
    # Who reads a file takes any error for the file's; beneath may be that memory was used up.
    cause: BaseException | None = error
    while cause is not None:
        if is_out_of_memory(cause):
            return "room"
        cause = cause.__cause__ or cause.__context__
    return next((fault for kind, fault in _FAULTS.items() if isinstance(error, kind)), "rank")


def no_changes(plan_rank: int, tenants: Tenants) -> TenantChanges:
    """Of ranks whose models stay as they are."""

    def refuse(change: TenantChange) -> Loaded:
        raise UnsupportedError("these ranks take no other model")

    return TenantChanges(plan_rank, tenants, refuse)
