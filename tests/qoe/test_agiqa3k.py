"""Real scores: AGIQA-3K, rated by five vision-language models and by people."""

from pathlib import Path

import numpy as np
import pytest

from rlli_jax.catalog import Catalog
from rlli_jax.judges import named_scale
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.oracle import ask, build_questions
from rlli_jax.qoe import QoETable

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "agiqa3k"

pytestmark = pytest.mark.skipif(
    not DATA.exists(), reason="the shared data folder with AGIQA-3K is not here"
)


@pytest.fixture(scope="module")
def catalog():
    return Catalog.from_manifest(DATA / "images.csv", pictures=False)


def record(catalog, scale, **options):
    judge = RecordedJudge.from_file(catalog=catalog, scale=scale, **options)
    people = judge.population()
    return QoETable.from_answers(
        ask(judge, build_questions(people, catalog, scale)),
        population=people,
        catalog=catalog,
        scale=scale,
        judge=judge.identity,
    )


@pytest.fixture(scope="module")
def judges(catalog):
    return record(
        catalog,
        named_scale("good-poor"),
        path=DATA / "judge_logits.csv",
        columns={"user": "judge"},
    )


@pytest.fixture(scope="module")
def human(catalog):
    return record(
        catalog,
        named_scale("0-5"),
        path=DATA / "images.csv",
        columns={"score": ["mos_quality", "mos_align"]},
        user="human",
    )


def test_shapes_and_holes(judges, human):
    assert judges.qoe.shape == (5, 200, 10, 1)
    assert human.qoe.shape == (1, 200, 10, 1)
    assert set(judges.users) == {"idefics", "instructblip-t5", "llava-v1", "llava-v1.5", "qwen-vl"}
    np.testing.assert_array_equal((~judges.legal).sum((1, 2)), 13)
    np.testing.assert_array_equal(judges.legal, np.broadcast_to(human.legal, judges.legal.shape))
    assert not judges.stand_in


def test_human_references(human):
    references = human.references()
    best, value = references["best_single"]
    print({"random": references["random"] * 5, best: value * 5})
    assert best == "midjourney_normal"
    assert references["random"] * 5 == pytest.approx(2.50, abs=0.05)
    assert value * 5 == pytest.approx(3.47, abs=0.05)
    assert references["optimum_per_request"] * 5 == pytest.approx(3.57, abs=0.08)


@pytest.mark.parametrize(
    ("judge", "published"), [("llava-v1", 3.080), ("llava-v1.5", 3.122), ("qwen-vl", 3.157)]
)
def test_following_one_noisy_judge_loses_to_one_good_provider(judges, human, judge, published):
    """A per-request argmax over one judge's scores: the winner's curse."""
    scores = np.where(judges.legal, judges.mean, -1)[judges.users.index(judge)]
    value = human.mean[0, np.arange(200), scores.argmax(-1)].mean() * 5
    print({judge: value})
    assert value == pytest.approx(published, abs=0.1)
    references = human.references()
    assert references["random"] * 5 < value < references["best_single"][1] * 5


def test_standardised_judges_weigh_alike(judges):
    """Raw p(good) differs a lot in level and spread between models; standardised it does not."""
    raw, even = judges.mean, judges.standardised().mean
    mask = judges.legal
    levels = [np.ptp([m[k][mask[k]].mean() for k in range(5)]) for m in (raw, even)]
    assert levels[0] > 0.2
    assert levels[1] < 0.1


def test_split_and_round_trip(judges, tmp_path):
    train, held_out = judges.split_requests(0.75, seed=0)
    assert (len(train.requests), len(held_out.requests)) == (150, 50)
    assert not set(train.requests) & set(held_out.requests)
    held_out.save(tmp_path / "table.npz")
    loaded = QoETable.load(tmp_path / "table.npz")
    assert loaded.requests == held_out.requests
    np.testing.assert_array_equal(loaded.qoe, held_out.qoe)
