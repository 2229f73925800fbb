"""`table.people`: the judge's table as prior, ratings of people as evidence."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from tiny_study import PROVIDERS, REQUESTS, write_config, write_persona_config

from rlli_jax.errors import InputError
from rlli_jax.experiments import feedback
from rlli_jax.experiments.selection import judging
from rlli_jax.feedback.posterior import fit_posterior
from rlli_jax.feedback.reading import read_log, traits_of
from rlli_jax.personas import TRAITS, Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import fit_model
from rlli_jax.qoe.predicted import QUANTILES
from rlli_jax.run_files.selection import PeopleFile
from rlli_jax.studies import load_study

POLICIES = {"Random": {"learner": "random"}, "Optimal": {"learner": "optimal"}}


def ratings(path, liking, n=300, noise=0.1, seed=0):
    """A log of people on the scale 1-5 whose QoE of the providers is ``liking`` (traits) [n, 3]."""
    rng = np.random.default_rng(seed)
    traits = rng.uniform(1, 5, (n, 5)).round(1)
    provider = rng.integers(3, size=n)
    qoe = (liking(traits)[np.arange(n), provider] + noise * rng.standard_normal(n)).clip(0, 1)
    frame = pd.DataFrame(traits, columns=list(TRAITS))
    frame["request"] = np.array(REQUESTS)[rng.integers(len(REQUESTS), size=n)]
    frame.assign(provider=np.array(PROVIDERS)[provider], qoe=1 + 4 * qoe).to_csv(path, index=False)
    return path


def study(folder, **people):
    """The study of five personas, with people's ratings in its table or without."""
    path = folder / "study.yaml"
    if not path.exists():
        write_persona_config(folder, iterations=1)
    content = yaml.safe_load(path.read_text()) | {"policies": POLICIES}
    content["table"] = {"people": people} if people else {}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def judged(config, path):
    """(table, what the console said); only the judging half of the study is carried out."""
    said = StringIO()
    path.mkdir()
    problem = judging.judge(load_study(config), path, Console(file=said, width=500))
    return problem.table, said.getvalue()


def third(traits):
    """Everybody likes the last provider best, open people the second one too."""
    return np.stack([np.full(len(traits), 0.3), traits[:, 0] / 8, np.full(len(traits), 0.75)], 1)


def test_the_table_is_the_posterior_and_says_what_rests_on_people(tmp_path):
    log = ratings(tmp_path / "log.csv", third)
    before, _ = judged(study(tmp_path), tmp_path / "judge")
    table, said = judged(study(tmp_path, log="log.csv"), tmp_path / "both")
    # By hand: the judge's word of those who rated is what a model of its table predicts.
    read = read_log(log, propensities="shares")
    people = traits_of(read)
    traits = Population.from_csv(tmp_path / "both" / "population.csv").traits
    model = fit_model(np.where(before.legal, before.mean, np.nan), traits)
    place = np.array([PROVIDERS.index(name) for name in read.providers])
    request = np.array([before.requests.index(name) for name in read.request])
    predicted = model.explained(model.features(people, len(people)))
    predicted = predicted[np.arange(300), request].clip(0, 1)
    users = model.explained(model.phi).clip(0, 1)
    posterior = fit_posterior(people, place[read.action], read.reward, 3, predicted)
    for request in range(len(table.requests)):
        mean, spread = posterior.predict(traits, users[:, request])
        samples = (mean[..., None] + spread[..., None] * QUANTILES).clip(0, 1)
        np.testing.assert_allclose(table.mean[:, request], samples.mean(-1), atol=1e-6)
        np.testing.assert_allclose(table.sd[:, request], spread, atol=1e-6)
    truth = third(traits)[:, None]
    assert np.abs(table.mean - truth).mean() < 0.5 * np.abs(before.mean - truth).mean()
    assert (table.provider_values.argmax(1) == 2).all()
    file = PeopleFile.read(tmp_path / "both" / "people.json")
    assert (file.ratings, file.people, file.cells) == (300, 300, table.legal.sum())
    assert file.rest_on_people == file.cells  # 300 ratings say more than the judge
    assert f"{file.cells} of {file.cells} cells rest on them" in said
    assert table.stand_in
    assert "as the prior, with 300 ratings of 300 people" in table.judge
    counts = np.bincount(place[read.action])
    for i, (number, judge, believed) in enumerate(file.providers.values()):
        assert number == counts[i]
        assert judge == pytest.approx(before.mean[..., i].mean())
        assert believed == pytest.approx(table.mean[..., i].mean())


