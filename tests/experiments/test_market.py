"""Studies of the edge market: the run directory, resuming, the report, mistakes in the input."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from rich.console import Console

from rlli_jax.envs.edge_market import load_fleet, sample_fleet, sample_tasks
from rlli_jax.errors import InputError
from rlli_jax.experiments import checkpoints
from rlli_jax.experiments.market import study
from rlli_jax.experiments.market.config import MarketConfig
from rlli_jax.experiments.yaml_blocks import parse_as
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import reliability
from rlli_jax.report.market import load_market_run, steps_to
from rlli_jax.studies import carry_out, load_study, render, run_study

TINY_PPO = {
    "learner": "ppo",
    "iterations": 4,
    "config": {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "hidden": [8]},
}
# The learner that compiles fastest.
TINY_REINFORCE = {
    "learner": "reinforce",
    "iterations": 4,
    "config": {"num_envs": 4, "num_steps": 16, "lookahead": 4, "hidden": [8]},
}
AWARE = ["providers", "task", "utility", "persona", "request"]


def content(**changes):
    """A market of three providers and some twenty tasks, without users."""
    tiny = {
        "name": "tiny",
        "seeds": 2,
        "checkpoint_every": 2,
        "market": {
            "fleet": {"sample": {"seed": 1, "providers": 3}},
            "demands": [100, 200],
            "runtime": [0, 20, 0],
            "horizon": 20_000,
        },
        "policies": {
            "Random": {"learner": "random"},
            "Crash Avoid": {"learner": "least_loaded"},
            "Greedy": {"learner": "greedy"},
            "LinUCB": {"learner": "linucb", "steps": 60},
            "PPO": TINY_PPO,
        },
        "evaluation": {"episodes": 3},
    }
    return tiny | changes


def parsed(**changes):
    return parse_as(MarketConfig, content(**changes), source="study.yaml", folder=Path.cwd())


def run(config, path, existing="refuse"):
    carry_out(config, path, existing, Console(quiet=True))
    return path


@pytest.fixture(scope="module", autouse=True)
def fast_compilations(compilations):
    """Compiling is nearly all of the time here: programs are kept, and hardly optimised."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(parsed(), tmp_path_factory.mktemp("runs") / "tiny")


def arrays(folder):
    return {
        (policy.name, file.name, key): value
        for policy in sorted((folder / "policies").iterdir())
        for file in sorted(policy.glob("*.npz"))
        for key, value in np.load(file).items()
    }


def test_all_policies_meet_the_same_tasks_and_none_beats_the_optimum(finished):
    references = json.loads((finished / "references.json").read_text())
    found = arrays(finished)
    for policy in content()["policies"]:
        tasks = found[policy, "evaluation.npz", "tasks"]
        assert tasks.tolist() == [references["tasks"]] * 2
        returns = found[policy, "evaluation.npz", "returns"]
        assert (returns <= np.array(references["optimum"]) + 1e-3).all()
        parts = [found[policy, "evaluation.npz", key] for key in ("assigned", "lost")]
        assert np.array_equal(sum(parts), tasks)
    # Greedy looks at utility and load, so that it returns most of the rules.
    mean = {p: found[p, "evaluation.npz", "returns"].mean() for p in content()["policies"]}
    assert mean["Greedy"] > max(mean["Random"], mean["Crash Avoid"])
    assert found["Greedy", "evaluation.npz", "lost"].sum() == 0


def test_a_run_that_stopped_ends_as_if_it_had_not(finished, tmp_path, monkeypatch):
    config = parsed(policies={"PPO": TINY_PPO})
    path, save = tmp_path / "tiny", checkpoints.Checkpoints.save

    def stop_after_first(self, iteration, kept):
        save(self, iteration, kept)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoints, "save", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        run(config, path)
    monkeypatch.undo()
    assert not (path / "policies" / "PPO" / "summary.json").exists()
    run(config, path, "resume")
    whole = {key: value for key, value in arrays(finished).items() if key[0] == "PPO"}
    for key, value in arrays(path).items():
        assert np.array_equal(value, whole[key], equal_nan=True), key
    assert load_study(path / "config.yaml") == config
    assert load_study(path / "config.yaml") == config


