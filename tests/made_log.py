"""Logs of one service with a known truth."""

import numpy as np

from rlli_jax.feedback import Log


def made_log(n=600, providers=3, slope=0.0, seed=0, users=None, logging=None):
    """QoE = level of the provider + slope x (trait that only provider 0 pleases) + noise."""
    rng = np.random.default_rng(seed)
    users = n if users is None else users
    traits = rng.standard_normal((users, 2))
    user = np.arange(n) % users
    context = traits[user]
    logging = np.full(providers, 1 / providers) if logging is None else np.asarray(logging)
    action = rng.choice(providers, n, p=logging)
    level = np.linspace(0.4, 0.6, providers)
    mean = level[None] + slope * np.eye(providers)[0][None] * context[:, :1]
    reward = np.clip(mean[np.arange(n), action] + 0.1 * rng.standard_normal(n), 0, 1)
    log = Log(
        providers=tuple("ABCDEFGH"[:providers]),
        action=action,
        reward=reward,
        propensity=logging[action],
        context=context,
        context_names=("x", "y"),
        user=user,
        offered=np.ones((n, providers), bool),
    )
    return log, mean
