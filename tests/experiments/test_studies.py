"""A study from its config to everything that a report reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from PIL import Image

from rlli_jax.errors import InputError
from rlli_jax.experiments.selection import study as studies
from rlli_jax.experiments.selection.tables import build_problem
from rlli_jax.experiments.study import program_of
from rlli_jax.personas import Population
from rlli_jax.qoe import QoETable
from rlli_jax.studies import load_study, render


def summary(path, policy):
    return json.loads((path / "policies" / policy / "summary.json").read_text())


def test_a_study_writes_every_file_of_a_run_directory(finished):
    config, path = finished
    study = load_study(config)
    table = QoETable.load(path / "table.npz")
    held_out = QoETable.load(path / "held_out.npz")
    assert held_out.requests == table.split_requests(0.5, 0)[0].requests
    people = Population.from_csv(path / "population.csv", traits=False)
    assert people.names == table.users == ("ann", "ben")
    references = json.loads((path / "references.json").read_text())
    assert references["optimum"] == pytest.approx(held_out.references()["optimum"])
    assert {p.name for p in (path / "policies").iterdir()} == {"PPO", "DQN", "Random"}
    assert not (path / "human.json").exists()  # nobody asked for it
    for name in study.policies:
        learned = name != "Random"
        files = {p.name for p in (path / "policies" / name).iterdir()}
        assert files == {"summary.json", "evaluation.npz"} | ({"curve.npz"} if learned else set())
        found = summary(path, name)
        assert (found["name"], found["learner"]) == (name, name.lower())
        assert (found["assignment"], found["rounds"], found["seeds"]) == ("sequential", 2, 2)
        assert found["observation"] == ["action", "reward"]
        for key in ("compile_seconds", "train_seconds", "steps_per_second"):
            assert found[key] > 0 if learned else found[key] is None
        assert found["iterations"] == (24 if learned else None)
        assert found["env_steps"] == (24 * 4 * 8 if learned else None)


def test_curves_have_a_value_for_every_seed_and_iteration(finished):
    _, path = finished
    for name in ("PPO", "DQN"):
        with np.load(path / "policies" / name / "curve.npz") as curve:
            np.testing.assert_array_equal(curve["env_steps"], 32 * np.arange(1, 25))
            for metric in set(curve.files) - {"env_steps"}:
                assert curve[metric].shape == (2, 24)
            returns = curve["episode_return"]
        assert np.isfinite(returns).all()
        assert ((returns > 0) & (returns < 4)).all()  # 2 rounds x 2 users x QoE
        assert (returns[0] != returns[1]).any()  # seeds are different runs


def test_evaluations_count_choices_on_held_out_requests(finished):
    config, path = finished
    built = build_problem(load_study(config))
    for name in ("PPO", "DQN", "Random"):
        with np.load(path / "policies" / name / "evaluation.npz") as evaluation:
            choices, returns = evaluation["choices"], evaluation["returns"]
            qoe, objective = evaluation["qoe"], evaluation["objective"]
        assert choices.shape == (2, 2, 2, 3)  # seeds, users, held-out requests, providers
        assert returns.shape == (2, 16)
        assert (choices.sum((2, 3)) == 16 * 2).all()  # every user, in every round of each episode
        assert (choices[:, ~built.test.legal] == 0).all()
        # One sample a cell: the rewards are what was played. Choices are worth what was answered.
        rewards = (choices * built.test.mean).sum((1, 2, 3))
        np.testing.assert_allclose(returns.sum(1), rewards, rtol=1e-5)
        expected = studies.expected_score(choices, built.worth.mean)
        np.testing.assert_allclose(qoe, expected, rtol=1e-6)
        np.testing.assert_allclose(objective, expected.sum(-1), rtol=1e-6)


@pytest.fixture(scope="module")
def longer(tmp_path_factory, finished):
    """The same study with more policies, and another rhythm of checkpoints."""
    folder = tmp_path_factory.mktemp("longer")
    policies = {
        "Greedy": {"learner": "greedy"},
        **tiny_study.LEARNED,
        "Random": {"learner": "random"},
        "Best [single]": {"learner": "best_single"},
    }
    config = tiny_study.write_config(folder, policies=policies, checkpoint_every=24)
    tiny_study.carry_out(config, folder / "run")
    return folder / "run"


def test_neither_other_policies_nor_checkpoints_change_a_result(finished, longer):
    tiny_study.assert_same_results(longer, finished[1])


def test_policies_that_differ_in_numbers_alone_share_a_program(finished):
    config, _ = finished

    def program(*overrides):
        study = load_study(config, overrides)
        job = studies.STUDY.job(study, build_problem(study), "PPO")
        return program_of(study.policies["PPO"], job, study.seeds)

    known = program()
    assert program("policies.PPO.hyperparams.gamma=0.5", "environment.rounds=3", "seed=7") is known
    for change in (
        "seeds=3", "evaluation.episodes=5", "policies.PPO.config.hidden=[4]",
        "policies.PPO.iterations=3", "policies.PPO.observation=[action]",
    ):  # fmt: skip
        assert program(change) is not known


def test_greedy_is_the_optimum_per_request(longer):
    references = json.loads((longer / "references.json").read_text())
    with np.load(longer / "policies" / "Greedy" / "evaluation.npz") as evaluation:
        np.testing.assert_allclose(
            evaluation["objective"], references["optimum_per_request"], rtol=1e-6
        )


def test_a_finished_study_is_left_as_it_is(tmp_path, finished):
    config, path = finished
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}
    tiny_study.carry_out(config, path, "resume")
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()} == before


def test_pictures_become_thumbnails(tmp_path, compilations):
    tiny_study.write_pictures(tmp_path / "pictures")
    big = Image.fromarray(np.zeros((100, 700, 3), np.uint8))
    big.save(tmp_path / "pictures" / "oil" / "an_owl.png")
    (tmp_path / "pictures" / "wax" / "a_cat.png").unlink()
    config = tiny_study.write_config(
        tmp_path,
        catalog={"folder": "pictures"},
        population={"sample": {"size": 2}},
        judge={"kind": "psychometric"},
        policies={"Random": {"learner": "random"}},
        seeds=1,
        table={},
    )
    built = tiny_study.carry_out(config, tmp_path / "run")
    folder = tmp_path / "run" / "pictures"
    names = {f"{r}-{p}.jpg" for r in range(4) for p in range(3)} - {"1-2.jpg"}
    assert {p.name for p in folder.iterdir()} == names
    assert built.catalog.requests[1] == "a cat"
    with Image.open(folder / "3-1.jpg") as image:
        assert image.size == (320, 46)
    with Image.open(folder / "0-0.jpg") as image:
        assert image.size == (32, 24)


AGIQA3K = Path(__file__).parents[2] / "configs" / "agiqa3k.yaml"
DATA = AGIQA3K.parents[2] / "shared" / "data" / "agiqa3k"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the recorded scores in {DATA}")
def test_recorded_models_and_human_opinion_of_their_choices(tmp_path, compilations):
    config = load_study(AGIQA3K)
    assert {"PPO", "DQN", "Random", "Greedy"} <= config.policies.keys()
    policies = "policies={Random: {learner: random}, Greedy: {learner: greedy}}"
    tiny_study.carry_out(AGIQA3K, tmp_path / "run", "refuse", "seeds=2", policies)
    human = json.loads((tmp_path / "run" / "human.json").read_text())
    table = QoETable.load(tmp_path / "run" / "table.npz")
    assert table.qoe.shape[:3] == (5, 200, 10)
    assert (~table.legal).sum() == 5 * (2000 - 1987)  # models have rated all pictures there are
    assert (human["scale"], human["requests"]) == ("0 to 5", 100)
    opinion = {name: np.mean(values) for name, values in human["policies"].items()}
    references = human["references"]
    # The winner's curse: the best by one noisy judge is worse than one good provider.
    assert references["best_per_request"] > references["best_single"] > opinion["Greedy"]
    assert opinion["Greedy"] > opinion["Random"]
    assert opinion["Random"] == pytest.approx(references["random"], abs=0.05)
    assert references["best_single_provider"] == "midjourney_normal"


def test_absent_scores_are_one_sentence(tmp_path):
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / "agiqa3k.yaml"
    config.write_text(AGIQA3K.read_text())
    with pytest.raises(InputError, match=r"images\.csv: there is no such file; give a table"):
        build_problem(load_study(config))


def test_expected_score_weighs_requests_alike():
    score = np.array([[[0.2, 0.8], [0.5, 0.1]], [[1.0, 0.0], [0.3, 0.7]]])  # [K=2, R=2, L=2]
    choices = np.array(
        [
            [[[1, 3], [0, 10]], [[4, 4], [0, 0]]],  # user 1 never met request 1
            [[[7, 0], [2, 2]], [[0, 1], [1, 0]]],
        ]
    )
    expected = [
        [((0.2 + 3 * 0.8) / 4 + 0.1) / 2, 0.5],
        [(0.2 + (0.5 + 0.1) / 2) / 2, (0.0 + 0.3) / 2],
    ]
    np.testing.assert_allclose(studies.expected_score(choices, score), expected, rtol=1e-12)


def test_human_opinion_is_that_of_the_choices(tmp_path):
    # ink 0 1 2 3, oil 4 5 0 1, wax 2 3 4 5 for the four requests
    human = tiny_study.human_block(tiny_study.write_human(tmp_path))
    config = tiny_study.write_config(
        tmp_path,
        evaluation={"human": human},
        table={},
        policies={"Random": {"learner": "random"}},
    )
    study = load_study(config)
    choices = np.zeros((2, 2, 4, 3))  # seeds, users, requests, providers
    choices[0, 0, :, 0] = [1, 5, 2, 3]  # ink for every request: 1.5
    choices[0, 1, 0] = [2, 0, 2]  # ink or wax, only for the first request: 1
    choices[1, 0, :, 1] = 6  # oil: 2.5
    choices[1, 1, :, 2] = 9  # wax: 3.5
    folder = tmp_path / "run" / "policies" / "Random"
    folder.mkdir(parents=True)
    np.savez(folder / "evaluation.npz", choices=choices)
    studies.human_opinion(study, tmp_path / "run", build_problem(study))
    found = json.loads((tmp_path / "run" / "human.json").read_text())
    assert (found["scale"], found["requests"]) == ("0 to 5", 4)
    assert found["policies"]["Random"] == pytest.approx([1.25, 3.0], rel=1e-6)
    assert found["references"].pop("best_single_provider") == "wax"
    expected = {"random": 2.5, "best_single": 3.5, "best_per_request": 4.5}
    assert found["references"] == pytest.approx(expected, rel=1e-6)


def test_people_who_did_not_rate_everything_make_a_whole_study(tmp_path, compilations):
    _, scores = tiny_study.write_scores(tmp_path, hole=False)
    gaps = [("ben", "a tree"), ("ann", "a cat")]
    rows = scores.read_text().splitlines()
    kept = [row for row in rows if (row.split(",")[0], row.split(",")[2]) not in gaps]
    assert len(kept) == len(rows) - 6
    scores.write_text("\n".join(kept) + "\n")
    policies = {
        "PPO": tiny_study.LEARNED["PPO"] | {"iterations": 2},
        "Optimal": {"learner": "optimal"},
        "Best single": {"learner": "best_single"},
        "Greedy": {"learner": "greedy"},
    }
    config = tiny_study.write_config(tmp_path, policies=policies, table={}, seeds=1)
    path = tmp_path / "run"
    built = tiny_study.carry_out(config, path)
    assert [tuple(gap) for gap in np.argwhere(~built.table.served)] == [(0, 1), (1, 2)]
    references = json.loads((path / "references.json").read_text())
    expected = {
        "Optimal": references["optimum"],
        "Best single": references["best_single"][1],
        "Greedy": references["optimum_per_request"],
    }
    for name in policies:
        with np.load(path / "policies" / name / "evaluation.npz") as evaluation:
            choices, objective = evaluation["choices"], evaluation["objective"]
        assert (choices[0, ~built.table.legal] == 0).all()
        assert (choices.sum((0, 2, 3)) == 16 * 2).all()  # both users, in each round
        if name in expected:  # exactly, for at a gap nobody chooses
            assert objective == pytest.approx(expected[name], rel=1e-6)
    page = render(path).read_text()
    assert "6 of 24 answers are missing" in page
    assert "2 of 8 user x request pairs without any rating" in page
