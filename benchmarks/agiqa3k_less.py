"""Fifteen per cent of the judges' answers on AGIQA-3K: which way to pool them, chosen blind.

    python benchmarks/agiqa3k_less.py --output results/ [--draws 20]

Five vision-language models' answers to 200 requests x 10 providers; a share of them is drawn at
random. A *way* says on what scale the judges' answers are taken (as they are, each judge
standardised, log-odds standardised, normal scores of ranks; from the answers that were drawn alone)
and what is believed of how pictures differ beyond their provider: independent effects of one
variance (the model of QoE), or effects whose covariance over the providers is free, or of rank 1 or
2 and a diagonal (factors, estimated by EM on what the model leaves to the pictures).

No people's score takes part in choosing a way. Each way is fitted to four judges and chooses a
provider for each request; the fifth judge's own standardised answers value the choices, each judge
in turn (``left out``). Only then are the choices of all five judges valued by people's mean opinion
scores, 0-5 (``people``). Means and standard deviations are over the draws.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from agiqa3k_choices import DATA, HUMAN_SCALE, load
from scipy.special import logit
from scipy.stats import norm, rankdata

from rlli_jax.qoe.choosing import belief
from rlli_jax.qoe.model import fit_model

STEPS = 30  # of EM
RANKS: dict[str, int | None] = {"free covariance": None, "rank 1": 1, "rank 2": 2}
SHARES = (0.15, 1.0)
SPREAD = 0.15  # standard deviation of standardised answers, around 0.5


def standardised(answers: np.ndarray) -> np.ndarray:
    """Each judge's answers [K, R, L] with mean .5 and a standard deviation of ``SPREAD``."""
    mean = np.nanmean(answers, (1, 2), keepdims=True)
    return 0.5 + SPREAD * (answers - mean) / np.nanstd(answers, (1, 2), keepdims=True)


def normal_scores(answers: np.ndarray) -> np.ndarray:
    """Each judge's answers as the normal quantiles of their ranks."""
    result = np.full(answers.shape, np.nan)
    for judge, own in zip(result, answers, strict=True):
        known = ~np.isnan(own)
        judge[known] = norm.ppf((rankdata(own[known]) - 0.5) / known.sum())
    return 0.5 + SPREAD * result


SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda answers: answers,
    "standardised": standardised,
    "log-odds": lambda answers: standardised(logit(np.clip(answers, 1e-6, 1 - 1e-6))),
    "ranks": normal_scores,
}


def independent(answers: np.ndarray) -> np.ndarray:
    """What the judges have in common of each picture [R, L], by the model of QoE."""
    return belief(fit_model(answers, None), "request").mean


def factors(answers: np.ndarray, rank: int | None) -> np.ndarray:
    """The same with effects of a request that hang together over the providers [L, L].

    The judges' own effects and noise are the model's; the rest is
    d_r ~ N(mu, Sigma), fitted by EM.
    """
    model = fit_model(answers, None)
    rest = np.where(np.isnan(answers), 0, answers - model.level - model.own)
    precision, sums = model.weight.sum(0), (model.weight * rest).sum(0)
    effects = model.coefficients[..., 0]
    identity = np.eye(effects.shape[1])
    mean, covariance = effects.mean(0), np.cov(effects.T) + 1e-3 * identity
    for _ in range(STEPS):
        inverse = np.linalg.inv(covariance)
        posterior = np.linalg.inv(inverse + precision[:, :, None] * identity)
        effects = np.einsum("rlm,rm->rl", posterior, sums + inverse @ mean)
        mean = effects.mean(0)
        deviation = effects - mean
        covariance = posterior.mean(0) + deviation.T @ deviation / len(effects) + 1e-6 * identity
        if rank is not None:
            values, vectors = np.linalg.eigh(covariance)
            rest_variance, main = values[:-rank].mean(), vectors[:, -rank:]
            covariance = (main * (values[-rank:] - rest_variance)) @ main.T
            covariance += rest_variance * identity
    return np.asarray(effects)


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "independent": independent,
    **{name: (lambda answers, rank=rank: factors(answers, rank)) for name, rank in RANKS.items()},
}


def values(
    given: np.ndarray, legal: np.ndarray, judged: np.ndarray, human: np.ndarray
) -> dict[tuple[str, str], tuple[float, float]]:
    """(scale, way) -> mean value to judges that were left out, and to people.

    ``given`` [K, R, L] the answers that were drawn, ``judged`` all of them, standardised.
    """
    rows, found = np.arange(len(human)), {}
    for scale, take in SCALES.items():
        answers = take(given)
        for way, believed in WAYS.items():
            left_out = []
            for judge in range(len(given)):
                others = np.delete(answers, judge, 0)
                mean = np.where(legal & ~np.isnan(judged[judge]), believed(others), -np.inf)
                left_out.append(judged[judge][rows, mean.argmax(-1)].mean())
            chosen = np.where(legal, believed(answers), -np.inf).argmax(-1)
            people = HUMAN_SCALE * human[rows, chosen].mean()
            found[scale, way] = (float(np.mean(left_out)), float(people))
    return found


def main() -> None:
    """Print and write the ways, the best by left-out judges first."""
    parser = argparse.ArgumentParser(description="Ways to pool judges, chosen blind.")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of AGIQA-3K")
    parser.add_argument("--output", type=Path, required=True, help="folder for the CSV file")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    judges, human = load(arguments.data)
    answers = np.where(judges.legal, judges.mean, np.nan)
    legal, judged = (~np.isnan(answers)).any(0), standardised(answers)
    header = ("share", "scale", "way", "left_out", "left_out_sd", "people", "people_sd", "gap_se")
    rows = []
    for share in SHARES:
        every = []
        for seed in range(arguments.draws if share < 1 else 1):
            drawn = np.random.default_rng(seed).random(answers.shape) < share
            every.append(values(np.where(drawn, answers, np.nan), legal, judged, human))
        found = {key: np.array([draw[key] for draw in every]) for key in every[0]}  # [draws, 2]
        order = sorted(found, key=lambda key: -found[key][:, 0].mean())
        best = found[order[0]][:, 0]
        for key in order:
            mean, spread = found[key].mean(0), found[key].std(0)
            # standard error of the difference from the best way, over the draws
            gap = (best - found[key][:, 0]).std() / np.sqrt(max(len(best) - 1, 1))
            rows.append((share, *key, mean[0], spread[0], mean[1], spread[1], gap))
    with open(arguments.output / "agiqa3k_less.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    print(*header, sep="\t")
    for row in rows:
        print(*(f"{x:.4f}" if isinstance(x, float) else x for x in row), sep="\t")


if __name__ == "__main__":
    main()