def test_an_own_learner_serves_the_market(tmp_path):
    policies = {"Q": {"learner": "q_learning:kind", "iterations": 2, "reward": "regret"}}
    evaluation = {"episodes": 2, "optimum": False}
    path = run(parsed(policies=policies, evaluation=evaluation), tmp_path / "tiny")
    summary = json.loads((path / "policies" / "Q" / "summary.json").read_text())
    assert (summary["learner"], summary["env_steps"]) == ("q_learning:kind", 2 * 16 * 32)
    assert "q_learning:kind" in render(path).read_text()


def test_another_config_is_not_resumed(finished):
    changed = content()["market"] | {"arrival_rate": 2e-3}
    with pytest.raises(InputError, match=r"market.arrival_rate differs"):
        run(parsed(market=changed), finished, "resume")


def test_report_states_what_the_files_hold(finished):
    page = render(finished).read_text()
    market_run = load_market_run(finished)
    greedy = next(p for p in market_run.policies if p.name == "Greedy")
    assert f"{greedy.returns.mean():.1f}" in page
    assert greedy.returns.mean() > 0
    ratio = 100 * (greedy.sums["returns"] / market_run.optimum).mean()
    assert f"{ratio:.1f}" in page
    assert "3 test episodes" in page
    assert "No intervals: 3 episodes are too few." in page
    assert {p.stem for p in (finished / "figures").glob("*.svg")} == {
        "convergence",
        "returns",
        "load",
    }
    assert "stand-in" not in page


def with_episodes(path, episodes, seeds):
    """The run with its evaluations drawn anew: each a seed's level, an episode's and noise."""
    rng = np.random.default_rng(0)
    references = json.loads((path / "references.json").read_text())
    of_episode = rng.normal(0, 3, episodes)
    references |= {"optimum": [50.0] * episodes, "tasks": [20] * episodes}
    (path / "references.json").write_text(json.dumps(references))
    for file in path.glob("policies/*/evaluation.npz"):
        arrays = {
            k: np.resize(v, (seeds, episodes, *v.shape[2:])) for k, v in np.load(file).items()
        }
        noise = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 0.1, (seeds, episodes))
        np.savez(file, **arrays | {"returns": 20 + of_episode + noise})
    return path


@pytest.mark.parametrize(
    ("seeds", "over"), [(8, "over seeds and episodes"), (4, "over episodes, by a bootstrap of")]
)
def test_intervals_of_the_report_are_over_what_they_say(finished, tmp_path, seeds, over):
    path = with_episodes(shutil.copytree(finished, tmp_path / "tiny"), 50, seeds)
    page = render(path).read_text()
    assert over in page
    greedy = next(p for p in load_market_run(path).policies if p.name == "Greedy")
    value, low, high = greedy.mean("returns")
    half = f"{value:.1f} ± {(high - low) / 2:.1f}"
    assert half in page.replace("\u2009", " ")
    # An episode's level scatters by 3, a seed's by 1.
    of_seeds = greedy.returns.var(ddof=1) / seeds * (seeds >= 5)
    assert (high - low) / 2 == pytest.approx(2.02 * np.sqrt(9 / 50 + of_seeds), rel=0.25)


def test_training_tuning_and_test_share_no_task(tmp_path):
    rule = {"Random": {"learner": "random"}}

    def arrivals(split):
        config = parsed(policies=rule, evaluation={"episodes": 9, "split": split, "optimum": False})
        (tmp_path / split).mkdir()
        market = study.prepare(config, tmp_path / split, Console(quiet=True))
        trained = {tuple(np.asarray(market.train_tasks.arrival)[1:4].tolist())}
        return trained, set(map(tuple, np.asarray(market.episodes.tasks.arrival)[:, 1:4].tolist()))

    (trained, tuning), (again, test) = arrivals("tuning"), arrivals("test")
    assert trained == again
    assert len(tuning) == len(test) == 9
    assert not trained & (tuning | test)
    assert not tuning & test


