"""Draws names and first lines of docstrings at random, for a reader who is to say what they mean without the code.

    python -m tests.tools.names --seed 7
    python -m tests.tools.names --seed 7 --answers

The second form adds where each stands, to check the answers by.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[2] / "otel_mlmon"


def definitions(package: Path) -> Iterator[tuple[str, str, str]]:
    """Qualified name, first line of the docstring (empty without one) and place of every definition."""
    for path in sorted(package.rglob("*.py")):
        parts = [part for part in path.relative_to(package).with_suffix("").parts if part != "__init__"]
        stack = [(".".join(parts), ast.parse(path.read_text(encoding="utf-8")).body)]
        while stack:
            prefix, body = stack.pop()
            for node in body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:2] != "__":
                    name = f"{prefix}.{node.name}"
                    documentation = (ast.get_docstring(node) or "").split("\n")[0]
                    yield name, documentation, f"{path.relative_to(package)}:{node.lineno}"
                    if isinstance(node, ast.ClassDef):
                        stack.append((name, node.body))


def main() -> int:
    """Prints as many names and as many first lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.names", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--answers", action="store_true", help="say where each stands")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the package to draw from")
    arguments = parser.parse_args()
    entries = list(definitions(arguments.package))
    chance = random.Random(arguments.seed)
    for title, column in (("Names", 0), ("First lines", 1)):
        print(title)
        drawn = chance.sample([entry for entry in entries if entry[column]], arguments.count)
        for number, entry in enumerate(drawn, start=1):
            print(f"{number:3}. {entry[column]}" + (f"    [{entry[0]}, {entry[2]}]" if arguments.answers else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
