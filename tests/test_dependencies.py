"""Imports run one way, eval -> distill -> data, and torch stays out of data except where batches become tensors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"data": {"distill", "eval", "tests"}, "distill": {"eval", "tests"}, "eval": {"tests"}}


def imported(path: Path) -> set[str]:
    """Top-level names of every import of a file, also those inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


@pytest.mark.parametrize("path", [p for part in FORBIDDEN for p in sorted((ROOT / part).rglob("*.py"))], ids=str)
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    torch_too = {"torch"} if part == "data" and path != ROOT / "data" / "loader" / "batches.py" else set()
    assert not imported(path) & (FORBIDDEN[part] | torch_too)
