"""The linear algebra of :mod:`rlli_jax.qoe.model`: two blocks of normal effects.

K users, R requests, L providers, F features of a persona, M = L x F coefficients of a request.
Coefficients are handled in the basis of :func:`basis`, in which their prior covariance is
diagonal. Posteriors are written with roots of prior covariances, so that a variance of 0 is an
effect of 0 and nothing has to be inverted that cannot be.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import helmert

from rlli_jax.personas.norms import pooled_norm

TRAITS = 5
SIZES = (1, 6, 21)  # numbers of features up to each of the groups
GROUPS = ("level", "linear", "quadratic")
EFFECTS = ("common", "contrast", "request common", "request contrast")


def persona_features(traits: np.ndarray | None, size: int) -> np.ndarray:
    """phi: [K, 21] of traits [K, 5] on the 1-5 scale; [size, 1] of ones where they are unknown."""
    if traits is None:
        return np.ones((size, 1))
    return np.asarray(features_of(np.asarray(traits, np.float64)))


def features_of(traits: Any) -> Any:
    """phi: [..., 21] of traits [..., 5] on the 1-5 scale, an array of any library that keeps to the
    array API standard (NumPy, JAX)."""
    norm, library = pooled_norm(), traits.__array_namespace__()
    z = (traits - norm.mean.astype(traits.dtype)) / norm.sd.astype(traits.dtype)
    first, second = np.triu_indices(TRAITS)
    squares = (first == second).astype(traits.dtype)
    products = z[..., first] * z[..., second]
    products = (products - squares) / np.where(squares, np.sqrt(2), 1).astype(traits.dtype)
    return library.concatenate([library.ones_like(z[..., :1]), z, products], -1)


def group_of(features: int) -> np.ndarray:
    """Which of ``GROUPS`` each feature is of: int [F]."""
    return np.repeat([0, 1, 2], np.diff(SIZES, prepend=0))[:features]


class Variances(NamedTuple):
    """What the answers say about how far effects spread, in QoE squared."""

    effects: np.ndarray  # [4 EFFECTS, 3 GROUPS], of the coefficients
    user_common: float  # a user's level
    user_contrast: float  # a user's own leaning to providers
    user_request: float  # a user's own leaning to a request, the same for its providers
    noise: float  # of an answer, over all users

    @property
    def numbers(self) -> np.ndarray:
        """All of them in one row."""
        return np.append(self.effects, self[1:])


class CoefficientBlock(NamedTuple):
    """Coefficients of some requests, given those of the providers; in the rotated basis."""

    information: np.ndarray  # [r, M, M], A: precision that the answers give
    free: np.ndarray  # [r, M, M], (1 + S A S)^-1, S the root of the prior variance of d
    covariance: np.ndarray  # [r, M, M] of d, given t
    keep: np.ndarray  # [r, M, M], how beta follows t: 1 - covariance @ A


class UserBlock(NamedTuple):
    """Users' own effects, given the coefficients."""

    weight: np.ndarray  # [K, R, L], precision of the answers
    shared: np.ndarray  # [K, R], what the user's effect on a request takes of each answer of it
    free: np.ndarray  # [K, L, L], (1 + S A S)^-1, S the root of the prior covariance of u
    covariance: np.ndarray  # [K, L, L] of u


def basis(providers: int) -> np.ndarray:
    """Orthogonal [L, L]: the first row is the mean (times the root of L), the others contrasts."""
    return np.asarray(helmert(providers, full=True))


