"""What each module of the house imports, read from its source without running it."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import of a module: a house module's full name, or another package's name.

    Attributes:
        at_start: it happens when the module is imported, not in a function.
    """

    target: str
    at_start: bool = True


Imports = Mapping[str, tuple[Import, ...]]


@dataclass(frozen=True)
class Source:
    text: str
    is_package: bool = False


def read_sources(source_roots: Mapping[str, Path]) -> dict[str, Source]:
    """Every house module's text, by its full name."""
    return {
        module_name(path, root): Source(path.read_text("utf-8"), path.name == "__init__.py")
        for package, root in source_roots.items()
        for path in sorted((root / package).rglob("*.py"))
    }


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(sources: Mapping[str, Source]) -> dict[str, tuple[Import, ...]]:
    return {
        module: tuple(
            Import(resolve(target, sources), at_start)
            for target, at_start in named_targets(module, source)
        )
        for module, source in sources.items()
    }


def resolve(target: str, modules: Mapping[str, object]) -> str:
    """The house module that a dotted name lies in; the name itself outside the house."""
    name = target
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name if name in modules else target


@cache
def named_targets(module: str, source: Source) -> tuple[tuple[str, bool], ...]:
    package = module if source.is_package else module.rpartition(".")[0]
    return tuple(
        (target, at_start)
        for node, at_start in walk(ast.parse(source.text), at_start=True)
        for target in targets_of(node, package)
    )


def walk(node: ast.AST, at_start: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, at_start
    inside = not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for child in ast.iter_child_nodes(node):
        yield from walk(child, at_start and inside)


def targets_of(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = [*above, *([node.module] if node.module else [])] if node.level else [node.module]
        return [".".join([*map(str, base), alias.name]) for alias in node.names]
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in {"import_module", "__import__"} and node.args:
            argument = node.args[0]
            return [str(argument.value)] if isinstance(argument, ast.Constant) else []
    return []


def package_of(module: str) -> str:
    return module.partition(".")[0]


def room_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def arrows(imports: Imports) -> Iterator[tuple[str, str]]:
    for module, targets in imports.items():
        for target in targets:
            yield module, target.target
