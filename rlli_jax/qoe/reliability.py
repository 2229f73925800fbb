"""How far a table's scores can be trusted, and what is left of them when luck is taken out.

An argmax over noisy scores picks luck (the winner's curse). :func:`reliability` measures the noise
of a table; :func:`shrink` and :func:`pool` take it out before the scores become a reward.

The model of both is the random-effects model of generalizability theory (Brennan 2001,
*Generalizability Theory*, ch. 3), with every effect independent and of mean 0:

    answer = mean + user + request + provider + user:request + user:provider + request:provider
             + user:request:provider + residual

An answer that was missing and imputed is no rating: it is left out here, and shrinkage puts its own
prediction in its place.

Effects that the table cannot tell apart are left out: those of an axis of size 1, and, where no
cell has two answers, the three-way effect, which is then part of the residual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy

from rlli_jax.errors import InputError
from rlli_jax.qoe.table import QoETable, level_and_spread
from rlli_jax.run_files.answers import ReliabilityFile, ScaleRecord

AXES = ("user", "request", "provider")
BINS = 10  # of the histogram whose entropy tells how a judge uses its scale

LISTED = 10  # users at most whose scales are listed one by one

Effect = tuple[str, ...]  # the axes that an effect belongs to, for instance ("user", "provider")


class IntraclassCorrelation(NamedTuple):
    """One-way random intra-class correlations; NaN where there is nothing to compute them from."""

    single: float  # ICC(1): the reliability of one rating
    average: float  # ICC(1,k): the reliability of the mean of a target's ratings


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of the effects of the module's model, in units of QoE squared.

    The estimates are unbiased, so a small one may be negative; use it as 0.
    """

    effects: dict[Effect, float]
    residual: float

    @property
    def shares(self) -> dict[str, float]:
        """Each component's share of the variance of one answer; all 0 if nothing varies."""
        parts = {":".join(effect): max(value, 0.0) for effect, value in self.effects.items()}
        parts["residual"] = max(self.residual, 0.0)
        total = sum(parts.values())
        return {name: value / total if total else 0.0 for name, value in parts.items()}


class ScaleUse(NamedTuple):
    """How much of [0, 1] one user's answers use."""

    mean: float
    low: float  # 5th percentile
    high: float  # 95th percentile
    entropy: float  # of a histogram of 10 equal bins, over its maximum: 0 one bin, 1 all alike


