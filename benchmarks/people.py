"""What real ratings, a model's ratings, and both are worth: on two logs of real people.

    python benchmarks/people.py personality   910 people, ten kinds of lists of films
    python benchmarks/people.py bandit        10,000 visits of a shop, 34 items
    python benchmarks/people.py both_ways     either policy of the shop by the other's log

No language model rated what was served there, so that something else is in the place of one. Of
``personality`` it is what other people answered to another question about the list, as a regression
of the reward on traits and providers predicts it; of ``bandit`` the log of another policy: clicks
by item and position there, drawn toward the mean of all. Policies by it, and policies learned from
the log (doubly robust), are valued on other people than either was made on.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from rlli_jax.feedback import (
    Log,
    baselines,
    cross_fitted,
    gain_of_personalising,
    interaction_test,
    value_policies,
)
from rlli_jax.feedback.evaluation import greedy
from rlli_jax.feedback.posterior import curve, does_the_prior_help
from rlli_jax.feedback.prediction_powered import provider_values
from rlli_jax.feedback.reading import read_log, traits_of
from rlli_jax.learners.from_log import learned_policy
from rlli_jax.statistics import Estimate

DATA = Path(__file__).parents[2] / "shared" / "data"
QUESTIONS = ("enjoy_watching", "is_personalized")
SIZES = (0, 20, 50, 100, 200, 400)  # people who are asked
ITEMS = 34
DOUBT = 300  # visits: so many of the mean of all are added to each item's own


def personality() -> None:
    """For each of the two questions, with the other one in the place of a model."""
    read = {
        qoe: read_log(
            DATA / "personality2018" / "logged.csv", qoe=qoe, scale="1-5", trait_scale="1-7",
            propensities="shares",
        )
        for qoe in QUESTIONS
    }  # fmt: skip
    for qoe, other in (QUESTIONS, QUESTIONS[::-1]):
        log, judge = read[qoe], cross_fitted(read[other])
        q, traits = cross_fitted(log), traits_of(log)
        policies = {
            **baselines(log, q),
            f"learned from these {log.users} people": learned_policy(log),
            "best by the other question": greedy(judge, log.offered),
        }
        print(f"\n{qoe}: {len(log)} people; the log's own mean {points(log.reward.mean())}")
        for valued in value_policies(log, policies, q=q):
            print(f"  {valued.name:32} {interval(valued.best)}  {valued.warning}")
        test = interaction_test(log)
        print(f"  {gain_of_personalising(log, q).advice} Interaction: F = {test.f:.2f}, p = "
              f"{test.p:.2f}")  # fmt: skip
        powered = provider_values(log, judge)
        worth = [x.worth for x in powered.values()]
        print(f"  prediction-powered, lambda {next(iter(powered.values())).trust:.2f}: worth "
              f"{np.min(worth):.3f} to {np.max(worth):.3f} times the ratings")  # fmt: skip
        for name, x in powered.items():
            print(f"    {name:20} with the judge {interval(x.estimate)}, people alone "
                  f"{interval(x.classical)}")  # fmt: skip
        prior = does_the_prior_help(log, judge, traits)
        gain = [f"{16 * x:+.4f}" for x in prior.gain]
        print(f"  squared error that the judge as prior saves: {gain[0]} points squared ({gain[1]} "
              f"to {gain[2]}); trust {prior.trust:.2f}. {prior.warning}")  # fmt: skip
        for bought in curve(log, judge, traits, SIZES):
            print(f"    {bought.people:4} people: with the judge {interval(bought.with_judge)}, "
                  f"without {interval(bought.without)}")  # fmt: skip


def points(value: float) -> str:
    """QoE from 0 to 1 as points of a scale from 1 to 5."""
    return f"{1 + 4 * value:.3f}"


def interval(estimate: Estimate) -> str:
    """The same with its interval."""
    value, low, high = map(points, estimate)
    return f"{value} ({low} to {high})"


def shop(name: str) -> tuple[pd.DataFrame, Log, np.ndarray]:
    """The log of one policy of the shop, as it is, as a log, and its shares of items [3, 34].

    What a policy shows depends on the place on the page, which is the context.
    """
    frame = pd.read_csv(DATA / "open_bandit" / f"{name}_men.csv")
    place, n = frame.position.to_numpy() - 1, len(frame)
    log = Log(
        providers=tuple(map(str, range(ITEMS))), action=frame.item_id.to_numpy(),
        reward=frame.click.to_numpy(float), propensity=frame.propensity_score.to_numpy(),
        context=np.eye(3)[place], context_names=("1", "2", "3"), user=np.arange(n),
        offered=np.ones((n, ITEMS), bool),
    )  # fmt: skip
    shown = np.zeros((3, ITEMS))
    np.add.at(shown, (place, log.action), 1)
    return frame, log, shown / shown.sum(1, keepdims=True)


def bandit() -> None:
    """Value what was learned from the visits of the random log beside what the other log says."""
    (frame, log, _), (theirs, _, share) = shop("random"), shop("bts")
    place = frame.position.to_numpy() - 1
    clicks, shown = np.zeros((2, 3, ITEMS))
    np.add.at(clicks, (theirs.position - 1, theirs.item_id), theirs.click)
    np.add.at(shown, (theirs.position - 1, theirs.item_id), 1)
    judge = ((clicks + DOUBT * theirs.click.mean()) / (shown + DOUBT))[place]
    q = cross_fitted(log)
    policies = {
        **baselines(log, q),
        "learned from this log": learned_policy(log),
        "best by the other log": greedy(judge, log.offered),
        "Thompson sampling": share[place],
    }
    print(f"{len(log)} visits, {ITEMS} items, three places on the page; clicks in "
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
    logs_of, frames, shares = {}, {}, {}
    for name in ("random", "bts"):
        frames[name], logs_of[name], shares[name] = shop(name)
    shares["random"] = np.full((3, ITEMS), 1 / ITEMS)
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
    known = {"personality": personality, "bandit": bandit, "both_ways": both_ways}
    parser.add_argument("what", choices=tuple(known))
    known[parser.parse_args().what]()
