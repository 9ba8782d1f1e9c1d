"""The floors of the house: which imports break its rules."""

from collections import deque
from collections.abc import Iterator

from house_imports import Imports, arrows, package_of, room_of

LOWER_PACKAGES = {
    "moe_serve": {"moe_comm", "moe_kernels", "moe_devices", "moe_placement"},
    "moe_comm": {"moe_devices"},
    "moe_kernels": set(),
    "moe_devices": set(),
    "moe_placement": set(),
}

# Rooms of moe_serve that do not stand here are on top: they may use all but cli and bench.
LOWER_ROOMS = {
    "errors": set(),
    "even_steps": set(),
    "types": {"errors"},
    "config": {"types", "errors"},
    "messages": {"types", "errors", "config"},
    "schedule": {"types", "errors"},
    "control": {"types", "messages", "errors", "config", "encoders"},
    "edge": {"types", "messages", "errors", "even_steps", "config", "control"},
    "layers": {"types", "errors", "config"},
    "weights": {"types", "errors", "config", "layers"},
    "models": {"types", "errors", "config", "layers", "weights"},
    "step": {
        "types",
        "messages",
        "errors",
        "even_steps",
        "config",
        "schedule",
        "layers",
        "models",
        "weights",
    },
    "encoders": {
        "types",
        "messages",
        "errors",
        "even_steps",
        "config",
        "schedule",
        "weights",
        "step",
    },
}
TOP_ROOMS = {"cli", "bench"}
LONE_ROOMS = {"errors", "even_steps", "types", "schedule"}

# Rooms of moe_placement from the bottom up; each may use those before it. Its lone modules (the
# plan and its file) lie below them all.
PLANNER_ROOMS = (
    "model",
    "memory",
    "hardware",
    "packing",
    "load",
    "cost",
    "serving",
    "solver",
    "simulator",
    "accuracy",
    "capacity",
    "report",
    "bench",
    "cli",
)
# Rooms of moe_serve.control, likewise.
CONTROL = "moe_serve.control."
CONTROL_ROOMS = ("meeting", "planning", "balancing", "requests")
# The planner is pure but for these: same arguments, same plan.
PLANNER_ROOMS_WITH_CLOCK = {"bench", "cli"}
CLOCKS = {"time", "random", "secrets"}

# These start, or end with a config error, before torch is loaded.
LIGHT_ROOMS = {
    "types",
    "messages",
    "errors",
    "even_steps",
    "config",
    "schedule",
    "control",
    "edge",
    "cli",
    "launch",
    "simulated",
}


def find_faults(imports: Imports) -> list[str]:
    """One sentence for each arrow that breaks a rule of the house."""
    return [
        *upward_imports(imports),
        *rooms_out_of_order(imports),
        *planner_torch(imports),
        *planner_rooms_out_of_order(imports),
        *planner_clocks(imports),
        *control_rooms_out_of_order(imports),
        *heavy_starts(imports),
        *circles(imports),
    ]


def upward_imports(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        home, other = package_of(module), package_of(target)
        if other in LOWER_PACKAGES and other != home and other not in LOWER_PACKAGES[home]:
            yield f"{module} imports {target}: {home} may not use {other}"


def rooms_out_of_order(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        room, other = room_of(module), room_of(target)
        if package_of(module) != "moe_serve":
            continue
        if package_of(target) != "moe_serve":
            if room in LONE_ROOMS and package_of(target) in LOWER_PACKAGES:
                yield f"{module} imports {target}: {room} uses types and errors only"
        elif room != other and not may_use(room, other):
            yield f"{module} imports {target}: {room} may not use {other}"


def may_use(room: str, other: str) -> bool:
    if room in LOWER_ROOMS:
        return other in LOWER_ROOMS[room]
    return other not in TOP_ROOMS


def is_torch(name: str) -> bool:
    return package_of(name) == "torch" or package_of(name).startswith("torch_")


def planner_torch(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        if package_of(module) == "moe_placement" and is_torch(target):
            yield f"{module} imports {target}: the planner runs without torch"


def planner_rooms_out_of_order(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        if package_of(module) == package_of(target) == "moe_placement":
            room, other = room_of(module), room_of(target)
            if planner_height(other) > planner_height(room):
                yield f"{module} imports {target}: {room} may not use {other}"


def planner_height(room: str) -> int:
    return PLANNER_ROOMS.index(room) if room in PLANNER_ROOMS else -1


def control_rooms_out_of_order(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        if module.startswith(CONTROL) and target.startswith(CONTROL):
            room, other = (name.removeprefix(CONTROL).split(".")[0] for name in (module, target))
            if other in CONTROL_ROOMS[CONTROL_ROOMS.index(room) + 1 :]:
                yield f"{module} imports {target}: {room} may not use {other}"


def planner_clocks(imports: Imports) -> Iterator[str]:
    for module, target in arrows(imports):
        is_pure = room_of(module) not in PLANNER_ROOMS_WITH_CLOCK
        if package_of(module) == "moe_placement" and is_pure and package_of(target) in CLOCKS:
            yield f"{module} imports {target}: the planner has no clock and no hidden seed"


def heavy_starts(imports: Imports) -> Iterator[str]:
    for module in imports:
        if package_of(module) == "moe_serve" and room_of(module) in LIGHT_ROOMS:
            chain = chain_to_torch(module, imports)
            if chain:
                yield f"{' -> '.join(chain)}: {module} must start without torch"


def chain_to_torch(module: str, imports: Imports) -> tuple[str, ...]:
    """The shortest chain of imports at start from a module to torch; empty if there is none."""
    chains: dict[str, tuple[str, ...]] = {module: (module,)}
    waiting = deque(chains)
    while waiting:
        here = waiting.popleft()
        if is_torch(here):
            return chains[here]
        for target in imports.get(here, ()):
            if target.at_start and target.target not in chains:
                chains[target.target] = (*chains[here], target.target)
                waiting.append(target.target)
    return ()


def circles(imports: Imports) -> Iterator[str]:
    """Circles, of imports in functions too: peel off modules without arrows until none is left,
    then walk what remains."""
    left = {
        module: {t.target for t in targets if t.target in imports}
        for module, targets in imports.items()
    }
    while leaves := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in leaves:
            del left[module]
    if left:
        path: list[str] = [min(left)]
        while path[-1] not in path[:-1]:
            path.append(min(left[path[-1]] & left.keys()))
        circle = path[path.index(path[-1]) :]
        yield f"import circle: {' -> '.join(circle)}"
