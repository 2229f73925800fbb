"""A few people's scores, used to weigh judges and to correct their leaning to providers.

Where people scored some pictures, :func:`calibrate` fits

    human score = mean + request + sum over judges of weight x judge's standard score
                  + offset of the provider + residual

to the scored pictures and predicts all others. Weights and requests are independent normal with
mean 0; their variances and the residual's are those that make the human scores likeliest
(empirical Bayes, or type-II maximum likelihood: MacKay 1992, "Bayesian Interpolation", Neural
Computation 4(3)). So weights are ridge-regularised as far as the number of human scores demands.
Offsets are fixed effects: were they shrunk, the weights would take up differences between
providers that judges do not see within one (Mundlak 1978, "On the Pooling of Time Series and Cross
Section Data", Econometrica 46(1)). A provider that nobody scored has offset 0: the judges' word.
:func:`calibration_curve` says what how many human scores buy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from rlli_jax.errors import InputError
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.qoe.reliability import pool, rated_answers, standard_scores
from rlli_jax.qoe.table import QoETable

RESAMPLES = 200
DRAWS = 200
FLAT = 10.0  # prior variance of a provider's offset, relative to that of the scores


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` learnt from people."""

    judges: QoETable  # that were calibrated; level and spread of each are those here
    coefficients: np.ndarray  # mean, weight of each judge, offset of each provider
    table: QoETable  # one user, "calibrated": predicted human scores
    weights: dict[str, Interval]  # judge -> QoE for each of its standard deviations
    offsets: dict[str, Interval]  # provider -> QoE added to what the judges say
    requests: int  # requests with human scores
    scores: int  # pictures with human scores

    def predict(self, judges: QoETable) -> QoETable:
        """What people would say of other pictures that the same judges rated, as ``table``."""
        scores = _features(judges, self.judges) @ self.coefficients
        return _table(judges, scores, self.requests, self.scores)

    def __str__(self) -> str:
        lines = [f"calibrated by {self.scores} human scores of {self.requests} requests"]
        for kind, numbers in (("weight", self.weights), ("offset", self.offsets)):
            lines += [
                f"{kind} of {name}: {x.value:+.3f} [{x.low:+.3f}, {x.high:+.3f}]"
                for name, x in numbers.items()
            ]
        return "\n".join(lines)


class CurvePoint(NamedTuple):
    """What the human scores of so many requests buy; see :func:`calibration_curve`."""

    requests: int  # with human scores
    scores: float  # human scores, mean over the draws
    value: Interval  # human QoE of the choices on the other requests
    without_judges: Interval  # the same for the providers' mean human scores alone; NaN for none


def human_scores(recorded: RecordedJudge, table: QoETable) -> np.ndarray:
    """People's mean QoE of each picture of a table: float64 [R, L], NaN where nobody scored.

    The mean is over all users and samples of the record.

    Raises:
        InputError: a score is of a request or a provider that the table does not have.
    """
    position = {
        "request": {name: i for i, name in enumerate(table.requests)},
        "provider": {name: i for i, name in enumerate(table.providers)},
    }
    shape = (len(table.requests), len(table.providers))
    total, count = np.zeros(shape), np.zeros(shape)
    for (_, request, provider, _), rating in recorded.scores.items():
        for kind, name in (("request", request), ("provider", provider)):
            if name not in position[kind]:
                raise InputError(
                    f"human scores: {kind} {name!r} is not in the table; remove its scores."
                )
        cell = position["request"][request], position["provider"][provider]
        total[cell] += recorded.scale.qoe(rating)
        count[cell] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def value_of_choices(table: QoETable, human: np.ndarray) -> np.ndarray:
    """Human QoE of the picture that each user's scores choose: float64 [K, R].

    The choice is the provider with the highest mean QoE in ``table`` among those that have a
    picture and a human score (the first of equals); NaN for requests without any.
    """
    eligible = table.legal & ~np.isnan(human)
    choice = np.where(eligible, table.mean, -np.inf).argmax(-1)
    value = np.take_along_axis(np.broadcast_to(human, eligible.shape), choice[..., None], -1)
    return np.where(eligible.any(-1), value[..., 0], np.nan)