def test_a_run_goes_on_with_the_episodes_it_began_with(tmp_path):
    config = parsed(policies={"Random": {"learner": "random"}}, evaluation={"optimum": False})
    began = study.prepare(config, tmp_path, Console(quiet=True)).episodes.tasks.arrival
    assert np.array_equal(
        study.prepare(config, tmp_path, Console(quiet=True)).episodes.tasks.arrival, began
    )
    references = json.loads((tmp_path / "references.json").read_text())
    del references["split"]  # as runs of before; they have the episodes that are for tuning now
    (tmp_path / "references.json").write_text(json.dumps(references))
    old = study.prepare(config, tmp_path, Console(quiet=True)).episodes.tasks.arrival
    _, key = jax.random.split(jax.random.key(config.evaluation.seed))
    market = study.prepare(config, tmp_path, Console(quiet=True))
    tasks = sample_tasks(jax.random.split(key, 50)[0], market.params)
    assert old[0, : len(tasks.arrival)].tolist() == tasks.arrival.tolist()


def test_a_report_needs_no_policy_that_learns(finished, tmp_path):
    path = shutil.copytree(finished, tmp_path / "tiny")
    shutil.rmtree(path / "figures", ignore_errors=True)
    for name in ("LinUCB", "PPO"):
        shutil.rmtree(path / "policies" / name)
    assert "Greedy" in render(path).read_text()
    assert {p.stem for p in (path / "figures").glob("*.svg")} == {"returns", "load"}


def test_steps_to_a_goal_are_those_of_the_smoothed_curve(finished):
    ppo = next(p for p in load_market_run(finished).policies if p.name == "PPO")
    # Episodes end within the first two iterations of 64 steps.
    assert set(steps_to(ppo, -np.inf)) <= {64, 128}
    assert steps_to(ppo, np.inf).tolist() == [np.inf] * 2


def test_with_users_the_report_compares_aware_with_blind_and_names_the_stand_in(tmp_path):
    learner = TINY_REINFORCE | {"mask": True, "reward": "regret"}
    path = run(
        parsed(
            market={
                "fleet": {"sample": {"seed": 1, "providers": 4}},
                "runtime": [0, 20, 0],
                "horizon": 20_000,
                "drift": {"interest_rate": 0.1},
                "queue": 1,
                "link": {"side": 500, "energy_price": 1e-9},
                "user_mix": [2, 1, 0],
                "request_mix": [1, 1, 1, 0, 0, 1],
            },
            population={"sample": {"size": 3}},
            catalog={"studio": True},
            judge={"kind": "psychometric"},
            policies={
                "blind": learner | {"observation": AWARE[:3]},
                "aware": learner | {"observation": AWARE},
            },
            evaluation={"episodes": 2, "optimum": False},
        ),
        tmp_path / "users",
    )
    page = render(path).read_text()
    assert "stand-in for a language model" in page
    assert "more than blind" in page
    # What is known of the judge stands there as in a study of provider selection.
    assert page.index("Can this judge be believed?") < page.index("<h2>Policies</h2>")
    measured = reliability(QoETable.load(path / "table.npz"))
    assert f"<td>{measured.ratings:,}</td>" in page[page.index("How reliable the scores are") :]
    aware = load_market_run(path).policies[1]
    assert aware.qoe.shape == (2, 3)
    found = arrays(path)["aware", "evaluation.npz", "assigned_of_user"]
    assert found[..., :2].sum() > found[..., 2].sum() == 0
    assert (arrays(path)["aware", "evaluation.npz", "energy"] > 0).all()
    # The curve of regret is lifted to the level of what was paid: it lies near the evaluation's.
    paid = np.nanmean(aware.curve.episode_return)
    assert paid > 0
    assert abs(paid - aware.returns.mean()) < 0.5 * aware.returns.mean()


def test_a_bandit_in_the_spelling_of_before_is_a_learner_like_any_other():
    older = {"learner": "linucb", "steps": 1_500, "exploration": 0.5, "mask": True}
    (block,) = parsed(policies={"X": older}).policies.values()
    assert (block.iterations, block.config.num_steps) == (2, 750)
    assert block.hyperparams.exploration == 0.5
    assert (block.mask, block.observation) == (True, ("providers", "task", "room"))
    assert parsed(policies={"X": block.model_dump()}).policies["X"] == block