@dataclass(frozen=True, eq=False)
class Reliability:
    """What :func:`reliability` measures; ``str`` of it is a few lines to read."""

    ratings: int  # answers that are ratings
    missing: int  # questions about a picture that have no rating
    imputed: int  # how many of those the table fills with a provider's mean
    valid_mass: float  # mean probability that ratings put on the scale's labels
    repeat_sd: float  # standard deviation between the repeats of a cell; NaN without repeats
    repeats: IntraclassCorrelation  # targets: cells; ratings: their repeats
    users: IntraclassCorrelation  # targets: pictures; ratings: the users' means
    correlations: np.ndarray  # [K, K] Pearson, between the users' means of the same pictures
    components: VarianceComponents
    scale_use: dict[str, ScaleUse]  # for each user

    @property
    def invalid(self) -> float:
        """Share of the questions about a picture that have no rating."""
        return self.missing / (self.ratings + self.missing)

    @property
    def agreement(self) -> float:
        """Mean correlation between two different users; NaN if no pair has one."""
        off_diagonal = self.correlations[~np.eye(len(self.correlations), dtype=bool)]
        known = off_diagonal[~np.isnan(off_diagonal)]
        return float(known.mean()) if known.size else float("nan")

    def file(self) -> ReliabilityFile:
        """As a run directory holds it."""

        def plain(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        return ReliabilityFile(
            ratings=self.ratings,
            missing=self.missing,
            imputed=self.imputed,
            valid_mass=self.valid_mass,
            repeat_sd=plain(self.repeat_sd),
            repeats=(plain(self.repeats.single), plain(self.repeats.average)),
            agreement=plain(self.agreement),
            users=(plain(self.users.single), plain(self.users.average)),
            variance=self.components.shares,
            scale_use={name: ScaleRecord(**use._asdict()) for name, use in self.scale_use.items()},
        )

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {part:.0%}" for name, part in self.components.shares.items())
        lines = [
            f"ratings: {self.ratings}; {self.invalid:.1%} of the answers invalid, {self.imputed} "
            f"imputed; mean probability on valid labels {self.valid_mass:.3f}",
            "repeats: none, so that noise shows only as disagreement between users"
            if np.isnan(self.repeat_sd)
            else f"repeats: SD {self.repeat_sd:.3f}, ICC(1) {self.repeats.single:.3f}, "
            f"ICC(1,k) {self.repeats.average:.3f}",
            "users: one only"
            if len(self.scale_use) == 1
            else f"users: mean correlation {self.agreement:.3f}, ICC(1) {self.users.single:.3f}, "
            f"ICC(1,k) {self.users.average:.3f}",
            f"variance of an answer: {shares}",
        ]
        scales = dict(self.scale_use)
        if len(scales) > LISTED:
            middle = np.median(np.array(list(scales.values())), 0)
            scales = {f"the median of {len(scales)} users": ScaleUse(*map(float, middle))}
        lines += [
            f"scale of {name}: mean {use.mean:.3f}, 90 % of the answers in "
            f"[{use.low:.3f}, {use.high:.3f}], entropy {use.entropy:.2f}"
            for name, use in scales.items()
        ]
        return "\n".join(lines)


def reliability(table: QoETable) -> Reliability:
    """Measure the noise of a table, the agreement of its users and their use of the scale."""
    rated = rated_answers(table)
    count = rated.sum(-1)
    spread = repeat_spread(table)
    freedom = np.maximum(count - 1, 0)
    within = np.sum(np.where(freedom > 0, spread, 0) ** 2 * freedom)
    samples = rated.shape[-1]
    users = len(table.users)
    opinions, given = table.mean.reshape(users, -1), (count > 0).reshape(users, -1)
    return Reliability(
        ratings=int(rated.sum()),
        missing=int(table.missing.sum()),
        imputed=int((table.valid & ~rated).sum()),
        valid_mass=float((table.valid_mass * count).sum() / count.sum()),
        repeat_sd=float(np.sqrt(within / freedom.sum())) if freedom.any() else float("nan"),
        repeats=intraclass_correlation(table.qoe.reshape(-1, samples), rated.reshape(-1, samples)),
        users=intraclass_correlation(opinions.T, given.T),
        correlations=_correlations(np.where(given, opinions, 0), given),
        components=variance_components(table),
        scale_use={
            name: _scale_use(table.qoe[k][rated[k]].astype(np.float64))
            for k, name in enumerate(table.users)
        },
    )


def rated_answers(table: QoETable) -> np.ndarray:
    """Which answers are ratings, neither missing nor imputed: bool [K, R, L, S].

    Raises:
        InputError: a user has no rating at all.
    """
    # Only cells in which every sample is missing are imputed.
    rated = table.valid & (table.missing < table.valid.shape[-1])[..., None]
    for user in np.flatnonzero(~rated.any((1, 2, 3))):
        raise InputError(
            f"user {table.users[user]!r} has only imputed answers; remove the user or ask again."
        )
    return rated


def repeat_spread(table: QoETable) -> np.ndarray:
    """Sample standard deviation between the rated repeats of each cell: float64 [K, R, L].

    NaN where a cell has fewer than two.
    """
    rated = rated_answers(table)
    count = rated.sum(-1)
    residual = np.where(rated, table.qoe - table.mean[..., None], 0)
    squares = (residual**2).sum(-1)
    return np.sqrt(np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan))


def intraclass_correlation(ratings: np.ndarray, valid: np.ndarray) -> IntraclassCorrelation:
    """ICC(1) and ICC(1,k) of ``ratings`` [targets, k], of which ``valid`` says which exist.

    With the mean squares between (MSB) and within targets (MSW) of a one-way analysis of variance,
    ICC(1) = (MSB - MSW) / (MSB + (k - 1) MSW) and ICC(1,k) = (MSB - MSW) / MSB: case 1 of Shrout
    and Fleiss (1979), "Intraclass Correlations", Psychological Bulletin 86(2). Where the number of
    ratings n_i differs between the N targets, k is (sum n_i - sum n_i² / sum n_i) / (N - 1)
    (Donner 1986, International Statistical Review 54). An estimate below 0 says: not reliable.
    """
    count = valid.sum(1)
    ratings, valid, count = ratings[count > 0], valid[count > 0], count[count > 0]
    total, targets = count.sum(), len(count)
    if targets < 2 or total == targets:
        return IntraclassCorrelation(float("nan"), float("nan"))
    y = np.where(valid, ratings, 0).astype(np.float64)
    means = y.sum(1) / count
    between = np.sum(count * (means - y.sum() / total) ** 2) / (targets - 1)
    within = np.sum(np.where(valid, y - means[:, None], 0) ** 2) / (total - targets)
    k = (total - np.sum(count**2) / total) / (targets - 1)
    if between == 0:  # no target differs: a ratio of nothing to noise, or to nothing
        return IntraclassCorrelation(float("nan"), float("nan"))
    return IntraclassCorrelation(
        single=float((between - within) / (between + (k - 1) * within)),
        average=float((between - within) / between),
    )


