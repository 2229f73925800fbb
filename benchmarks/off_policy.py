"""How good the estimators of `rlli_jax.feedback` are where the truth is known.

    python benchmarks/off_policy.py parity         beside obp 0.5.7 (needs `pip install obp`)
    python benchmarks/off_policy.py classification  error and coverage over 200 draws
    python benchmarks/off_policy.py intervals      why intervals cover as they do where rows are few
    python benchmarks/off_policy.py interaction    false alarms and power of the test, 200 draws

``classification`` follows Dudik, Langford & Li 2011, Section 4: a labelled data set becomes a log
in which the label is the only action that pays. Rounds are drawn with replacement from a pool that
no classifier saw; the truth is the policy's exact value on the pool.

``interaction`` makes logs from the stand-in judge: 400 personas, each served once by one of four
providers at random. Without its persona term (each provider's mean and each persona's own level
remain) there is no interaction; random ones of a size are added to that, or its own is added again,
whole or made smaller. The test must find them as often as it says.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rlli_jax.feedback import Log, cross_fitted, interaction_test, value_policies
from rlli_jax.feedback.personal import random_interaction
from rlli_jax.personas import Population

DRAWS = 200
DR, SNDR = "doubly robust", "self-normalised doubly robust"
SIZE = 0.03  # QoE: an interaction that 400 ratings find about every second time
DATA = Path(__file__).parents[2] / "shared" / "data" / "open_bandit"
SETS = {"digits": load_digits, "breast cancer": load_breast_cancer, "wine": load_wine}


def classification_log(load, seed: int):
    """Pool of contexts, labels, logging and evaluated policy: [N, d], [N], [N, L], [N, L]."""
    x, y = load(return_X_y=True)
    split = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
    fit_x, pool_x, fit_y, pool_y = split
    first, second = train_test_split(np.arange(len(fit_y)), test_size=0.5, random_state=seed)
    labels = len(np.unique(y))

    def policy(rows, sharp, share):
        # A weak classifier: few examples, so that its policy errs.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=sharp, max_iter=500))
        model.fit(fit_x[rows], fit_y[rows])
        greedy = np.eye(labels)[model.predict(pool_x)]
        return share * greedy + (1 - share) / labels

    reduce = make_pipeline(StandardScaler(), PCA(min(10, x.shape[1])))
    context = reduce.fit(fit_x).transform(pool_x)
    return context, pool_y, policy(first, 0.01, 0.5), policy(second, 1.0, 0.9)


def drawn(context, label, logging, rounds: int, seed: int):
    """A log of ``rounds`` and which places of the pool it has."""
    rng = np.random.default_rng(seed)
    place = rng.integers(len(label), size=rounds)
    steps = logging[place].cumsum(1)
    action = (steps <= rng.random(rounds)[:, None] * steps[:, -1:]).sum(1)
    labels = logging.shape[1]
    log = Log(
        providers=tuple(map(str, range(labels))),
        action=action,
        reward=(action == label[place]).astype(float),
        propensity=logging[place, action],
        context=context[place],
        context_names=tuple(f"x{i}" for i in range(context.shape[1])),
        user=np.arange(rounds),
        offered=np.ones((rounds, labels), bool),
    )
    return log, place


def classification(draws: int, rounds: int) -> None:
    """Root mean squared error, bias and coverage of each estimator."""
    for name, load in SETS.items():
        start = time.perf_counter()
        context, label, logging, evaluated = classification_log(load, 0)
        truth = float(evaluated[np.arange(len(label)), label].mean())
        of_log = float(logging[np.arange(len(label)), label].mean())
        found, effective, safe = {}, [], 0
        for seed in range(draws):
            log, place = drawn(context, label, logging, rounds, seed)
            (valued,) = value_policies(log, {"evaluated": evaluated[place]}, draws=500, seed=seed)
            effective.append(valued.overlap.effective_sample)
            safe += valued.safe.low <= truth <= valued.safe.high
            chosen = {"(chosen by the rules)": valued.best}
            for key, estimate in {**valued.estimates, **chosen}.items():
                found.setdefault(key, []).append([*map(float, estimate)])
        print(
            f"\n{name}: {rounds} rounds, {logging.shape[1]} actions; true value {truth:.4f}, of "
            f"the logging policy {of_log:.4f}; effective sample {np.mean(effective):.0f}; "
            f"{draws} draws, {time.perf_counter() - start:.0f} s"
        )
        print(f"{'estimator':32} {'RMSE':>7} {'bias':>8} {'coverage':>9} {'width':>7}")
        for key, rows in found.items():
            value, low, high = np.array(rows).T
            covered = ((low <= truth) & (truth <= high)).mean()
            error = np.sqrt(((value - truth) ** 2).mean())
            print(
                f"{key:32} {error:7.4f} {value.mean() - truth:+8.4f} {covered:9.3f} "
                f"{(high - low).mean():7.4f}"
            )
        print(f"{'IPS, empirical Bernstein':32} {'':7} {'':8} {safe / draws:9.3f}")


def intervals(draws: int, rounds: int) -> None:
    """Coverage of doubly robust estimates by how the model of the reward was fitted.

    With the true standard error (of the draws themselves) in place of the estimated one, what is
    left is the shape of the estimate; the correlation of error and width is how far an interval is
    short just where it is off.
    """
    for name, load in SETS.items():
        context, label, logging, evaluated = classification_log(load, 0)
        truth = float(evaluated[np.arange(len(label)), label].mean())
        apart = model_of_others(load, 0)
        fitted = {
            "on other rounds": lambda log, place: cross_fitted(log),
            "on other rows of the pool": lambda log, place: cross_fitted(replace(log, user=place)),
            "on data apart": lambda log, place, apart=apart: apart[place],
        }
        print(f"\n{name}: {rounds} rounds of {len(label)} rows, {draws} draws; true {truth:.4f}")
        for way, fit in fitted.items():
            found: dict[str, list[list[float]]] = {DR: [], SNDR: []}
            for seed in range(draws):
                log, place = drawn(context, label, logging, rounds, seed)
                policies = {"evaluated": evaluated[place]}
                (valued,) = value_policies(log, policies, q=fit(log, place), draws=200, seed=seed)
                for key, rows in found.items():
                    rows.append([*map(float, valued.estimates[key])])
            for key, rows in found.items():
                value, low, high = np.array(rows).T
                covered = ((low <= truth) & (truth <= high)).mean()
                error, spread = value - truth, value.std(ddof=1)
                known = (np.abs(error) <= 1.96 * spread).mean()
                together = np.corrcoef(error, high - low)[0, 1]
                print(
                    f"  model {way:26} {key:30} coverage {covered:.3f} ± "
                    f"{1.96 * np.sqrt(covered * (1 - covered) / draws):.3f}; bias "
                    f"{error.mean():+.4f}, spread {spread:.4f}, estimated "
                    f"{(high - low).mean() / 3.92:.4f}; with the true one {known:.3f}; error and "
                    f"width correlate by {together:+.2f}",
                    flush=True,
                )


def model_of_others(load, seed: int) -> np.ndarray:
    """Expected reward of each label in each row of the pool, by rows outside of it: [N, L]."""
    x, y = load(return_X_y=True)
    fit_x, pool_x, fit_y, _ = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
    reduce = make_pipeline(StandardScaler(), PCA(min(10, x.shape[1])))
    context = reduce.fit_transform(fit_x)
    paid = np.eye(len(np.unique(y)))[fit_y]
    return RidgeCV(np.logspace(-1, 5, 13)).fit(context, paid).predict(reduce.transform(pool_x))


def interaction(draws: int) -> None:
    """False alarms of the test without an interaction, and its power with one."""
    qoe = stand_in_table()  # [people, providers]
    people, providers = qoe.shape
    levels = qoe.mean(1, keepdims=True) + qoe.mean(0) - qoe.mean()
    own = qoe - levels
    traits = Population.sample(people, group="women 21-40", seed=1).traits
    scaled = (traits - traits.mean(0)) / traits.std(0)

    def random(seed: int) -> np.ndarray:
        generator = np.random.default_rng(10_000 + seed)
        return levels + random_interaction(scaled, providers, SIZE, generator)

    made = {
        "without interaction": lambda seed: levels,
        "random interactions": random,
        "the stand-in's own, made smaller": lambda seed: levels + own * SIZE / own.std(),
        "the stand-in's own": lambda seed: qoe,
    }
    for name, mean_of in made.items():
        found, power, start = 0, [], time.perf_counter()
        size = own.std() if mean_of(0) is qoe else SIZE
        for seed in range(draws):
            rng, mean = np.random.default_rng(seed), mean_of(seed)
            action = rng.integers(providers, size=people)
            reward = mean[np.arange(people), action] + 0.15 * rng.standard_normal(people)
            log = Log(
                providers=tuple("ABCDEFGH"[:providers]), action=action, reward=reward.clip(0, 1),
                propensity=np.full(people, 1 / providers), context=traits,
                context_names=tuple("OCEAN"), user=np.arange(people),
                offered=np.ones((people, providers), bool),
            )  # fmt: skip
            test = interaction_test(log, permutations=199, simulations=50, seed=seed, size=size)
            found += test.p <= 0.05
            power.append(test.power)
        share = found / draws
        print(
            f"{name}, size {size:.3f}: found in {found} of {draws} ({share:.3f} +- "
            f"{1.96 * np.sqrt(share * (1 - share) / draws):.3f}); announced, mean over the logs: "
            f"{np.mean(power):.3f} (each log {np.min(power):.2f} to {np.max(power):.2f}); "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )


def stand_in_table(people: int = 400) -> np.ndarray:
    """Mean QoE of each persona by provider: the stand-in on the built-in studio's pictures."""
    from rlli_jax.catalog import Catalog
    from rlli_jax.judges import named_scale
    from rlli_jax.judges.psychometric import PsychometricJudge
    from rlli_jax.oracle import ask, build_questions
    from rlli_jax.qoe import QoETable

    catalog, scale = Catalog.studio(), named_scale("adjectives")
    population = Population.sample(people, group="women 21-40", seed=1)
    judge = PsychometricJudge(catalog, noise=0.0)
    answers = ask(judge, build_questions(population, catalog, scale))
    table = QoETable.from_answers(
        answers, population=population, catalog=catalog, scale=scale, judge=judge.identity
    )
    return table.provider_values


