"""A service of a made-up policy; as a program, it serves on a port: made_service.py LOG PORT."""

import sys
from pathlib import Path

import numpy as np

from rlli_jax.service import Arm, Epsilon, ServedPolicy, open_decisions
from rlli_jax.service.app import Settings, make_app
from rlli_jax.service.selecting import Selector

PROVIDERS = ("ink", "oil", "wax")
PERSONA = [4.2, 3.1, 2.5, 3.9, 2.0]


def policy(name="open", providers=PROVIDERS, observes=("persona",), best=None):
    """Open people get the first provider of those offered, others the last; or always ``best``."""

    def choose(persona, user, request, offered):
        likes = np.where(persona[:, :1] > 3, [[3.0, 2.0, 1.0]], [[1.0, 2.0, 3.0]]) / 10
        if best is not None:
            likes = np.tile([float(p == best) for p in providers], (len(persona), 1))
        return np.where(offered, likes, -1).argmax(1), likes

    def belief(persona, user, request):  # the last provider is the least known
        return np.tile(np.diag([0.01, 0.01, 0.09][: len(providers)]), (len(persona), 1, 1))

    users = {"ann": (5.0, 3.0, 3.0, 3.0, 3.0), "ben": (1.0, 3.0, 3.0, 3.0, 3.0)}
    return ServedPolicy(
        name=name, judge="made up (a stand-in)", providers=providers, requests=("a cat", "a dog"),
        users=users, observes=frozenset(observes), predicts_by_persona=True, choose=choose,
        belief=belief,
    )  # fmt: skip


def made_app(log, *, arms=None, rule=None, key=None, rate=1e6, load=None):
    """``log``: a file, or an address."""
    selector = Selector(arms or [Arm(policy(), 1.0)], rule or Epsilon(0.3), seed=0)
    decisions = open_decisions(str(log) if "://" in str(log) else f"sqlite:///{Path(log)}")
    return make_app(selector, decisions, Settings(1, 5, rate, key, load))


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(made_app(sys.argv[1]), port=int(sys.argv[2]), log_level="error")
