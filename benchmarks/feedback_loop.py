"""What feedback of people is worth to a policy that was trained on a judge, simulated.

    python benchmarks/feedback_loop.py

People and judges are tables of 400 personas and four providers (the stand-in on the built-in
studio). The judge that is right has the people's preset of published correlations and ratings of
its own noise; one that is wrong has another preset; two that are worse than wrong have the people's
tastes, or all that people say, turned round. All runs of all policies, 40 seeds of each, are one
compiled program; the same requests of the same people come to every policy of a seed.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.feedback.loop import BATCH, World, cold, features, judged, simulate, trained
from rlli_jax.judges import named_scale
from rlli_jax.judges.psychometric import PsychometricJudge, presets
from rlli_jax.oracle import ask, build_questions
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.statistics import t_interval

SEEDS, REQUESTS = 40, 50_000
NOISE = 0.3  # of one rating, QoE from 0 to 1: about what people's ratings of a list have
NEAR = 0.002  # QoE: so near to cold start's end counts as reached
WINDOW = 500  # requests that a QoE is the mean over
LAST = 10  # windows at the end
DRAWS = 1_000  # of the seeds, for the interval of a number of requests


def table(preset: str, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Traits and mean QoE [400, 4] by the stand-in."""
    catalog, scale = Catalog.studio(), named_scale("adjectives")
    population = Population.sample(400, group="women 21-40", seed=1)
    judge = PsychometricJudge(catalog, preset=preset, strength=2.0, noise=noise, seed=seed)
    answers = ask(judge, build_questions(population, catalog, scale))
    made = QoETable.from_answers(
        answers, population=population, catalog=catalog, scale=scale, judge=judge.identity
    )
    return population.traits, made.provider_values


def main(seeds: int, requests: int) -> None:
    """Print QoE after so many requests, regret, and when cold start's end is reached."""
    traits, people = table("replicated", 0.0, 0)
    other = next(name for name in presets() if name != "replicated")
    turned = people.mean(0) - (people - people.mean(0))
    judges = {
        "right": table("replicated", 0.5, 7)[1],
        f"other preset ({other})": table(other, 0.5, 7)[1],
        "tastes turned round": turned,
        "providers turned round": 2 * people.mean() - people,
    }
    x = features(jnp.asarray(traits, jnp.float32))
    world = World(x, jnp.asarray(people, jnp.float32), jnp.float32(NOISE))
    starts, names = [cold(people.shape[1], x.shape[1])], ["cold start"]
    for name, judge in judges.items():
        prior = judged(x, jnp.asarray(judge, jnp.float32))
        for learns in (False, True):
            starts.append(trained(prior, learns))
            names.append(f"{name}, {'with feedback' if learns else 'frozen'}")
    together = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    keys = jax.random.split(jax.random.key(0), seeds)
    run = jax.vmap(jax.vmap(simulate, (0, None, None, None)), (None, 0, None, None))
    begin = time.perf_counter()
    qoe = np.asarray(run(keys, together, world, requests))  # [starts, seeds, batches]
    seconds = time.perf_counter() - begin
    best, linear = people.max(1).mean(), np.asarray(judged(x, world.qoe) @ x.T).argmax(0)
    print(
        f"{len(names)} policies x {seeds} seeds x {requests:,} requests in {seconds:.0f} s; "
        f"each person's best {best:.4f}, the best by linear taste "
        f"{people[np.arange(len(people)), linear].mean():.4f}, best single "
        f"{people.mean(0).max():.4f}, random {people.mean():.4f}"
    )
    size = WINDOW // BATCH
    windows = qoe.reshape(*qoe.shape[:2], -1, size).mean(-1)  # [starts, seeds, windows]
    rng = np.random.default_rng(0)
    seeds_drawn = rng.integers(seeds, size=(DRAWS, seeds))
    cold_end = windows[0, :, -LAST:].mean(1)  # [seeds]
    print(f"cold start's QoE over its last {LAST * WINDOW:,} requests: {cold_end.mean():.4f}")
    print(
        f"{'policy':60} first {WINDOW}, last {LAST * WINDOW:,} (95 % over seeds), less cold start "
        f"(paired), regret (95 %), within {NEAR} after (95 % over seeds drawn anew)"
    )
    for name, rows in zip(names, windows, strict=True):
        own = rows[:, -LAST:].mean(1)
        last, apart = t_interval(own), t_interval(own - cold_end)
        regret = t_interval((best - rows.mean(1)) * requests)
        after = [
            reached(rows[drawn].mean(0), float(cold_end[drawn].mean()))
            for drawn in (np.arange(seeds), *seeds_drawn)
        ]
        low, high = np.percentile(after[1:], [2.5, 97.5], method="nearest")
        print(
            f"{name:60} {rows[:, 0].mean():.4f}  {last.value:.4f} ({last.low:.4f} to "
            f"{last.high:.4f})  {apart.value:+.5f} ({apart.low:+.5f} to {apart.high:+.5f})  "
            f"{regret.value:.0f} ({regret.low:.0f} to {regret.high:.0f})  {after[0]:,.0f} "
            f"({low:,.0f} to {high:,.0f})"
        )


def reached(windows: np.ndarray, end: float) -> float:
    """Requests after which a window's QoE is within ``NEAR`` of ``end``; infinite if never."""
    found = np.flatnonzero(windows >= end - NEAR)
    return float((found[0] + 1) * WINDOW) if len(found) else float("inf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.requests)