def test_few_ratings_leave_the_table_to_the_judge_and_none_say_so_of_a_provider(tmp_path):
    log = ratings(tmp_path / "log.csv", third, n=12)
    frame = pd.read_csv(log)
    frame[frame.provider != PROVIDERS[2]].to_csv(log, index=False)
    judged(study(tmp_path, log="log.csv"), tmp_path / "few")
    file = PeopleFile.read(tmp_path / "few" / "people.json")
    assert file.providers[PROVIDERS[2]][0] == 0
    assert file.rest_on_people <= file.cells * 2 / 3  # of that provider it is the judge's word


def test_a_judge_that_misleads_is_warned_of_and_left_out_with_prior_none(tmp_path):
    before, _ = judged(study(tmp_path), tmp_path / "judge")
    traits = Population.from_csv(tmp_path / "judge" / "population.csv").traits
    model = fit_model(np.where(before.legal, before.mean, np.nan), traits)
    spread = before.mean.std()

    def turned(people):
        """What the judge says, the other way round and five times as strong."""
        said = model.explained(model.features(people, len(people))).mean(1)
        return 0.5 - 5 * (said - before.mean.mean()) * min(1, 0.08 / spread)

    ratings(tmp_path / "log.csv", turned, n=60, noise=0.02)
    _, said = judged(study(tmp_path, log="log.csv"), tmp_path / "both")
    file = PeopleFile.read(tmp_path / "both" / "people.json")
    assert file.gain is not None
    assert ("The judge misleads" in file.warning) == (file.gain[2] < 0)
    assert file.warning in said
    table, _ = judged(study(tmp_path, log="log.csv", prior="none"), tmp_path / "people")
    alone = PeopleFile.read(tmp_path / "people" / "people.json")
    assert (alone.gain, alone.trust, alone.warning) == (None, None, "")
    assert table.judge == "60 ratings of 60 people"
    assert not table.stand_in
    truth = turned(traits)[:, None]
    assert np.abs(table.mean - truth).mean() < np.abs(before.mean - truth).mean()


def test_a_log_does_not_value_policies_whose_table_rests_on_it(tmp_path, persona_run):
    log = read_log(ratings(tmp_path / "log.csv", third, n=40), propensities="shares")
    assert feedback._seen(persona_run, log) == 0
    judged(study(tmp_path, log="log.csv"), tmp_path / "both")
    assert feedback._seen(tmp_path / "both", log) == 40
    others = read_log(ratings(tmp_path / "o.csv", third, 40, seed=1), propensities="shares")
    assert feedback._seen(tmp_path / "both", others) == 0


def test_ratings_of_other_providers_or_without_traits_are_refused(tmp_path):
    log = ratings(tmp_path / "log.csv", third, n=20)
    frame = pd.read_csv(log)
    frame.assign(provider="nobody").to_csv(log, index=False)
    with pytest.raises(InputError, match="has ratings of nobody, and the catalog the providers"):
        judged(study(tmp_path, log="log.csv"), tmp_path / "run")
    frame.drop(columns="O").to_csv(log, index=False)
    with pytest.raises(InputError, match="the log has no columns of the five traits"):
        judged(study(tmp_path, log="log.csv"), tmp_path / "run2")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": {"standardise": True}}, "it does not go with table.standardise"),
        ({"table": {"held_out_requests": 0.5}}, "it does not go with table.held_out_requests"),
        ({"evaluation": {"held_out_users": 2}}, "it does not go with evaluation.held_out_users"),
        ({}, "ratings tell of users by their traits, which are unknown here"),
    ],
)
def test_what_ratings_of_people_do_not_go_with_is_refused(tmp_path, change, says):
    content = {"table": {"people": {"log": "log.csv"}}} | change
    content["table"] = {"people": {"log": "log.csv"}} | content["table"]
    with pytest.raises(InputError, match=says):
        load_study(write_config(tmp_path, **content))


def test_tables_of_earlier_runs_are_read_as_before(persona_run):
    assert QoETable.load(persona_run / "table.npz").asked.all()
    assert not (persona_run / "people.json").exists()
