"""A table of QoE as a log in which everybody was served by every provider.

So the one test and the one number of :mod:`rlli_jax.feedback.personal` answer for a table too
whether personalising is worth it, before anything is trained on it.
"""

import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.feedback.log import FOLDS, Log
from rlli_jax.feedback.personal import gain_of_personalising, interaction_test
from rlli_jax.personas import TRAITS
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.people import Interaction, Personalising

MOST_USERS = 300  # of more, so many are drawn at random


def log_of_table(table: QoETable, traits: np.ndarray, seed: int = 0) -> Log:
    """Each user's mean QoE over requests of each provider, as a round.

    Every provider of a user counts alike, so that weighted means over the rounds are the values of
    policies exactly, without the noise of a log in which each is chosen once.

    Args:
        table: [K, R, L]; who has no rating of a provider at all is not offered it.
        traits: [K, 5].
        seed: of the draw, where there are more than ``MOST_USERS`` users.
    """
    users = np.random.default_rng(seed).permutation(len(traits))[:MOST_USERS]
    offered = np.asarray(table.valid[users].any((1, 3)))  # [K, L]
    user, action = np.nonzero(offered)
    return Log(
        providers=table.providers,
        action=action,
        reward=np.asarray(table.provider_values[users][user, action], np.float64).clip(0, 1),
        propensity=1 / offered.sum(1)[user],
        context=np.asarray(traits, np.float64)[users][user],
        context_names=tuple(TRAITS),
        user=user,
        offered=offered[user],
        propensities="everybody was served by every provider",
    )


def personalising(table: QoETable, traits: np.ndarray) -> Personalising:
    """Is personalising worth it by this table? Says why, where there are too few users to tell."""
    log = log_of_table(table, traits)
    users, of = log.users, len(traits)
    if users < FOLDS:
        why = f"{users} users are too few; at least {FOLDS} are needed"
        return Personalising(users=users, of=of, why=why)
    gain, why = gain_of_personalising(log), ""
    interaction: Interaction | None = None
    try:
        interaction = interaction_test(log)
    except InputError as error:
        why = str(error).removesuffix(".").replace("the log", "the table")
    return Personalising(
        users=users, of=of, gain=gain, advice=gain.advice, interaction=interaction, why=why
    )