def calibrate(
    judges: QoETable, human: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Calibration:
    """Weigh judges and correct providers by people's scores of some pictures.

    Args:
        judges: a table whose users are judges of the same pictures.
        human: QoE [R, L] as people scored it, NaN where nobody did. Scores of pictures that no
            judge rated are not used.
        resamples: number of bootstrap resamples of the scored requests, from which the 95 %
            percentile intervals of weights and offsets come. They are a little narrow for few
            requests: with 30, in simulations, they held the truth nine times in ten.
        seed: of the resamples.

    The resulting table predicts every picture that a judge rated, also the scored ones, and is
    clipped to [0, 1]. A judge that did not answer counts as the mean of those that did.

    Raises:
        InputError: ``human`` does not fit the table or is not in [0, 1], fewer than two requests
            have a human score, or all scores are equal.
    """
    features = _features(judges)
    usable = _check(judges, human)
    sums = _Sums.of(features, usable)
    fit = _fit(sums, len(judges.users))
    generator = np.random.default_rng(seed)
    scored = np.flatnonzero(sums.count > 0)
    draws: list[np.ndarray] = []
    while len(draws) < resamples:
        again = sums.take(generator.choice(scored, len(scored)))
        if again.varies:  # else there is nothing to fit: draw another
            draws.append(_fit(again, len(judges.users)).coefficients[1:])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    intervals = [
        Interval(*map(float, numbers))
        for numbers in zip(fit.coefficients[1:], low, high, strict=True)
    ]
    requests, scores = len(scored), int(sums.count.sum())
    split = len(judges.users)
    return Calibration(
        judges=judges,
        coefficients=fit.coefficients,
        table=_table(judges, features @ fit.coefficients + fit.requests[:, None], requests, scores),
        weights=dict(zip(judges.users, intervals[:split], strict=True)),
        offsets=dict(zip(judges.providers, intervals[split:], strict=True)),
        requests=requests,
        scores=scores,
    )


def calibration_curve(
    judges: QoETable,
    human: np.ndarray,
    sizes: Sequence[int],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[CurvePoint]:
    """Human QoE of the choices on other requests, by the number of requests with human scores.

    For each of ``sizes``, ``draws`` times: so many of the scored requests are drawn at random,
    the judges are calibrated by them, and the choices are valued on the other scored requests.
    For 0, and where all the scores drawn are equal, the choices are those of
    ``pool(judges, shrunk=True)``. Beside it stands what the same human scores buy without any
    judge: the provider with the highest mean of them. A value is the mean over the draws; its
    interval is the central 95 % over draws of the mean of a bootstrap resample of the other
    requests, and thus covers the luck of the draw and that of the requests on which it is valued.

    Raises:
        InputError: as :func:`calibrate`; a size is 1, negative, or leaves no request to value.
    """
    usable = _check(judges, human)
    features = _features(judges)
    scored = np.flatnonzero(~np.isnan(usable).all(1))
    for size in sizes:
        if size < 0 or size == 1 or size >= len(scored):
            raise InputError(
                f"calibration curve: a size is {size}; give 0, or 2 to {len(scored) - 1} of the "
                f"{len(scored)} requests with human scores."
            )
    generator = np.random.default_rng(seed)
    sums = _Sums.of(features, usable)
    unaided = pool(judges, shrunk=True).mean[0]
    eligible = ~np.isnan(usable)
    points = []
    for size in sizes:
        chosen: list[tuple[float, float]] = []
        alone: list[tuple[float, float]] = []
        used = []
        for _ in range(draws):
            order = generator.permutation(scored)
            drawn, others = order[:size], order[size:]
            part = sums.take(drawn)
            scores = unaided
            if part.varies:
                scores = features @ _fit(part, len(judges.users)).coefficients
            again = generator.integers(len(others), size=len(others))
            used.append(part.count.sum())
            for values, preferred in ((chosen, scores), (alone, _provider_means(usable[drawn]))):
                choice = np.where(eligible, preferred, -np.inf).argmax(1)
                value = usable[others, choice[others]]
                values.append((value.mean(), value[again].mean()))
        points.append(
            CurvePoint(
                requests=size,
                scores=float(np.mean(used)),
                value=_over_draws(chosen),
                without_judges=_over_draws(alone) if size else Interval(*[float("nan")] * 3),
            )
        )
    return points


def _provider_means(human: np.ndarray) -> np.ndarray:
    """Mean human score of each provider [L]; -inf for those without one."""
    count = (~np.isnan(human)).sum(0)
    return np.where(count > 0, np.nansum(human, 0) / np.maximum(count, 1), -np.inf)


def _over_draws(values: list[tuple[float, float]]) -> Interval:
    """From each draw's mean and the mean of its resample."""
    means, resampled = np.array(values).T
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(means.mean()), float(low), float(high))


def _check(judges: QoETable, human: np.ndarray) -> np.ndarray:
    """The human scores of pictures that a judge rated, NaN elsewhere."""
    shape = (len(judges.requests), len(judges.providers))
    if human.shape != shape:
        raise InputError(
            f"human scores have shape {human.shape}; give one of {shape} (requests, providers)."
        )
    for request, provider in np.argwhere((human < 0) | (human > 1)):
        raise InputError(
            f"human scores: request {judges.requests[request]!r}, provider "
            f"{judges.providers[provider]!r}: {human[request, provider]} is not in [0, 1]; "
            "divide by the scale."
        )
    usable = np.where(rated_answers(judges).any((0, 3)), human, np.nan)
    scored = ~np.isnan(usable)
    if scored.any(1).sum() < 2:
        raise InputError(
            f"human scores: {scored.any(1).sum()} of the table's requests have a score of a "
            "picture that a judge rated; give scores of at least 2."
        )
    if usable[scored].std() < 1e-5:
        raise InputError("human scores are all equal; there is nothing to learn from them.")
    return usable


def _features(judges: QoETable, by: QoETable | None = None) -> np.ndarray:
    """1, the judges' standard scores and the provider's indicator: float64 [R, L, 1 + K + L].

    The judges' level and spread are those in ``by``, or in ``judges`` itself.
    """
    z = standard_scores(judges, by)
    count = rated_answers(judges).sum(-1)
    means = z.sum(-1) / np.maximum(count, 1)  # z is 0 where not rated
    answered = np.maximum(np.count_nonzero(count, axis=0), 1)
    means = np.where(count > 0, means, means.sum(0) / answered)
    providers = np.broadcast_to(
        np.eye(len(judges.providers)), (*means.shape[1:], len(judges.providers))
    )
    ones = np.ones((*means.shape[1:], 1))
    return np.concatenate([ones, np.moveaxis(means, 0, -1), providers], -1)


def _table(judges: QoETable, predicted: np.ndarray, requests: int, scores: int) -> QoETable:
    return replace(
        pool(judges),  # the same pictures, one user
        qoe=np.clip(predicted, 0, 1)[None, ..., None],
        users=("calibrated",),
        judge=(
            f"{judges.judge}, {len(judges.users)} judges calibrated by {scores} human scores of "
            f"{requests} requests"
        ),
    )


@dataclass(frozen=True)
class _Sums:
    """All that a fit needs to know of each request's scored pictures (P features)."""

    squares: np.ndarray  # [R, P, P] sum of x x'
    products: np.ndarray  # [R, P] sum of x y
    total: np.ndarray  # [R, P] sum of x
    count: np.ndarray  # [R]
    y: np.ndarray  # [R] sum of y
    yy: np.ndarray  # [R] sum of y²

    @classmethod
    def of(cls, features: np.ndarray, human: np.ndarray) -> _Sums:
        scored = ~np.isnan(human)
        x = np.where(scored[..., None], features, 0)
        y = np.where(scored, human, 0)
        return cls(
            squares=np.einsum("rlp,rlq->rpq", x, x),
            products=np.einsum("rlp,rl->rp", x, y),
            total=x.sum(1),
            count=scored.sum(1),
            y=y.sum(1),
            yy=(y**2).sum(1),
        )

    def take(self, requests: np.ndarray) -> _Sums:
        return _Sums(
            self.squares[requests],
            self.products[requests],
            self.total[requests],
            self.count[requests],
            self.y[requests],
            self.yy[requests],
        )

    @property
    def variance(self) -> float:
        """Variance of the human scores."""
        count = max(self.count.sum(), 1)
        return float(self.yy.sum() / count - (self.y.sum() / count) ** 2)

    @property
    def varies(self) -> bool:
        """Is there anything to learn?"""
        return self.variance > 1e-12


class _Fit(NamedTuple):
    coefficients: np.ndarray  # [P] mean, weights, offsets
    requests: np.ndarray  # [R] the requests' effects; 0 where nobody scored


def _fit(sums: _Sums, judges: int) -> _Fit:
    """Maximise the likelihood over the three variances; predict weights, offsets and requests.

    With s² the residual's variance and r² that of requests, the n scores of a request have
    covariance B = s² I + r² 1 1', of which B⁻¹ = (I - a 1 1') / s² and B⁻¹ 1 = b 1 with
    a = r² / (s² + n r²) and b = 1 / (s² + n r²). So sums over each request are enough, and every
    matrix here is [P, P].
    """
    variance = sums.variance
    features = sums.total.shape[1]
    is_weight = np.zeros(features, bool)
    is_weight[1 : 1 + judges] = True
    # Mean and offsets are fixed effects: priors as good as flat, the mean's the flatter one so
    # that the offsets of all providers are about 0 on average.
    flat = np.where(np.arange(features) == 0, FLAT**4, FLAT) * variance
    squares, products, yy = sums.squares.sum(0), sums.products.sum(0), sums.yy.sum()
    total, count = sums.total, sums.count

    def posterior(
        residual: float, request: float, weight: float
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Minus the log likelihood (up to a constant), its gradient, mean and requests' effects.

        The gradient is with respect to the logs of the variances. For V the covariance of all
        scores and alpha = V⁻¹ y, it is (tr(V⁻¹ dV) - alpha' dV alpha) / 2, and as V is the sum of
        its parts, the parts' gradients add up to (N - y' alpha) / 2.
        """
        prior = np.where(is_weight, weight, flat)
        b = 1 / (residual + count * request)
        a = request * b
        precision = (squares - (total * a[:, None]).T @ total) / residual
        linear = (products - (a * sums.y) @ total) / residual
        quadratic = (yy - a @ sums.y**2) / residual
        factor = cho_factor(precision + np.diag(1 / prior), lower=True)
        mean = cho_solve(factor, linear)
        left = sums.y - total @ mean
        fit = quadratic - linear @ mean  # y' alpha
        log_determinant = (
            count.sum() * np.log(residual)
            - np.log(b * residual).sum()
            + 2 * np.log(np.diag(factor[0])).sum()
            + np.log(prior).sum()
        )
        covariance = cho_solve(factor, np.eye(features))
        of_features = (1 - np.diag(covariance) / prior - mean**2 / prior) / 2
        explained = np.sum((total @ covariance) * total, 1)
        of_request = request / 2 * np.sum(count * b - b**2 * (explained + left**2))
        of_residual = (count.sum() - fit) / 2 - of_features.sum() - of_request
        gradient = np.array([of_residual, of_request, of_features[is_weight].sum()])
        return (log_determinant + fit) / 2, gradient, mean, a * left

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        return posterior(*variance * np.exp(logs))[:2]

    # Relative to the variance of the scores; a variance at the lower end is as good as 0.
    bounds = [(float(np.log(1e-4)), float(np.log(10)))] * 3
    start = np.log([0.3, 0.2, 0.1])
    best = minimize(objective, start, method="SLSQP", jac=True, bounds=bounds)
    _, _, coefficients, requests = posterior(*variance * np.exp(best.x))
    return _Fit(coefficients, requests)
