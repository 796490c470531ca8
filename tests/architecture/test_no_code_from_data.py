"""Nothing in distlog makes code, or objects of any class, out of bytes that somebody else has written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PRODUCT = Path(__file__).parents[2] / "distlog"
MODULES = {
    "pickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "yaml",
    "code",
}
CALLS = {"eval", "exec", "compile", "__import__"}


def problems(source: str) -> Iterator[str]:
    """Yield what in a module could make code out of data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}", *(f"{node.module}.{each.name}" for each in node.names)]
        else:
            names = []
        yield from (name for name in names if MODULES & set(name.split(".")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node.func.id
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield node.arg
        if isinstance(node, ast.Attribute) and node.attr == "pickle":
            yield node.attr


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pysyncobj import pickle",
        "import pysyncobj.pickle as codec",
        "from pickle import loads",
        "import marshal",
        "eval('1')",
        "np.load(path, allow_pickle=True)",
        "library.pickle.loads(data)",
    ],
)
def test_what_could_unpickle_is_found(source: str) -> None:
    assert list(problems(source))


def test_no_module_makes_code_of_data() -> None:
    modules = sorted(PRODUCT.rglob("*.py"))
    assert len(modules) > 100
    found = {str(path): list(problems(path.read_text("utf-8"))) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}
