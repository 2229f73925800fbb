"""Published norms of the five traits: means, standard deviations and correlations.

The figures ship with the package in ``data/``; ``data/README.md`` names their sources. Means and
standard deviations are Johnson's for the IPIP-NEO-120, brought from the raw 24-120 scores to the
1-5 scale (raw / 24, the mean answer to an item).
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from rlli_jax.errors import InputError


class Norm(NamedTuple):
    """The distribution of the traits in a group of people, on the 1-5 scale, in order O C E A N."""

    mean: np.ndarray  # float64 [5]
    sd: np.ndarray  # float64 [5]


@cache
def load_data(name: str) -> dict[str, Any]:
    """Return the parsed JSON file ``data/<name>.json`` of this package."""
    text = files("rlli_jax.personas").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def groups() -> tuple[str, ...]:
    """Names of the groups that have norms: sex and age, such as ``"women 21-40"``."""
    return tuple(load_data("johnson_ipip_neo_120_domain_norms")["groups"])


def group_norm(group: str) -> Norm:
    """Norm of one of the ``groups()``.

    Raises:
        InputError: the group has no norms.
    """
    data = load_data("johnson_ipip_neo_120_domain_norms")
    if group not in data["groups"]:
        raise InputError(
            f"There are no norms for the group {group!r}; choose one of: {', '.join(groups())}."
        )
    figures, items = data["groups"][group], data["items_per_domain"]
    return Norm(np.array(figures["mean"]) / items, np.array(figures["sd"]) / items)


@cache
def pooled_norm() -> Norm:
    """Norm of all groups together, each with the same weight.

    The variance is that of the mixture: the mean variance within the groups plus the variance
    between their means.
    """
    norms = [group_norm(group) for group in groups()]
    means = np.stack([norm.mean for norm in norms])
    variances = np.stack([norm.sd for norm in norms]) ** 2
    return Norm(means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0)))


def traits_of(group: str, correlations: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean [5] and covariance [5, 5] of the traits in a group, before they are clipped to 1-5.

    Args:
        group: one of :func:`groups`.
        correlations: one of :func:`correlation_names`.

    Raises:
        InputError: a name is unknown.
    """
    mean, sd = group_norm(group)
    return mean, correlation_matrix(correlations) * np.outer(sd, sd)


def correlation_names() -> tuple[str, ...]:
    """Names of the published matrices of correlations between the traits."""
    return tuple(load_data("big5_intercorrelations")["matrices"])


def correlation_matrix(name: str) -> np.ndarray:
    """Correlations between the traits, float64 [5, 5], in order O C E A N.

    Raises:
        InputError: no published matrix has this name.
    """
    matrices = load_data("big5_intercorrelations")["matrices"]
    if name not in matrices:
        raise InputError(
            f"There are no trait correlations named {name!r}; "
            f"choose one of: {', '.join(correlation_names())}."
        )
    return np.array(matrices[name]["r"], dtype=np.float64)
