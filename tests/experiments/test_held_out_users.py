"""People who are held out, and people who are new in every episode: what they may not touch."""

import json
from io import StringIO

import numpy as np
import pytest
import tiny_study
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.selection import judging
from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.personas import Population
from rlli_jax.studies import load_study, render

LEARNED = tiny_study.LEARNED["PPO"] | {"iterations": 2, "observation": ["action", "persona"]}
POLICIES = {
    "PPO": LEARNED,
    "Random": {"learner": "random"},
    "Best single": {"learner": "best_single"},
    "Optimal": {"learner": "optimal"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    tiny_study.write_pictures(folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def study(folder):
    """A study of twelve users, of whom 60 % of the cells are asked, and five others."""

    def write(*overrides, **changes):
        blocks = {
            "population": {"sample": {"size": 12, "seed": 3, "fresh": True}},
            "catalog": {"folder": "pictures"},
            "judge": {"kind": "psychometric", "ask": {"share": 0.6}},
            "table": {},
            "environment": {},
            "policies": POLICIES,
            "evaluation": {"episodes": 64, "held_out_users": 5},
        }
        return load_study(tiny_study.write_config(folder, **(blocks | changes)), overrides)

    return write


def of(config):
    return build_problem(config, Console(file=StringIO()))


def test_held_out_people_are_others_and_the_judge_is_asked_everything_about_them(study):
    problem = of(study())
    everybody = Population.sample(17, group="women 21-40", seed=3)
    assert problem.population.names == everybody.names[:12]
    assert problem.others.population.names == everybody.names[12:]
    full = of(study(population={"sample": {"size": 17, "seed": 3}}, evaluation={},
                    judge={"kind": "psychometric"}))  # fmt: skip
    np.testing.assert_array_equal(problem.others.table.mean, full.table.mean[12:])
    assert problem.others.table.asked.all()
    assert problem.asked.asked.sum() == round(0.6 * 144)


@pytest.mark.parametrize("table", [{}, {"held_out_requests": 0.5}])
def test_nothing_that_is_fitted_depends_on_held_out_people(study, table):
    some = of(study(table=table))
    nobody = of(study("evaluation.held_out_users=0", table=table))
    np.testing.assert_array_equal(some.table.qoe, nobody.table.qoe)
    np.testing.assert_array_equal(some.model.coefficients, nobody.model.coefficients)
    np.testing.assert_array_equal(some.model.gram, nobody.model.gram)
    assert nobody.others is None


def test_level_and_spread_are_those_of_the_users_alone(study):
    changes = {"population": {"sample": {"size": 12, "seed": 3}}, "table": {"standardise": True}}
    some, nobody = of(study(**changes)), of(study("evaluation.held_out_users=0", **changes))
    np.testing.assert_array_equal(some.train.qoe, nobody.train.qoe)


def test_people_of_a_file_are_held_out_at_random(study, folder):
    everybody = Population.sample(17, group="women 21-40", seed=3)
    everybody.to_csv(folder / "users.csv")
    problem = of(study(population={"csv": "users.csv"}))
    names = problem.population.names, problem.others.population.names
    assert sorted(sum(names, ())) == sorted(everybody.names)
    assert len(names[1]) == 5
    assert names[1] != everybody.names[12:]
    with pytest.raises(InputError, match="held_out_users is 17, but there are 17 people in all"):
        of(study("evaluation.held_out_users=17", population={"csv": "users.csv"}))
    with pytest.raises(InputError, match="held_out_users: must be greater than or equal to 0"):
        study("evaluation.held_out_users=-1")


def test_held_out_requests_are_asked_in_full_and_only_the_others_teach(study):
    problem = of(study(table={"held_out_requests": 0.5}))
    train, test = problem.train, problem.test
    assert problem.asked.asked.shape == (12, 2, 3)
    assert (train.sd > 0).all()  # predicted
    assert (test.sd == 0).all()  # as answered
    full = of(study(judge={"kind": "psychometric"})).table
    np.testing.assert_allclose(test.mean, full.select(requests=test.requests).mean, atol=1e-6)
    assert problem.model.shape == (12, 2, 3)
    assert problem.others.table.requests == test.requests
    places = [problem.table.requests.index(request) for request in test.requests]
    np.testing.assert_allclose(problem.answers[:, places], test.mean, atol=1e-6)


@pytest.fixture(scope="module")
def run(study, folder):
    path = folder / "run"
    config = study()
    return path, config, tiny_study.carry_out(folder / "study.yaml", path)


def test_a_run_tells_what_policies_are_worth_to_them(run):
    path, _, problem = run
    found = json.loads((path / "held_out_users.json").read_text())
    values = problem.others.table.provider_values
    best = values.max(1).mean()
    assert found["references"]["optimum"]["qoe"][0] == pytest.approx(best)
    assert found["references"]["random"]["qoe"][0] == pytest.approx(values.mean())
    single = values[:, problem.train.provider_values.sum(0).argmax()].mean()
    assert found["policies"]["Best single"]["qoe"][0] == pytest.approx(single, abs=1e-6)
    assert found["policies"]["Best single"]["of_optimum"][0] == pytest.approx(single / best)
    assert found["policies"]["Optimal"]["of_optimum"][0] == pytest.approx(1, abs=1e-6)
    low, high = found["policies"]["PPO"]["qoe"][1:]
    assert values.min() < low < found["policies"]["PPO"]["qoe"][0] < high < values.max()
    assert (found["users"], found["over"]) == (5, "people")  # two seeds are too few
    with np.load(path / "policies" / "PPO" / "evaluation.npz") as evaluation:
        assert evaluation["others_choices"].shape == (2, 5, 4, 3)
        assert evaluation["choices"].shape == (2, 12, 4, 3)
    page = render(path).read_text()
    page = page[page.index("People whom nobody had met") :]
    assert page.index(f'<td class="num">{best:.3f} (') < page.index("Random choice")


def test_what_a_run_kept_gives_the_same_people_and_the_same_model(run, study, rlli):
    path, config, problem = run
    again = judging.judge(config, path, Console(quiet=True))
    assert again is not problem
    np.testing.assert_array_equal(again.model.coefficients, of(study()).model.coefficients)
    np.testing.assert_array_equal(again.others.table.qoe, problem.others.table.qoe)
    assert again.others.population == problem.others.population
    status, chosen, _ = rlli("select", path, "--persona", "4,3,3,4,2")
    assert status == 0
    assert "chosen by PPO" in chosen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["table.standardise=true"], "gave no answers to standardise"),
        (["policies.PPO.observation=[user]"], "the number of a user of the table"),
        (["environment.assignment=shared"], "serves the users of the table all at once"),
        (["table.shrink=true"], "has drawn noisy answers to the means already"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(study, overrides, message):
    with pytest.raises(InputError, match=message):
        study(*overrides)
