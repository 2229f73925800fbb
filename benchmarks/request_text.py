"""AGIQA-3K: can a request's words tell which provider suits it? By ridge regression, no learner.

    python benchmarks/request_text.py ../shared/data/agiqa3k

For random halves of the requests, what a model of the scores by the words' vectors, fitted to one
half, chooses for the other, against the provider that each user likes best on average in the first.
"""

import argparse
import csv
from pathlib import Path

import measure
import numpy as np

from rlli_jax.sentences import components, encode

SHRINK = (3.0, 10.0, 30.0, 100.0, 300.0)


def scores(folder: Path) -> tuple[list[str], np.ndarray]:
    """Requests, and p(good) [users, requests, providers], NaN where there is none."""
    with (folder / "images.csv").open(newline="") as file:
        images = {row["image"]: row for row in csv.DictReader(file)}
    with (folder / "judge_logits.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    requests = list(dict.fromkeys(row["request"] for row in images.values()))
    providers = list(dict.fromkeys(row["provider"] for row in images.values()))
    judges = list(dict.fromkeys(row["judge"] for row in answers))
    table = np.full((len(judges), len(requests), len(providers)), np.nan)
    for row in answers:
        image = images[row["image"]]
        cell = requests.index(image["request"]), providers.index(image["provider"])
        chance = 1 / (1 + np.exp(float(row["logit_poor"]) - float(row["logit_good"])))
        table[(judges.index(row["judge"]), *cell)] = chance
    return requests, table


def gain(table: np.ndarray, vectors: np.ndarray, seen: np.ndarray, shrink: float) -> float:
    """Mean p(good) that choosing by words adds on the requests that were not seen."""
    new, added = np.setdiff1d(np.arange(len(vectors)), seen), []
    x = vectors[seen]
    for own in table:
        mean = np.nanmean(own[seen], 0)
        centred = np.nan_to_num(own[seen] - mean)
        weights = np.linalg.solve(x.T @ x + shrink * np.eye(x.shape[1]), x.T @ centred)
        offered = ~np.isnan(own[new])
        by_words, plain = (
            np.where(offered, mean + part, -np.inf).argmax(1)
            for part in (vectors[new] @ weights, 0.0)
        )
        row = np.arange(len(new))
        added.append((own[new][row, by_words] - own[new][row, plain]).mean())
    return float(np.mean(added))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoders", nargs="+", default=["hashing", "minilm"])
    parser.add_argument("--components", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--splits", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    requests, table = scores(options.data)
    table = table / np.nanstd(table, (1, 2), keepdims=True)  # users weigh alike
    generator, rows = np.random.default_rng(0), []
    halves = [
        np.sort(generator.permutation(len(requests))[: len(requests) // 2])
        for _ in range(options.splits)
    ]
    plain = np.nanmean(table, 1).argmax(1)
    known = np.nanmax(table, 2).mean() - np.mean(
        [np.nanmean(own[:, provider]) for own, provider in zip(table, plain, strict=True)]
    )
    for encoder in options.encoders:
        found = encode(requests, encoder).vectors
        for count in options.components:
            kept = [components(found, half, count) for half in halves]
            for shrink in SHRINK:
                added = [
                    gain(table, vectors, half, shrink)
                    for vectors, half in zip(kept, halves, strict=True)
                ]
                rows.append({
                    "encoder": encoder, "components": count, "shrink": shrink,
                    "gain": round(float(np.mean(added)), 4),
                    "sd over splits": round(float(np.std(added)), 4),
                })  # fmt: skip
    print(measure.table(rows))
    print(f"knowing each answer adds {known:.3f} (in standard deviations of a user's scores)")
    measure.keep(rows, options.output / "request_text.csv")


if __name__ == "__main__":
    main()
