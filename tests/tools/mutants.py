"""Changes a module's code at random, one place at a time, and counts how many changes its tests find.

    make mutants MODULE=otel_mlmon/processor/detect/evidence.py
    python -m tests.tools.mutants otel_mlmon/sketch/moments.py --sample 25 --seed 1

A change that no test finds is printed as the line it changed: a test is missing there, or the change changes nothing
that can be seen. The latter are written into `equivalent_mutants.txt` with the reason, and are left out of the count.
The work is done in a copy of the repository.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np  # noqa: F401
import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
EQUIVALENT: Final = Path(__file__).with_name("equivalent_mutants.txt")
TIME_LIMIT_S: Final = 300

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one module."""

    line: int
    before: str
    """The code of the changed expression or statement as it is."""
    after: str
    source: str
    """The whole module, changed."""

    @property
    def title(self) -> str:
        """The change on one line, as `equivalent_mutants.txt` has it."""
        return f"{self.before} -> {self.after}"


def mutants_of(source: str) -> list[Mutant]:
    """Every change that is known, in the order of the source."""
    tree = ast.parse(source)
    skipped = _positions_without_behaviour(tree)
    mutants = []
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for changed in _changes(node):
            mutants.append(_mutant(source, tree, index, node, changed))
    return sorted(mutants, key=lambda mutant: mutant.line)


def _positions_without_behaviour(tree: ast.Module) -> set[int]:
    """Annotations, docstrings, imports, texts for people and type definitions."""
    roots = [root for node in ast.walk(tree) for root in _parts_without_behaviour(node)]
    return {id(child) for root in roots if root is not None for child in ast.walk(root)}


def _parts_without_behaviour(node: ast.AST) -> list[ast.AST | None]:
    if isinstance(node, ast.AnnAssign | ast.arg):
        return [node.annotation]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.returns, *node.decorator_list]
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list]
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    is_other = isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Raise | ast.Assert)
    return [node] if is_text or is_for_types or is_other else []


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield ast.Compare(left=node.left, ops=[_COMPARISONS[type(node.ops[0])]()], comparators=node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(left=node.left, op=_OPERATORS[type(node.op)](), right=node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(value=node.value + 1)
    elif isinstance(node, ast.If):
        yield ast.If(test=ast.UnaryOp(op=ast.Not(), operand=node.test), body=node.body, orelse=node.orelse)
    elif isinstance(node, ast.Expr | ast.AugAssign | ast.Break | ast.Continue):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(value=None)


def _mutant(source: str, tree: ast.Module, index: int, node: ast.AST, changed: ast.AST) -> Mutant:
    """The module with the node at `index` of a walk replaced; a bare number or truth value is shown with its parent."""
    mutated = copy.deepcopy(tree)
    target = next(child for position, child in enumerate(ast.walk(mutated)) if position == index)

    class Replacer(ast.NodeTransformer):
        def visit(self, visited: ast.AST) -> ast.AST:
            return ast.copy_location(changed, visited) if visited is target else self.generic_visit(visited)

    shown = (node, changed)
    if isinstance(node, ast.Constant):
        shown = (_parent(tree, node), _parent(mutated, target))
    replaced = ast.fix_missing_locations(Replacer().visit(mutated))
    before, after = (ast.unparse(part).split("\n")[0][:100] for part in shown)
    return Mutant(line=getattr(node, "lineno", 0), before=before, after=after, source=ast.unparse(replaced))


def _parent(tree: ast.Module, node: ast.AST) -> ast.AST:
    return next(parent for parent in ast.walk(tree) if node in ast.iter_child_nodes(parent))


def tests_of(module: Path) -> list[str]:
    """What is run against a changed module: its own tests, its folder's, the contracts, those of the folders above."""
    parts = module.with_suffix("").parts[1:]
    folder = ROOT / "tests" / Path(*parts[:-1])
    own = sorted(folder.glob(f"test_{parts[-1]}*.py"))
    others = [path for path in sorted(folder.glob("test_*.py")) if path not in own]
    above = sorted(folder.parent.glob("test_*.py")) if len(parts) > 3 else []
    pipelines = sorted((ROOT / "tests" / parts[0]).glob("test_pipeline*.py")) if len(parts) > 1 else []
    tests = [*own, *others, *sorted((ROOT / "tests" / "contracts").glob("test_*.py")), *above, *pipelines]
    return [str(path.relative_to(ROOT)) for path in dict.fromkeys(tests)]


def run_tests(tests: list[str]) -> int:
    """Runs tests in a fork of this process; returns the exit status, or -1 at a time-out."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgrp()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not e2e"]
        os._exit(int(pytest.main([*options, *tests])))
    deadline_s = time.monotonic() + TIME_LIMIT_S
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        select.select([], [], [], 0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def try_mutants(module: Path, sample: list[Mutant], tests: list[str]) -> list[Mutant]:
    """Writes each change into the module, here in the copy, and returns those that no test finds.

    Raises:
        RuntimeError: The tests fail without any change.
    """
    if run_tests(tests) != 0:
        raise RuntimeError(f"The tests of {module} fail without any change: {' '.join(tests)}")
    survivors = []
    for mutant in sample:
        module.write_text(mutant.source, encoding="utf-8")
        if run_tests(tests) == 0:
            survivors.append(mutant)
            print(f"{module}:{mutant.line}: not found: {mutant.title}", flush=True)
    return survivors


def equivalent_mutants(module: Path) -> set[str]:
    """The titles of the changes of `module` that change nothing that can be seen."""
    titles = set()
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        name, _, fields = line.partition(" | ")
        if name == str(module):
            titles.add(fields.partition(" | ")[0])
    return titles


def copy_repository(target: Path) -> None:
    """Copies the files that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def main() -> int:
    """Prints the changes that no test found, and the share that was found; ends with 1 below 95 %."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("module", type=Path, help="a module of the package, relative to the repository")
    parser.add_argument("--sample", type=int, default=25, help="how many changes are tried (25)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--tests", nargs="*", help="the tests to run, instead of those that belong to the module")
    parser.add_argument("--here", action="store_true", help="change the files of this checkout: for a copy of it")
    arguments = parser.parse_args()
    if not arguments.here:
        with tempfile.TemporaryDirectory() as directory:
            copy_repository(Path(directory))
            command = [sys.executable, "-m", "tests.tools.mutants", "--here", *sys.argv[1:]]
            environment = {**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"}
            return subprocess.run(command, cwd=directory, env=environment).returncode
    module: Path = arguments.module
    equivalent = equivalent_mutants(module)
    mutants = [mutant for mutant in mutants_of(module.read_text("utf-8")) if mutant.title not in equivalent]
    sample = random.Random(arguments.seed).sample(mutants, min(arguments.sample, len(mutants)))
    survivors = try_mutants(module, sample, arguments.tests or tests_of(module))
    share = 1 - len(survivors) / len(sample) if sample else 1.0
    print(f"{module}: {len(sample) - len(survivors)} of {len(sample)} changes found ({share:.0%}), of {len(mutants)}")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
