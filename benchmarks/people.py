"""What real ratings, a model's ratings, and both are worth: on two logs of real people.

    python benchmarks/people.py personality FOLDER   910 people, ten kinds of lists of films
    python benchmarks/people.py bandit               10,000 visits of a shop, 34 items
    python benchmarks/people.py both_ways            either policy of the shop by the other's log

``personality`` asks a trained language model of 135 million parameters (the extra ``smollm``) as
personas what they think of the ten kinds of lists, told in words; PPO learns on its ratings. By the
people's log, that policy stands beside the one learned from the log (doubly robust, on other people
than it is valued on), the best single provider and chance, and the model's ratings are the prior of
people's. FOLDER keeps the model's answers and the run.

``bandit`` has no judge; the log of another policy takes its place: clicks by item and position
there, drawn toward the mean of all.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments import feedback, logs
from rlli_jax.feedback import Log, baselines, cross_fitted, value_policies
from rlli_jax.feedback.evaluation import greedy
from rlli_jax.feedback.prediction_powered import provider_values
from rlli_jax.learners.from_log import learned_policy
from rlli_jax.statistics import Estimate
from rlli_jax.studies import carry_out, load_study

DATA = Path(__file__).parents[2] / "shared" / "data"
HOW = {"low": "hardly any", "medium": "a medium amount of", "high": "a great deal of"}
WHAT = {
    "serendipity": "surprise: films that one would not have thought of",
    "popularity": "fame: films that very many people have seen",
    "diversity": "variety: films that are unlike one another",
}
PERSONAS = 12  # a small model takes a second a question
DOUBT = 300  # visits: so many of the mean of all are added to each item's own


def config_of(folder: Path, providers: tuple[str, ...]) -> Path:
    """The study of a language model that is told of the lists in words."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), "white").save(folder / "list.png")
    rows = []
    for name in providers:
        kind, _, level = name.partition(" ")
        told = f", with {HOW[level]} {WHAT[kind]}" if kind in WHAT else ", made as is usual"
        caption = f"a list of films recommended to you by a film website{told}"
        rows.append({"provider": name, "request": "a list of films", "image": "list.png",
                     "caption": caption})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    content = {
        "name": "lists",
        "seeds": 5,
        "population": {"sample": {"size": PERSONAS, "seed": 3}, "wording": "brief"},
        "catalog": {"manifest": "images.csv"},
        "judge": {
            "kind": "transformers", "model": "smollm2", "sees": "description", "scale": "1-5",
            "prefill": "Rating: ", "examination": None, "require": [],
        },
        "policies": {
            "PPO on the model's ratings": {
                "learner": "ppo", "observation": ["persona"], "iterations": 100,
                "config": {"num_envs": 16, "num_steps": 40},
                "hyperparams": {"learning_rate": 2.5e-3, "entropy_coefficient": 0.01},
            },
        },
    }  # fmt: skip
    path = folder / "lists.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def personality(folder: Path) -> None:
    """Print what `rlli evaluate` finds, for both ratings of the log."""
    for qoe in ("enjoy_watching", "is_personalized"):
        log = logs.read_log(
            DATA / "personality2018" / "logged.csv", qoe=qoe, scale="1-5", trait_scale="1-7",
            propensities="shares",
        )  # fmt: skip
        config, run = config_of(folder, log.providers), folder / "run"
        if not (run / "policies").exists():
            carry_out(load_study(config), run, "resume" if run.exists() else "refuse", Console())
        found = feedback.evaluate(log, run)
        print(f"\n{qoe}: {len(log)} people; the log's own mean {points(log.reward.mean())}")
        for valued in sorted(found.policies, key=lambda valued: -valued.best.value):
            print(f"  {valued.name:32} {interval(valued.best)}  {valued.warning}")
        print(f"  {found.gain.advice if found.gain else ''}")
        judge = found.judge
        assert judge is not None
        print(f"  {judge.name}")
        worth = [x.worth for x in judge.providers.values()]
        print(f"  prediction-powered: worth {np.min(worth):.2f} to {np.max(worth):.2f} times the "
              f"ratings (median {np.median(worth):.2f}), lambda "
              f"{next(iter(judge.providers.values())).trust:.2f}")  # fmt: skip
        for name, x in judge.providers.items():
            print(f"    {name:20} with the judge {interval(x.estimate)}, people alone "
                  f"{interval(x.classical)}")  # fmt: skip
        gain = [f"{16 * x:+.4f}" for x in judge.prior.gain]
        print(f"  squared error that the judge as prior saves: {gain[0]} points squared ({gain[1]} "
              f"to {gain[2]}); trust {judge.prior.trust:.2f}. {judge.prior.warning}")  # fmt: skip
        for bought in judge.curve:
            print(f"    {bought.people:4} people: with the judge {interval(bought.with_judge)}, "
                  f"without {interval(bought.without)}")  # fmt: skip