def variance_components(table: QoETable) -> VarianceComponents:
    """Estimate the variances of the module's model from a table with holes.

    Henderson's method 1 (Henderson 1953, "Estimation of Variance and Covariance Components",
    Biometrics 9(2)): for each effect, the sum of squares of its groups' totals over their counts
    is set equal to its expectation. Unbiased when holes do not depend on the answers; for a table
    without holes it is the analysis of variance.
    """
    return _variance_components(table.qoe, rated_answers(table))


def shrink(table: QoETable) -> QoETable:
    """The empirical-Bayes estimate of every cell: one answer drawn toward what its kin say.

    Each cell becomes the best linear unbiased prediction of the module's model under the estimated
    variances (Robinson 1991, "That BLUP is a Good Thing", Statistical Science 6(1)): what a
    provider, a user or a picture shows consistently is kept, and what a single answer shows alone
    is drawn toward it by the noise's share. Nobody's taste is lost: users keep their own providers.

    The table has the same names and holes, one sample, and is clipped to [0, 1]. With one user
    and one answer for each cell nothing tells a picture from luck, and the result is the
    provider's and the request's mean.
    """
    rated = rated_answers(table)
    components = variance_components(table)
    qoe = _predict(table.qoe, rated, components, components.effects)
    return replace(
        table,
        qoe=np.clip(qoe, 0, 1)[..., None],
        valid=table.legal[..., None],
        judge=f"{table.judge}, shrunk toward user and provider means",
        missing=(table.missing > 0) & ~rated.any(-1),
    )


def pool(table: QoETable, *, shrunk: bool = False) -> QoETable:
    """One opinion from a table whose users are judges of the same pictures.

    Each judge's answers are standardised (mean 0, variance 1), so that judges weigh alike whatever
    their scale. A cell is the mean over the judges who answered, or, if ``shrunk``, the best
    linear prediction of what all such judges have in common: the mean and the effects of request,
    provider and picture of the module's model. What is one judge's own (such as its leaning to a
    provider) counts as error there. The normal distribution function maps cells back to [0, 1].

    The table has one user, "pool", and one sample; a picture that no judge rated is a hole.
    """
    z = standard_scores(table)
    rated = rated_answers(table)
    if shrunk:
        components = _variance_components(z, rated)
        common = [effect for effect in components.effects if "user" not in effect]
        # Without the judges' own effects every judge's plane is the same.
        cells = _predict(z, rated, components, common)[0]
        how = ", shrunk"
    else:
        means = z.sum(-1) / np.maximum(rated.sum(-1), 1)  # z is 0 where not rated
        cells = means.sum(0) / np.maximum(rated.any(-1).sum(0), 1)
        how = ""
    count = rated.sum(-1)
    legal = count.any(0, keepdims=True)
    return QoETable(
        qoe=scipy.special.ndtr(cells)[None, ..., None],
        valid=np.asarray(legal)[..., None],
        users=("pool",),
        requests=table.requests,
        providers=table.providers,
        judge=f"{table.judge}, pooled over {len(table.users)} standardised judges{how}",
        stand_in=table.stand_in,
        valid_mass=(table.valid_mass * count).sum(0, keepdims=True)
        / np.maximum(count.sum(0, keepdims=True), 1),
        missing=table.missing.any(0, keepdims=True) & ~legal,
    )


def standard_scores(table: QoETable, by: QoETable | None = None) -> np.ndarray:
    """Each user's ratings less the level, over the spread: float64 [K, R, L, S], 0 if not rated.

    Level and spread are those of the user's ratings in ``by``, or in the table itself, of which
    the scores then have mean 0 and variance 1. A user whose ratings are all equal gets 0.
    """
    rated = rated_answers(table)
    by = table if by is None else by
    mean, spread = level_and_spread(by.qoe, rated_answers(by))
    centred = np.where(rated, table.qoe - mean, 0)
    # Below float32 resolution a spread is rounding, not opinion.
    return np.where(spread > 1e-6, centred / np.maximum(spread, 1e-6), 0)


