"""The layout that CONTRIBUTING.md states: who may import whom, and which folders are packages."""

from __future__ import annotations

import ast
import configparser
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A subpackage may import itself and those before it, never one after it.
SUBPACKAGES = ("runtime", "train", "export", "bench", "cli")
LONGEST_FILE = 300
# Folders that hold no package: pytest's benchmarks, and `python -m edge`, whose file goes into the
# namespace package itself.
NO_PACKAGES = ("bench/benchmarks", "cli/entry")

Module = tuple[str, ...]  # ("train", "data", "split"); a package's own file ends in "__init__"


@cache
def modules() -> dict[Module, Path]:
    """Every module of the project, by the parts of its path."""
    return {
        file.relative_to(ROOT).with_suffix("").parts: file
        for name in SUBPACKAGES
        for file in sorted((ROOT / name).rglob("*.py"))
    }


def named(dotted: str) -> Module | None:
    """The module that `edge.a.b` names, or None where it names none of ours."""
    parts = tuple(dotted.split(".")[1:])
    for candidate in (parts, (*parts, "__init__")):
        if candidate in modules():
            return candidate
    return None


def imports_of(module: Module, source: str) -> Iterator[Module]:
    """The project's modules that `source` imports anywhere: at its top, in functions, for types."""
    package = ("edge", *module[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [named(alias.name) for alias in node.names if alias.name.startswith("edge.")]
            yield from (target for target in found if target is not None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join((*above, base) if base else above)
            if base.split(".")[0] != "edge":
                continue
            for alias in node.names:
                target = named(f"{base}.{alias.name}") or named(base)
                assert target is not None or base == "edge", f"{module}: no module {base}"
                if target is not None:
                    yield target


@cache
def imports() -> dict[Module, frozenset[Module]]:
    """Every module's imports of the project."""
    return {
        module: frozenset(imports_of(module, file.read_text(encoding="utf-8"))) - {module}
        for module, file in modules().items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of names that import each other, directly or around a corner."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in edges.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reached = {name: reachable(name) for name in edges}
    groups = {
        tuple(sorted({name} | {other for other in reached[name] if name in reached.get(other, ())}))
        for name in edges
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def packages() -> list[Module]:
    return sorted({module[:depth] for module in modules() for depth in range(len(module))})


@pytest.mark.parametrize("package", packages(), ids=lambda package: ".".join(package) or "edge")
def test_nothing_in_a_package_imports_in_a_circle(package: Module) -> None:
    """Between the files and folders that lie directly in one folder."""
    depth = len(package)
    edges: dict[str, set[str]] = defaultdict(set)
    witnesses: dict[tuple[str, str], str] = {}
    for module, targets in imports().items():
        for target in targets:
            inside = module[:depth] == package == target[:depth]
            if inside and module[depth] != target[depth]:
                edges[module[depth]].add(target[depth])
                line = f"{'/'.join(module)} imports {'/'.join(target)}"
                witnesses[module[depth], target[depth]] = line
    for circle in circles(edges):
        lines = [
            line for (name, target), line in witnesses.items() if {name, target} <= set(circle)
        ]
        pytest.fail("a circle of imports:\n  " + "\n  ".join(lines), pytrace=False)


def test_no_subpackage_imports_a_later_one() -> None:
    order = {name: place for place, name in enumerate(SUBPACKAGES)}
    upward = [
        f"{'/'.join(module)} imports {'/'.join(target)}"
        for module, targets in imports().items()
        for target in targets
        if order[target[0]] > order[module[0]]
    ]
    assert not upward, "\n".join(upward)


def test_circles_are_found() -> None:
    """The check itself: two that import each other, one around a corner, and one in no circle."""
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}}) == []


def test_imports_for_types_and_in_functions_count() -> None:
    source = (
        "if TYPE_CHECKING:\n    from edge.train import config\n"
        "def later():\n    from edge.runtime.rows import Row\n"
    )
    assert set(imports_of(("cli", "main"), source)) == {
        ("train", "config"),
        ("runtime", "rows", "__init__"),
    }


def test_setup_cfg_lists_every_package() -> None:
    """A folder that is not listed would be missing from an installation."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = settings["options"]["packages"].split()
    folders = sorted(
        ".".join(("edge", *module[:-1])) for module in modules() if module[-1] == "__init__"
    )
    assert sorted(listed) == ["edge", *folders]
    mapped = dict(
        line.split(" = ") for line in settings["options"]["package_dir"].strip().splitlines()
    )
    assert mapped.pop("edge") == "cli/entry"
    assert mapped == {name: name.removeprefix("edge.").replace(".", "/") for name in folders}


def test_every_folder_of_code_is_a_package() -> None:
    """Without its `__init__.py` a folder would not be installed."""
    without = sorted(
        {
            file.parent.relative_to(ROOT).as_posix()
            for file in modules().values()
            if not (file.parent / "__init__.py").exists()
        }
    )
    assert without == sorted(NO_PACKAGES)


def test_long_files_say_why() -> None:
    """A file over 300 lines gives its reason in its first comment."""
    without = []
    for module, file in modules().items():
        lines = file.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGEST_FILE:
            first = next((line for line in lines if line.lstrip().startswith("#")), "")
            if "line" not in first:
                without.append(f"{'/'.join(module)}: {len(lines)} lines")
    assert not without, "\n".join(without)