def points(value: float) -> str:
    """QoE from 0 to 1 as points of a scale from 1 to 5."""
    return f"{1 + 4 * value:.3f}"


def interval(estimate: Estimate) -> str:
    """The same with its interval."""
    value, low, high = map(points, estimate)
    return f"{value} ({low} to {high})"


def bandit() -> None:
    """Value what was learned from n visits of the random log beside what the other log says."""
    frames = {
        name: pd.read_csv(DATA / "open_bandit" / f"{name}_men.csv") for name in ("random", "bts")
    }
    frame, theirs = frames["random"], frames["bts"]
    place, n, items = frame.position.to_numpy() - 1, len(frame), 34
    features = [c for c in frame.columns if c.startswith("user_feature")]
    kinds = pd.get_dummies(frame[features].astype(str)).to_numpy(float)
    common = kinds[:, (kinds.mean(0) > 0.2) & (kinds.mean(0) < 0.8)]  # kinds of users of some size
    log = Log(
        providers=tuple(map(str, range(items))), action=frame.item_id.to_numpy(),
        reward=frame.click.to_numpy(float), propensity=frame.propensity_score.to_numpy(),
        context=np.hstack([np.eye(3)[place], common]),
        context_names=tuple(map(str, range(3 + common.shape[1]))), user=np.arange(n),
        offered=np.ones((n, items), bool),
    )  # fmt: skip
    clicks, shown = np.zeros((2, 3, items))
    np.add.at(clicks, (theirs.position - 1, theirs.item_id), theirs.click)
    np.add.at(shown, (theirs.position - 1, theirs.item_id), 1)
    rate = (clicks + DOUBT * theirs.click.mean()) / (shown + DOUBT)
    judge = rate[place]
    q = cross_fitted(log)
    policies = {
        **baselines(log, q),
        "learned from this log": learned_policy(log),
        "best by the other log": greedy(judge, log.offered),
        "Thompson sampling": (shown / shown.sum(1, keepdims=True))[place],
    }
    print(f"{n} visits, {items} items, {log.context.shape[1]} numbers of context; clicks in "
          f"{log.reward.mean():.4f} of it, {theirs.click.mean():.4f} of the other")  # fmt: skip
    for valued in value_policies(log, policies, q=q):
        value, low, high = valued.best
        print(f"  {valued.name:26} {value:.4f} ({low:.4f} to {high:.4f})  {valued.warning}")
    powered = provider_values(log, judge)
    worth = [x.worth for x in powered.values()]
    print(f"  prediction-powered clicks of the items: worth {np.min(worth):.3f} to "
          f"{np.max(worth):.3f} times the visits, lambda {powered['0'].trust:.2f}")  # fmt: skip


def both_ways() -> None:
    """Every estimator of either policy from the log of the other, beside its own log."""
    frames, logs_of, shares = {}, {}, {}
    for name in ("random", "bts"):
        frame = frames[name] = pd.read_csv(DATA / "open_bandit" / f"{name}_men.csv")
        place, n = frame.position.to_numpy() - 1, len(frame)
        logs_of[name] = Log(
            providers=tuple(map(str, range(34))), action=frame.item_id.to_numpy(),
            reward=frame.click.to_numpy(float), propensity=frame.propensity_score.to_numpy(),
            context=np.eye(3)[place], context_names=("1", "2", "3"), user=np.arange(n),
            offered=np.ones((n, 34), bool),
        )  # fmt: skip
        share = np.zeros((3, 34))
        np.add.at(share, (place, frame.item_id), 1)
        shares[name] = share / share.sum(1, keepdims=True)
    shares["random"] = np.full((3, 34), 1 / 34)
    for valued, other in (("bts", "random"), ("random", "bts")):
        log, own = logs_of[other], frames[valued].click
        policy = shares[valued][frames[other].position.to_numpy() - 1]
        (found,) = value_policies(log, {valued: policy})
        half = 1.96 * own.std() / np.sqrt(len(own))
        print(f"\n{valued} from the log of {other}; on its own log {own.mean():.4f} ± {half:.4f}; "
              f"effective sample {found.overlap.effective_sample:.0f}; quoted: {found.chosen}; "
              f"{found.warning or 'not flagged'}")  # fmt: skip
        for name, (value, low, high) in {**found.estimates, "Bernstein": found.safe}.items():
            print(f"  {name:30} {value:.4f} ({low:.4f} to {high:.4f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("personality", "bandit", "both_ways"))
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.what in ("bandit", "both_ways"):
        {"bandit": bandit, "both_ways": both_ways}[arguments.what]()
    elif arguments.folder is None:
        raise InputError("personality needs a FOLDER for the model's answers.")
    else:
        personality(arguments.folder)
