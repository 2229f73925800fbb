"""Nothing is written twice: no run of six lines of a function's body stands again elsewhere."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import rlli_jax

LEAST = 6  # lines in a row
THIN = re.compile(r"#.*|\w+=[^=].*,|[\W_]*(else|try|finally|return|continue|None|True)?[\W_]*")


def body_lines(source: str) -> list[tuple[int, str]]:
    """Number and text of the lines within functions; signatures, docstrings, imports, comments,
    options (``name=value,``) and lone punctuation aside."""
    kept: set[int] = set()
    left: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            left |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef):
            left |= set(range(node.lineno, node.body[0].lineno))
            kept |= set(range(node.body[0].lineno, node.end_lineno + 1))
    lines = source.splitlines()
    told = [(n, re.sub(r"\s+#.*", "", lines[n - 1]).strip()) for n in sorted(kept - left)]
    return [(n, line) for n, line in told if not THIN.fullmatch(line)]


def repeated(sources: dict[str, str]) -> dict[str, list[str]]:
    """Runs of ``LEAST`` lines that stand more than once, and where each begins."""
    places = defaultdict(list)
    for name, source in sources.items():
        told = body_lines(source)
        for i in range(len(told) - LEAST + 1):
            run = "\n".join(line for _, line in told[i : i + LEAST])
            places[run].append(f"{name}:{told[i][0]}")
    return {run: where for run, where in places.items() if len(where) > 1}


def test_no_six_lines_of_the_package_stand_twice():
    root = Path(rlli_jax.__file__).parent
    sources = {str(p.relative_to(root)): p.read_text("utf-8") for p in root.rglob("*.py")}
    assert len(sources) > 200
    assert repeated(sources) == {}


def test_a_repeated_run_is_found_and_a_repeated_signature_is_none():
    body = "".join(f"    a{i} = b + {i}\n" for i in range(LEAST))
    (where,) = repeated({"one.py": f"def f(b):\n{body}", "two.py": f"def g(b):\n{body}"}).values()
    assert where == ["one.py:2", "two.py:2"]
    signature = "def f(\n" + "".join(f"    x{i}: int,\n" for i in range(LEAST)) + ") -> int:\n"
    again = f'{signature}    """Says."""\n    return x0 + x1\n'
    assert repeated({"one.py": again, "two.py": again}) == {}