def prior(variances: Variances, providers: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Prior variances of t and of d in the rotated basis, each [M], M = L x F."""
    by_feature = variances.effects[:, group_of(features)]
    t, d = (
        np.concatenate([by_feature[[i]], *[by_feature[[i + 1]]] * (providers - 1)]).ravel()
        for i in (0, 2)
    )
    return t, d


def rotated(gram: np.ndarray) -> np.ndarray:
    """Gram matrices of pictures [r, L, F, F] -> of requests, in the rotated basis: [r, M, M]."""
    requests, providers, features, _ = gram.shape
    turn = basis(providers)
    outer = (turn[:, None] * turn).reshape(-1, providers)  # [L L, L]
    full = (outer @ gram.reshape(requests, providers, -1)).reshape(
        requests, providers, providers, features, features
    )
    return full.swapaxes(2, 3).reshape(requests, providers * features, -1)


def unrotated(covariance: np.ndarray, providers: int) -> np.ndarray:
    """Matrices in the rotated basis [r, M, M] -> [r, L, L, F, F]."""
    turn = basis(providers)
    features = covariance.shape[-1] // providers
    full = covariance.reshape(-1, providers, features, providers, features).swapaxes(2, 3)
    full = full.reshape(len(full), providers * providers, -1)
    outer = (turn.T[:, None, :, None] * turn.T[None, :, None]).reshape(providers**2, -1)
    return (outer @ full).reshape(-1, providers, providers, features, features)


def of_pictures(covariance: np.ndarray, providers: int) -> np.ndarray:
    """The blocks of the pictures, of matrices in the rotated basis [r, M, M]: [r, L, F, F]."""
    blocks = np.einsum("rllfg->rlfg", unrotated(covariance, providers))
    return np.ascontiguousarray(blocks)


def coefficient_block(gram: np.ndarray, variances: Variances) -> CoefficientBlock:
    """From the weighted Gram matrices [r, L, F, F] of some requests."""
    _, providers, features, _ = gram.shape
    information = rotated(gram)
    root = np.sqrt(prior(variances, providers, features)[1])
    identity = np.eye(len(root))
    free = np.linalg.inv(identity + root[:, None] * information * root)
    covariance = root[:, None] * free * root
    return CoefficientBlock(information, free, covariance, identity - covariance @ information)


class Coefficients(NamedTuple):
    """Posterior of the coefficients, given users' own effects; rotated basis."""

    t: np.ndarray  # [M]
    d: np.ndarray  # [R, M]
    covariance: np.ndarray  # [M, M] of t
    free: np.ndarray  # [M, M], as of the block, for t

    def by_picture(self, providers: int) -> np.ndarray:
        """Means of beta: [R, L, F]."""
        rows = (self.t + self.d).reshape(len(self.d), providers, -1)
        return np.einsum("hl,rhf->rlf", basis(providers), rows)


def solve_coefficients(
    block: CoefficientBlock, totals: np.ndarray, variances: Variances
) -> Coefficients:
    """From the sums of weighted phi x (answer - own effects): [R, L, F]."""
    requests, providers, features = totals.shape
    sums = np.einsum("hl,rlf->rhf", basis(providers), totals).reshape(requests, -1)
    root = np.sqrt(prior(variances, providers, features)[0])
    information = (block.information @ block.keep).sum(0)
    free = np.linalg.inv(np.eye(len(root)) + root[:, None] * information * root)
    covariance = root[:, None] * free * root
    t = covariance @ times(block.keep.swapaxes(1, 2), sums).sum(0)
    d = times(block.covariance, sums - block.information @ t)
    return Coefficients(t, d, covariance, free)


def user_prior(variances: Variances, providers: int) -> np.ndarray:
    """Prior covariance of u over the providers: [L, L]."""
    mean = np.full((providers, providers), 1 / providers)
    return variances.user_common * mean + variances.user_contrast * (np.eye(providers) - mean)


def user_block(weight: np.ndarray, variances: Variances) -> UserBlock:
    """From the precisions of the answers [K, R, L]."""
    providers = weight.shape[-1]
    request = variances.user_request
    shared = request / (1 + request * weight.sum(-1))
    information = -np.einsum("kr,krl,krm->klm", shared, weight, weight, optimize=True)
    information[:, np.arange(providers), np.arange(providers)] += weight.sum(1)
    mean = np.full((providers, providers), 1 / providers)
    root = np.sqrt(variances.user_contrast) * (np.eye(providers) - mean)
    root += np.sqrt(variances.user_common) * mean
    free = np.linalg.inv(np.eye(providers) + root @ information @ root)
    return UserBlock(weight, shared, free, root @ free @ root)


def solve_users(block: UserBlock, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means of u [K, L] and v [K, R] from answers less what personas explain."""
    weighted = block.weight * residual
    total = weighted.sum(-1, keepdims=True)
    u = times(block.covariance, (weighted - block.weight * block.shared[..., None] * total).sum(1))
    v = block.shared * (total[..., 0] - np.einsum("krl,kl->kr", block.weight, u))
    return u, v


def user_covariance(block: UserBlock) -> np.ndarray:
    """Of u + v over the providers: [K, R, L, L]."""
    taken = block.shared[..., None] * block.weight  # what v follows of u
    moved = np.einsum("klm,krm->krl", block.covariance, taken)
    common = block.shared + np.einsum("krl,krl->kr", moved, taken)
    return (
        block.covariance[:, None] - moved[..., None] - moved[..., None, :] + common[..., None, None]
    )


def times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """[n, a, b] x [n, b] -> [n, a]."""
    return np.asarray((matrices @ vectors[..., None])[..., 0])


def apply(phi: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """phi [n, F], coefficients [R, L, F] -> [n, R, L]."""
    requests, providers, features = coefficients.shape
    flat = phi @ coefficients.reshape(-1, features).T
    return np.asarray(flat.reshape(len(phi), requests, providers))


def grams(phi: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sums of weighted phi phi' over the users of each picture: [R, L, F, F]."""
    users, requests, providers = weight.shape
    features = phi.shape[1]
    first, second = np.triu_indices(features)
    sums = weight.reshape(users, -1).T @ (phi[:, first] * phi[:, second])
    result = np.empty((requests, providers, features, features))
    result[..., first, second] = result[..., second, first] = sums.reshape(requests, providers, -1)
    return result


def totals(phi: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """Sums of weighted phi x answer over the users of each picture: [R, L, F]."""
    users, requests, providers = weighted.shape
    return np.asarray((weighted.reshape(users, -1).T @ phi).reshape(requests, providers, -1))


def forms(phi: np.ndarray, covariance: np.ndarray, providers: int) -> np.ndarray:
    """phi' covariance phi of every two providers: [n, F], [r, M, M] rotated -> [n, r, L, L]."""
    flat = pairs(phi) @ by_pairs(covariance, providers).reshape(-1, pairs(phi[:1]).shape[1]).T
    return np.asarray(flat.reshape(len(phi), -1, providers, providers))


def pairs(phi: np.ndarray) -> np.ndarray:
    """Products of every two features, each two once: [n, F] -> [n, F (F + 1) / 2]."""
    first, second = np.triu_indices(phi.shape[1])
    return np.asarray(phi[:, first] * phi[:, second] * np.where(first == second, 1, 2))


def by_pairs(covariance: np.ndarray, providers: int) -> np.ndarray:
    """What :func:`pairs` are multiplied with: [r, M, M] rotated -> [r, L, L, F (F + 1) / 2]."""
    whole = unrotated(covariance, providers)
    first, second = np.triu_indices(whole.shape[-1])
    # Of two providers, the coefficients' covariance is not symmetric in the features.
    return np.asarray((whole + whole.swapaxes(-1, -2))[..., first, second] / 2)