def _correlations(means: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Pearson correlations [K, K] of ``means`` [K, N], each over the cells that a pair shares."""
    both = legal.astype(np.float64)
    shared = both @ both.T
    level = means.sum(1, keepdims=True) / legal.sum(1, keepdims=True)
    x = np.where(legal, means - level, 0)  # near 0, so that the sums below do not cancel
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (x @ both.T) / shared  # [i, j]: of i over the cells shared with j
        variance = (x**2 @ both.T) / shared - mean**2
        covariance = (x @ x.T) / shared - mean * mean.T
        varies = (variance > 1e-12) & (variance.T > 1e-12)
        return np.where(varies, covariance / np.sqrt(variance * variance.T), np.nan)


def _scale_use(answers: np.ndarray) -> ScaleUse:
    low, high = np.percentile(answers, [5, 95])
    share = np.histogram(answers, bins=BINS, range=(0, 1))[0] / len(answers)
    used = share[share > 0]
    entropy = float(np.sum(used * np.log(1 / used)) / np.log(BINS))
    return ScaleUse(float(answers.mean()), float(low), float(high), entropy)


def _margin(cells: np.ndarray, effect: Effect) -> np.ndarray:
    """Sums over all axes that an effect does not have; the summed axes keep size 1."""
    axes = tuple(i for i, axis in enumerate(AXES) if axis not in effect)
    return np.asarray(cells.sum(axes, keepdims=True))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Sum of the quotients where the denominator is not 0; where it is, nothing was observed."""
    quotients = np.divide(
        numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0
    )
    return float(quotients.sum())


def _variance_components(y: np.ndarray, valid: np.ndarray) -> VarianceComponents:
    """Henderson's method 1 on answers ``y`` [K, R, L, S]; see :func:`variance_components`."""
    count = valid.sum(-1).astype(np.float64)  # [K, R, L]
    axes = [axis for axis, size in zip(AXES, count.shape, strict=True) if size > 1]
    effects = [e for size in range(1, len(axes) + 1) for e in combinations(axes, size)]
    if (count <= 1).all():
        effects = effects[:-1]  # the finest effect and the residual are one
    centred = np.where(valid, y - y[valid].mean(dtype=np.float64), 0)
    sums = centred.sum(-1)
    # One equation for each way of grouping the answers: coarsest (all) to finest (each alone).
    # Unknowns: (mean - its estimate)², the effects' variances, the residual's.
    equations, observed = [], []
    for group in [(), *effects]:
        size = _margin(count, group)
        row = [count.sum()]
        for effect in effects:
            joint = _margin(count, tuple({*group, *effect}))
            row.append(_ratio(joint**2, np.broadcast_to(size, joint.shape)))
        equations.append([*row, np.count_nonzero(size)])
        observed.append(_ratio(_margin(sums, group) ** 2, size))
    equations.append([count.sum()] * (len(effects) + 2))
    observed.append(float((centred**2).sum()))
    solution = np.linalg.lstsq(np.array(equations, np.float64), np.array(observed), rcond=None)[0]
    return VarianceComponents(
        effects=dict(zip(effects, map(float, solution[1:-1]), strict=True)),
        residual=float(solution[-1]),
    )


def _predict(
    y: np.ndarray, valid: np.ndarray, components: VarianceComponents, wanted: Iterable[Effect]
) -> np.ndarray:
    """Best linear unbiased prediction of mean + wanted effects, in every cell: [K, R, L].

    With V the covariance of the cells' means, which is sum of s_e² Z_e Z_e' over the effects e
    plus the noise of each cell, the mean is generalised least squares and an effect's prediction
    is s_e² Z_e' V⁻¹ (y - mean). Z_e' sums over an effect's groups and Z_e spreads back, so V is
    applied without being built. It has few distinct eigenvalues (as many as effects, were there
    no holes), and conjugate gradients need about as many steps.
    """
    count = valid.sum(-1)
    seen = count > 0
    cells = np.where(valid, y, 0).sum(-1, dtype=np.float64) / np.maximum(count, 1)
    variances = {effect: max(value, 0.0) for effect, value in components.effects.items()}
    total = sum(variances.values()) + max(components.residual, 0.0)
    if total == 0:  # nothing varies
        return np.full(count.shape, cells[seen].mean())
    # A residual of 0 would leave V singular where effects explain everything.
    noise = max(components.residual, 1e-6 * total) / count[seen]

    def scatter(vector: np.ndarray) -> np.ndarray:
        full = np.zeros(count.shape)
        full[seen] = vector
        return full

    def spread(vector: np.ndarray, effects: Iterable[Effect]) -> np.ndarray:
        """Sum of s_e² Z_e Z_e' vector over the effects: [K, R, L]."""
        full = scatter(vector)
        result = np.zeros(count.shape)
        for effect in effects:
            result += variances[effect] * _margin(full, effect)
        return result

    size = int(seen.sum())
    covariance = scipy.sparse.linalg.LinearOperator(
        (size, size),
        matvec=lambda vector: spread(vector, variances)[seen] + noise * vector,
        dtype=np.float64,
    )

    def solve(vector: np.ndarray) -> np.ndarray:
        solution, unfinished = scipy.sparse.linalg.cg(covariance, vector, rtol=1e-9)
        if unfinished:
            raise ArithmeticError(f"shrinkage did not converge in {unfinished} steps.")
        return np.asarray(solution)

    precision = solve(np.ones(size))
    mean = precision @ cells[seen] / precision.sum()
    return mean + spread(solve(cells[seen] - mean), wanted)
