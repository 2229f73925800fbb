"""The Python of README and docs does what the text says it does."""

import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from rlli_jax.envs.policy import evaluate
from rlli_jax.envs.provider_selection import ProviderSelection

ROOT = Path(__file__).parent.parent


def executed(path):
    """What the Python blocks of a page define, run one after the other."""
    defined = {"__name__": "documentation"}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / path).read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, path, "exec"), defined)
    return defined


def test_readme_learns_the_best_provider_of_each_persona():
    share = np.asarray(executed("README.md")["share"])
    assert share.shape == (8,)
    assert np.allclose(share, 1, atol=1e-4)


def test_an_environment_of_ones_own_is_learned(capsys):
    executed("docs/environments.md")
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["PPO"]) > 1.1 * float(printed["random"])


def test_the_learner_of_the_guide_learns_the_best_provider_of_each_user():
    guide = runpy.run_path(str(ROOT / "docs" / "how-to" / "q_learning.py"))
    env = ProviderSelection(observation=("user",))
    params = env.default_params
    learner = guide["q_learning"](env)
    state, metrics = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: learner.step(s, params), state, length=100)
    )(learner.init(jax.random.key(0), guide["QHyperparams"](), params))
    result = evaluate(env, learner.policy(state), jax.random.key(1), params, 16)
    best = float(params.mean.max(-1).mean(-1).sum())
    assert metrics["episode_return"][0] < 0.8 * best
    assert float(result.returns.mean()) == pytest.approx(best, abs=1e-4)