def parity() -> None:
    """The largest difference from obp's estimators on Open Bandit and on digits."""
    import pandas as pd
    from obp.ope import (
        DirectMethod,
        DoublyRobust,
        DoublyRobustWithShrinkage,
        InverseProbabilityWeighting,
        SelfNormalizedDoublyRobust,
        SelfNormalizedInverseProbabilityWeighting,
        SwitchDoublyRobust,
    )

    from rlli_jax.feedback.estimators import (
        ESTIMATORS,
        Rounds,
        shrunk_doubly_robust,
        switch_doubly_robust,
    )

    logs = {}
    frames = {name: pd.read_csv(DATA / f"{name}_men.csv") for name in ("random", "bts")}
    for name, other in (("random", "bts"), ("bts", "random")):
        frame, share = frames[name], np.zeros((3, 34))
        theirs = frames[other]
        np.add.at(share, (theirs.position - 1, theirs.item_id), 1)
        share /= share.sum(1, keepdims=True)
        log = Log(
            providers=tuple(map(str, range(34))), action=frame.item_id.to_numpy(),
            reward=frame.click.to_numpy(float), propensity=frame.propensity_score.to_numpy(),
            context=np.eye(3)[frame.position.to_numpy() - 1], context_names=("1", "2", "3"),
            user=np.arange(len(frame)), offered=np.ones((len(frame), 34), bool),
        )  # fmt: skip
        logs[f"Open Bandit, {name} log"] = (log, share[frame.position.to_numpy() - 1])
    context, label, logging, evaluated = classification_log(load_digits, 0)
    log, place = drawn(context, label, logging, 1000, 0)
    logs["digits"] = (log, evaluated[place])
    tau, lam = 5.0, 10.0
    theirs = {
        "direct method": DirectMethod(),
        "IPS": InverseProbabilityWeighting(),
        "self-normalised IPS": SelfNormalizedInverseProbabilityWeighting(),
        "doubly robust": DoublyRobust(),
        "self-normalised doubly robust": SelfNormalizedDoublyRobust(),
        "SWITCH-DR": SwitchDoublyRobust(lambda_=tau),
        "DR with shrinkage": DoublyRobustWithShrinkage(lambda_=lam),
    }
    mine = {
        **ESTIMATORS,
        "SWITCH-DR": switch_doubly_robust(tau),
        "DR with shrinkage": shrunk_doubly_robust(lam),
    }
    for name, (log, probability) in logs.items():
        q = cross_fitted(log)
        every = np.arange(len(log))
        weight = probability[every, log.action] / log.propensity
        with jax.enable_x64(True):
            numbers = log.reward, weight, q[every, log.action], (probability * q).sum(1)
            rounds = Rounds(*map(jnp.asarray, numbers))
            ours = {
                key: float(estimator(rounds, jnp.ones(len(log)))) for key, estimator in mine.items()
            }
        for key, estimator in theirs.items():
            value = estimator.estimate_policy_value(
                reward=log.reward, action=log.action, pscore=log.propensity,
                action_dist=probability[:, :, None], estimated_rewards_by_reg_model=q[:, :, None],
                position=np.zeros(len(log), int),
            )  # fmt: skip
            print(f"{name:24} {key:32} {ours[key]:.8f} {value:.8f} {abs(ours[key] - value):.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("parity", "classification", "intervals", "interaction"))
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    if arguments.what == "parity":
        parity()
    elif arguments.what == "classification":
        classification(arguments.draws, arguments.rounds)
    elif arguments.what == "intervals":
        intervals(arguments.draws, arguments.rounds)
    else:
        interaction(arguments.draws)
