"""People whom nobody asked: what they think of each provider, by their persona or a few ratings.

The same model (:mod:`rlli_jax.qoe.model`) believes the row of a newcomer, QoE of all pictures, to
be normal. With known traits its mean is what they explain; without, that of the people in the
model, and traits add to the covariance as they differ among those people. A few ratings of the
newcomer's own update the row by conditioning: what tastes go together was learned from the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from rlli_jax.qoe.model import QoEModel
from rlli_jax.qoe.model_blocks import basis, by_pairs, coefficient_block, pairs, user_prior


class Foreseen(NamedTuple):
    """What a person is believed to think of each provider, mean over the requests."""

    mean: np.ndarray  # [L]
    low: np.ndarray  # [L], end of the 90 % interval, within [0, 1]
    high: np.ndarray  # [L]


def foresee(
    model: QoEModel,
    traits: np.ndarray | None,
    cells: np.ndarray | None = None,
    ratings: np.ndarray | None = None,
) -> Foreseen:
    """Predict a newcomer.

    Args:
        model: of the people who were asked.
        traits: Big Five [5] on the 1-5 scale; None where they are unknown.
        cells: [n, 2], request and provider of each rating; None for no ratings.
        ratings: QoE [n] in [0, 1].
    """
    mean, covariance = _row(model, traits)
    _, requests, providers = model.shape
    if cells is not None and ratings is not None and len(cells):
        places = cells[:, 0] * providers + cells[:, 1]
        noise = model.variances.noise * np.eye(len(places))
        gain = np.linalg.solve(covariance[np.ix_(places, places)] + noise, covariance[places])
        mean = mean + gain.T @ (ratings - mean[places])
        covariance = covariance - covariance[:, places] @ gain
    average = np.tile(np.eye(providers), (1, requests)) / requests
    values = average @ mean
    reach = ndtri(0.95) * np.sqrt(np.maximum(np.diag(average @ covariance @ average.T), 0))
    low, high = np.clip(values - reach, 0, 1), np.clip(values + reach, 0, 1)
    return Foreseen(np.clip(values, 0, 1), low, high)


def beliefs(model: QoEModel) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """How sure the model is of newcomers, made ready to be asked often.

    Returns:
        features of personas [n, F], requests [n] int -> covariance over the providers of what each
        thinks, [n, L, L]. A request's number beyond the last stands for the mean over requests.
    """
    _, requests, providers = model.shape
    found = []
    given = keep = np.zeros_like(model.provider_covariance)
    for request in range(requests):
        block = coefficient_block(model.gram[request : request + 1], model.variances)
        moved = block.keep @ model.provider_covariance @ block.keep.swapaxes(1, 2)
        found.append(by_pairs(block.covariance + moved, providers)[0])
        given = given + block.covariance[0] / requests**2
        keep = keep + block.keep[0] / requests
    found.append(by_pairs((given + keep @ model.provider_covariance @ keep.T)[None], providers)[0])
    whole = np.stack(found)  # [R + 1, L, L, pairs]
    own = user_prior(model.variances, providers)
    of_request = np.append(np.ones(requests), 1 / requests) * model.variances.user_request

    def belief(phi: np.ndarray, request: np.ndarray) -> np.ndarray:
        place = np.minimum(request, requests)
        explained = np.einsum("np,nlmp->nlm", pairs(phi), whole[place])
        return np.asarray(explained + own + of_request[place, None, None])

    return belief


def _row(model: QoEModel, traits: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean [R L] and covariance [R L, R L] of the QoE of all pictures, before any rating."""
    _, requests, providers = model.shape
    people = model.phi if traits is None else model.features(np.asarray(traits)[None], 1)
    phi = people.mean(0)
    block = coefficient_block(model.gram, model.variances)
    along = np.einsum("hl,f->lhf", basis(providers), phi).reshape(providers, -1)
    values, vectors = np.linalg.eigh(model.provider_covariance)
    factor = along @ block.keep @ (vectors * np.sqrt(np.maximum(values, 0)))
    factor = factor.reshape(requests * providers, -1)
    covariance = factor @ factor.T
    covariance += np.tile(user_prior(model.variances, providers), (requests, requests))
    given = along @ block.covariance @ along.T + model.variances.user_request
    for request in range(requests):
        own = slice(request * providers, (request + 1) * providers)
        covariance[own, own] += given[request]
    if traits is None and model.phi.shape[1] > 1:
        slopes = model.coefficients.reshape(requests * providers, -1)
        covariance += slopes @ np.cov(model.phi, rowvar=False) @ slopes.T
    return model.level + (model.coefficients @ phi).ravel(), covariance
