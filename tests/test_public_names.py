"""``from rlli_jax import ...``: every public name, and nothing before it is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rlli_jax
from rlli_jax.judges import named_scale


def python(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_alone_imports_nothing_that_takes_time():
    heavy = {"jax", "numpy", "pydantic", "pandas", "flax", "gymnax", "scipy", "matplotlib"}
    program = f"import sys, rlli_jax; print(*({heavy} & set(sys.modules)), dir(rlli_jax))"
    assert python(program).startswith("[")


def test_a_table_needs_no_jax():
    program = "import sys; from rlli_jax import QoETable, Population; print('jax' in sys.modules)"
    assert python(program) == "False"


@pytest.mark.parametrize("name", rlli_jax.__all__)
def test_every_public_name_is_there_with_a_docstring(name):
    value = getattr(rlli_jax, name)
    assert value.__doc__
    assert name in dir(rlli_jax)


def test_type_checkers_see_the_same_names_from_the_same_rooms():
    tree = ast.parse(Path(rlli_jax.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {
        name: f"rlli_jax{room}" for room, names in rlli_jax._ROOMS.items() for name in names
    }
    assert sorted(seen) == sorted(rlli_jax.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'rlli_jax' has no attribute 'PP0'"):
        rlli_jax.PP0  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'PP0'"):
        from rlli_jax import PP0  # noqa: F401


def test_the_package_says_that_it_is_typed():
    assert (Path(rlli_jax.__file__).parent / "py.typed").exists()


def test_what_holds_many_things_shows_how_many_and_not_all_of_them():
    users = rlli_jax.Population.sample(300, group="women 21-40", seed=0)
    studio = rlli_jax.Catalog.studio()
    questions = rlli_jax.build_questions(users, studio, named_scale("adjectives"), 2)
    n = 1000
    log = rlli_jax.Log(
        ("a", "b"), np.zeros(n, int), np.full(n, 0.5), np.full(n, 0.5), np.zeros((n, 1)), ("x",),
        np.arange(n) // 2, np.ones((n, 2), bool),
    )  # fmt: skip
    assert repr(users) == "Population(300 personas from 'User 1')"
    assert repr(rlli_jax.Population.named(["ann"])) == (
        "Population(1 personas from 'ann', traits unknown)"
    )
    assert repr(studio) == "Catalog(6 requests x 4 providers, 24 pictures)"
    assert repr(questions) == (
        "Questions(300 users x 24 pairs of request and provider x 2 samples, scale='adjectives')"
    )
    assert repr(log) == "Log(1000 rounds, 500 users, 2 providers)"


def test_every_module_is_short_enough_to_be_read_in_one_go():
    package = Path(rlli_jax.__file__).parent
    lines = {p: len(p.read_text("utf-8").splitlines()) for p in package.rglob("*.py")}
    assert {str(path): n for path, n in lines.items() if n > 450} == {}
