"""Prediction-powered estimates beside ppi-python and GLIDE, and their coverage.

    pip install ppi-python==0.2.3 glide-py==0.11.0     # GLIDE needs Python 3.12
    python benchmarks/prediction_powered.py

Made populations: n people rate, N more are predicted only; the judge is right, of no use, or as
wrong as it can be (its word turned round).
"""

import numpy as np
from glide.estimators import ASIMeanEstimator, PPIMeanEstimator
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

from rlli_jax.feedback import Log
from rlli_jax.feedback.prediction_powered import prediction_powered_mean, provider_values

DRAWS = 1_000


def drawn(kind: str, n: int, others: int, seed: int):
    """Ratings, their predictions, others' predictions; the true mean is .5."""
    rng = np.random.default_rng(seed)
    rating = (0.5 + 0.2 * rng.standard_normal(n + others)).clip(0, 1)
    noise = 0.05 * rng.standard_normal(n + others)
    judge = {"right": rating, "no use": rng.permutation(rating), "turned round": 1 - rating}[kind]
    return rating[:n], (judge + noise)[:n], (judge + noise)[n:]


def means(n: int, others: int) -> None:
    """Largest differences of value and of half the interval; coverage and width of each."""
    for kind in ("right", "no use", "turned round"):
        names = "rlli_jax", "ppi-python", "GLIDE", "with GLIDE's lambda"
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for seed in range(DRAWS):
            y, f, rest = drawn(kind, n, others, seed)
            ours = prediction_powered_mean(y, f, rest).estimate
            found["rlli_jax"].append([*map(float, ours)])
            value = float(np.squeeze(ppi_mean_pointestimate(y, f, rest)))
            ends = [float(np.squeeze(end)) for end in ppi_mean_ci(y, f, rest, alpha=0.05)]
            found["ppi-python"].append([value, *ends])
            rated = np.concatenate([y, np.full(others, np.nan)])
            theirs = PPIMeanEstimator().estimate(rated, np.concatenate([f, rest]))
            interval = theirs.confidence_interval
            found["GLIDE"].append([interval.mean, interval.lower_bound, interval.upper_bound])
            # Its lambda is not kept within [0, 1] and takes n - 1; with it, ours is the same value.
            spread = np.concatenate([f, rest]).var(ddof=1)
            trust = np.cov(y, f)[0, 1] / ((1 + n / others) * spread)
            same = prediction_powered_mean(y, f, rest, trust=trust).estimate
            found["with GLIDE's lambda"].append([*map(float, same)])
        rows = {name: np.array(x) for name, x in found.items()}
        print(f"\n{kind}, n = {n}, N = {others}, {DRAWS} draws")
        for name, x in rows.items():
            away = np.abs(x - rows["GLIDE" if "lambda" in name else "rlli_jax"])
            covered = ((x[:, 1] <= 0.5) & (x[:, 2] >= 0.5)).mean()
            print(
                f"  {name:20} value differs by at most {away[:, 0].max():.1e}, ends by "
                f"{away[:, 1:].max():.1e}; coverage {covered:.3f}, width "
                f"{(x[:, 2] - x[:, 1]).mean():.4f}"
            )


def providers(n: int) -> None:
    """Values of providers by a log of unequal propensities, beside GLIDE's ASI for each."""
    chances, truth_of = np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.55, 0.6])
    inside, widths = np.zeros((2, 3)), np.zeros((2, 3))
    apart = 0.0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        taste = 0.1 * np.outer(rng.standard_normal(n), [1, 0, -1])
        truth = truth_of + taste
        action = rng.choice(3, n, p=chances)
        reward = (truth[np.arange(n), action] + 0.1 * rng.standard_normal(n)).clip(0, 1)
        log = Log(
            providers=("A", "B", "C"), action=action, reward=reward, propensity=chances[action],
            context=taste, context_names=("x", "y", "z"), user=np.arange(n),
            offered=np.ones((n, 3), bool),
        )  # fmt: skip
        judge = truth - 0.1 + 0.03 * rng.standard_normal(truth.shape)
        ours = provider_values(log, judge)
        for place, powered in enumerate(ours.values()):
            rated = np.where(action == place, reward, np.nan)
            theirs = (
                ASIMeanEstimator()
                .estimate(rated, judge[:, place], np.full(n, chances[place]))
                .confidence_interval
            )
            own = [*map(float, powered.estimate)]
            other = [theirs.mean, theirs.lower_bound, theirs.upper_bound]
            apart = max(apart, abs(own[0] - other[0]) / (own[2] - own[1]))
            for k, (_, low, high) in enumerate((own, other)):
                inside[k, place] += low <= truth_of[place] <= high
                widths[k, place] += high - low
    print(f"\nvalues of three providers, log of {n} people, {DRAWS} draws")
    for k, name in enumerate(("rlli_jax", "GLIDE (ASI)")):
        print(f"  {name:12} coverage {inside[k] / DRAWS}, width {np.round(widths[k] / DRAWS, 4)}")
    print(f"  values differ by at most {apart:.2f} widths of the interval")


if __name__ == "__main__":
    means(80, 1_000)
    means(30, 100)
    providers(300)
