"""The shape of the product: which module may import which, how many files there are, one meaning for a name."""

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scripts", "eval", "distill", "data")
"""A package imports those to its right."""
ORDER = {
    "data": "inspect augment translate vocab fetch build loader miniature clean sources jit files cli",
    "distill": (
        "export api long_prompts prepare train text_encoder losses student unet_geometry geometry distributed "
        "text_tower loading single_file"
    ),
    "eval": (
        "flickr30k_cn nouns translation pairs ablation demo report gan speed miniature generation "
        "prompts pictures retrieval golden datasets metrics"
    ),
}
"""The same inside a package: a module or sub-package imports those to its right."""
SAME_NAMES = {
    "main": "the entry point of a command",
    "parse_args": "the command line of a module of many options",
    "parse_options": "the command line of a module of many options",
}
"""Public names that several modules define, and what they mean in all of them."""
TWO_MEANINGS: set[str] = set()
"""Public names that stand for two things and wait for a better one: this list only shrinks."""


def product() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = product()


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(module: str, at_once: bool = False) -> Iterator[str]:
    """Dotted names of all imports, also inside functions unless `at_once`; `from a import b` is a.b if a module."""
    for node in parsed(module).body if at_once else ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            yield from ((dotted if (dotted := f"{source}.{a.name}") in MODULES else source) for a in node.names)


def room(module: str) -> tuple[str, str]:
    """(package, module or sub-package below it)."""
    package, *rest = module.split(".")
    return package, rest[0] if rest else ""


@pytest.mark.parametrize("module", [module for module in MODULES if room(module)[0] != "scripts"])
def test_imports_run_downward(module: str) -> None:
    package, place = room(module)
    outside = {*PACKAGES[: PACKAGES.index(package)], "tests"} | ({"torch"} if package == "data" else set())
    outside -= {"torch"} if module == "data.loader.batches" else set()  # where batches become tensors
    assert not {room(name)[0] for name in imported(module)} & outside
    order = ORDER[package].split()
    below = order[order.index(place) :] if place else order  # the package's own __init__ is on top
    used = {inner for top, inner in map(room, set(imported(module)) & set(MODULES)) if top == package}
    assert used <= {*below, ""}, f"{module} may import {', '.join(below)}"


def test_the_order_names_every_folder_and_module() -> None:
    named = {(package, place) for package, places in ORDER.items() for place in places.split()}
    assert {(package, place) for package, place in map(room, MODULES) if package in ORDER and place} <= named


def test_every_command_prints_errors_as_one_line_on_any_terminal() -> None:
    commands = [name for name, path in MODULES.items() if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    calls = {name: [node for node in ast.walk(parsed(name)) if isinstance(node, ast.Call)] for name in commands}
    assert len(commands) > 20
    assert [name for name in commands if "run_cli" not in {ast.unparse(call.func) for call in calls[name]}] == []


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter({module: {*imported(module)} & set(MODULES) - {module} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]), pytrace=False)


def test_a_mistake_on_a_benchmarks_command_line_does_not_wait_for_torch() -> None:
    """With a module, the packages around it are imported."""
    reached, todo = set[str](), {"eval.flickr30k_cn", "eval.nouns", "eval.report.__main__"}
    while todo:
        reached |= todo
        names = {name for module in todo & set(MODULES) for name in imported(module, at_once=True)}
        todo = {part for name in names for part in accumulate(name.split("."), "{}.{}".format)} - reached
    assert "eval.datasets.benchmark" in reached
    assert not {"torch", "transformers"} & {name.partition(".")[0] for name in reached}


def test_a_public_name_has_one_meaning() -> None:
    places = defaultdict(set)
    for module in MODULES:
        for node in parsed(module).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(module)
    several = {name for name, modules in places.items() if len(modules) > 1} - set(SAME_NAMES)
    assert several == TWO_MEANINGS, {name: places[name] for name in several ^ TWO_MEANINGS}


def test_files_are_few_and_of_one_size() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    markers = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert 145 <= len(lines.keys() - {module for module in markers if lines[module] < 5}) <= 165
    assert [module for module, count in lines.items() if count > 260] == []
    short = [module for module, count in lines.items() if count < 40 and module not in markers]
    assert len(short) < 10, short
