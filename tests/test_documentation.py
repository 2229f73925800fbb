"""The Python of README and docs does what the text says it does."""

import re
from pathlib import Path

import numpy as np

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
