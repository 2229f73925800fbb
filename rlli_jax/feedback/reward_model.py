"""A model of the reward for each round and provider, fitted on other users than it is used on."""

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from rlli_jax.feedback.log import FOLDS, Log

PENALTIES = np.logspace(-1, 5, 13)


def folds(log: Log, seed: int = 0) -> np.ndarray:
    """Which of ``FOLDS`` folds each round belongs to, [n] int; the rounds of a user share one.

    Raises:
        InputError: there are fewer users than folds.
    """
    log.require_users()
    fold = np.zeros(len(log), int)
    split = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for i, (_, test) in enumerate(split.split(log.context, groups=log.user)):
        fold[test] = i
    return fold


def fit_predict(
    log: Log, train: np.ndarray, test: np.ndarray, *, interactions: bool = True
) -> np.ndarray:
    """Expected reward of every provider in the rounds ``test``, learned on ``train``: [n, L].

    Ridge regression on the context, the provider, and (unless ``interactions`` is off) their
    products; its penalty by generalised cross-validation within ``train``.

    Args:
        train, test: which rounds, [n] bool.
    """
    mean = log.context[train].mean(0)
    spread = log.context[train].std(0)
    context = (log.context - mean) / np.where(spread > 0, spread, 1)
    providers = len(log.providers)

    def design(context: np.ndarray, action: np.ndarray) -> np.ndarray:
        chosen = np.eye(providers)[action]
        parts = [context, chosen]
        if interactions:
            parts.append((chosen[:, :, None] * context[:, None]).reshape(len(context), -1))
        return np.hstack(parts)

    model = RidgeCV(PENALTIES).fit(design(context[train], log.action[train]), log.reward[train])
    return np.stack(
        [
            model.predict(design(context[test], np.full(int(test.sum()), a)))
            for a in range(providers)
        ],
        1,
    ).clip(0, 1)


def cross_fitted(log: Log, *, interactions: bool = True, seed: int = 0) -> np.ndarray:
    """Expected reward of every provider in every round, by models that did not see it: [n, L].

    Cross-fitting as in Chernozhukov et al. 2018, with whole users left out.
    """
    fold = folds(log, seed=seed)
    q = np.zeros((len(log), len(log.providers)))
    for i in np.unique(fold):
        q[fold == i] = fit_predict(log, fold != i, fold == i, interactions=interactions)
    return q