def test_the_shipped_market_with_a_link_queues_and_moving_tastes_runs_to_its_report(tmp_path):
    small = (
        "seeds=1",
        "judge.samples=1",
        "market.horizon=50000",  # about ten tasks
        "evaluation.episodes=2",
        "policies.LinUCB.iterations=1",
        "policies.LinUCB.config={num_steps: 20}",
        "policies.PPO.iterations=2",
        "policies.PPO.config={num_envs: 4, num_steps: 8, num_minibatches: 2, hidden: [4]}",
    )
    config = Path(__file__).parents[2] / "configs" / "edge_market_link.yaml"
    path = run_study(config, tmp_path / "run", overrides=small, progress=False)
    found = arrays(path)
    assert (found["PPO", "evaluation.npz", "energy"] > 0).all()
    assert found["LinUCB", "evaluation.npz", "assigned_of_user"].shape[-1] == 12
    assert "Return of each policy" in (path / "report.html").read_text()


def test_shipped_configs_can_be_read():
    for name, providers in (("edge_market", 20), ("edge_market_qoe", 4), ("edge_market_link", 4)):
        config = load_study(Path("configs") / f"{name}.yaml", ["seeds=3"])
        assert config.seeds == 3
        assert len(load_fleet(config.market.fleet.file)) == providers
        assert parse_as(MarketConfig, config.dump(), source="again", folder=None) == config


MISTAKES = {
    "unknown policy": (
        {"policies": {"X": {"learner": "sarsa"}}},
        r"policies.X: learner must be one of ppo, dqn, reinforce, sac, d2sac",
    ),
    "unknown key": (
        {"policies": {"X": TINY_PPO | {"maks": True}}},
        r"policies.X.maks: unknown key, did you mean mask\?",
    ),
    "no fleet": ({"market": {"fleet": {}}}, "give exactly one of file, sample; here none is"),
    "no market": ({"market": None}, "market: must be"),
    "persona without users": (
        {"policies": {"X": TINY_PPO | {"observation": ["persona"]}}},
        "policies.X.observation: persona is that of a user; give catalog and judge",
    ),
    "tastes without drift": (
        {"policies": {"X": TINY_PPO | {"observation": ["tastes"]}}},
        "tastes needs market.drift",
    ),
    "drift without users": (
        {"market": content()["market"] | {"drift": {}}},
        "market.drift: tastes are those of users",
    ),
    "a mix without users": (
        {"market": content()["market"] | {"user_mix": [1, 2]}},
        "market.user_mix: these are weights of users; give catalog and judge too",
    ),
    "optimum of a queue": (
        {"market": content()["market"] | {"queue": 2}},
        "evaluation.optimum: there is none where tastes drift or tasks queue",
    ),
    "judge without catalog": (
        {"judge": {"kind": "psychometric"}},
        "judge: personal QoE needs catalog and judge together",
    ),
    "judge without users": (
        {"judge": {"kind": "psychometric"}, "catalog": {"studio": True}},
        "population: the users of a recorded judge are those of its file; any other judge needs",
    ),
    "name of a folder": ({"policies": {"a/b": {"learner": "random"}}}, "cannot be the name"),
    "negative queue": (
        {"market": content()["market"] | {"queue": -1}},
        "market.queue: must be greater than or equal to 0",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_the_file_are_named(changes, sentence):
    with pytest.raises(InputError, match=f"^study.yaml: .*{sentence}"):
        parsed(**changes)


@pytest.mark.parametrize(
    ("market", "sentence"),
    [
        ({"fleet": {"file": "none.json"}}, "none.json: there is no such fleet file"),
        ({"fleet": {"file": "bad.json"}}, r"bad.json: provider 1 of the fleet has capacity -500"),
        ({"fleet": {"sample": {"seed": 0, "providers": 2}}, "arrival_rate": -1}, "market: arrival"),
    ],
    ids=["missing fleet", "negative capacity", "negative rate"],
)
def test_mistakes_in_the_market_are_named(tmp_path, market, sentence):
    fleet = {"capacity": [400, -500], "utility_coefs": sample_fleet(0, 2).utility.tolist()}
    (tmp_path / "bad.json").write_text(json.dumps(fleet))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content(market=market)))
    config = load_study(tmp_path / "study.yaml")
    with pytest.raises(InputError, match=sentence):
        run(config, tmp_path / "run")


def test_a_fleet_must_have_the_providers_of_the_judge(tmp_path):
    config = parsed(
        population={"sample": {"size": 2}},
        catalog={"studio": True},
        judge={"kind": "psychometric"},
        policies={"Random": {"learner": "random"}},
    )
    with pytest.raises(InputError, match=r"market\.fleet has 3 providers, but the judge rated"):
        run(config, tmp_path / "run")
