"""The psychometric stand-in: its weights, its formula, its noise."""

import json
from pathlib import Path

import numpy as np
import pytest

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.catalog.features import FEATURES
from rlli_jax.errors import InputError
from rlli_jax.judges import Invalid, Question, named_scale
from rlli_jax.judges.psychometric import (
    REPLICATED_SIGNS,
    PsychometricJudge,
    preset_weights,
    presets,
    published_tables,
    study_correlations,
)
from rlli_jax.oracle import ask, build_questions
from rlli_jax.personas import TRAITS, Persona, Population
from rlli_jax.personas.norms import pooled_norm
from rlli_jax.qoe import QoETable

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "personas"
SCALE = named_scale("1-5")
AVERAGE = Persona("average", tuple(pooled_norm().mean))


def noise_picture(seed):
    """A small picture of random colour, saturation and contrast."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, 3) + rng.normal(0, rng.uniform(5, 80), (24, 24, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return Picture(f"noise {seed}", lambda: pixels)


def make_catalog(size, offset=0):
    requests = tuple(f"r{i}" for i in range(size))
    pictures = {(request, "p"): noise_picture(i + offset) for i, request in enumerate(requests)}
    return Catalog(("p",), requests, pictures, images={})


CATALOG = make_catalog(12)


def question(persona, picture=0, sample=0, scale=SCALE):
    return Question(persona, f"r{picture}", "p", CATALOG.picture(picture, 0), scale, sample)


def latents(judge, persona, pictures=range(12)):
    """Undo the mapping to the scale, for ratings that are not clipped."""
    ratings = np.array([a.rating for a in judge.rate([question(persona, i) for i in pictures])])
    assert ((ratings > SCALE.low) & (ratings < SCALE.high)).all()
    return (ratings - 3) / 2 * 3


def test_replicated_weights_are_medians_of_the_samples_with_the_sign():
    weights = preset_weights("replicated")
    studies = np.stack([study_correlations(study) for study in published_tables()])
    for (feature, trait), sign in REPLICATED_SIGNS.items():
        t, f = TRAITS.index(trait), FEATURES.index(feature)
        agreeing = [r for r in studies[:, t, f] if r * sign > 0]
        assert len(agreeing) >= 3
        assert weights[t, f] == np.median(agreeing)
    assert np.count_nonzero(weights) == len(REPLICATED_SIGNS)
    faces, hues = FEATURES.index("n_faces"), FEATURES.index("hue_count")
    assert weights[TRAITS.index("E"), faces] == pytest.approx(0.113)  # of .07 .103 .11 .116 ...
    assert weights[TRAITS.index("O"), hues] == pytest.approx(-0.071)  # of -.094 -.071 -.028


def test_presets_are_replicated_and_the_studies_that_measure_our_features():
    assert presets()[0] == "replicated"
    assert "branz2020_posted_instagram" in presets()
    assert "ferwerda_tkalcic2018_content_instagram" not in presets()
    weights = preset_weights("branz2020_posted_instagram")
    np.testing.assert_array_equal(
        weights[:, FEATURES.index("warm")], [0.25, -0.17, 0.01, 0.08, 0.03]
    )
    assert not weights[:, FEATURES.index("n_faces")].any()
    twitter = preset_weights("guntuku2017_liked_twitter")
    np.testing.assert_array_equal(
        twitter[:, FEATURES.index("n_faces")], [-0.116, -0.054, 0.117, -0.041, 0.023]
    )


def test_every_feature_is_reported_by_some_study():
    studies = np.stack([study_correlations(study) for study in published_tables()])
    assert np.isfinite(studies).any((0, 1)).all()


def test_shipped_correlations_are_the_published_data():
    source = SHARED / "persona_image_correlations.json"
    if not source.exists():
        pytest.skip("the shared data folder is not here")
    assert published_tables() == json.loads(source.read_text())["tables"]


def test_a_persona_at_the_norms_sees_quality_only():
    quality = latents(PsychometricJudge(CATALOG, noise=0), AVERAGE)
    stronger = latents(PsychometricJudge(CATALOG, noise=0, strength=9), AVERAGE)
    np.testing.assert_allclose(quality, stronger, atol=1e-12)
    assert quality.mean() == pytest.approx(0)
    assert quality.std() == pytest.approx(1)


def test_the_persona_term_is_linear_in_traits_and_strength():
    judge = PsychometricJudge(CATALOG, noise=0)
    quality = latents(judge, AVERAGE)
    mean, sd = pooled_norm()
    alone = []
    for t in range(5):
        traits = mean.copy()
        traits[t] += 0.5 * sd[t]
        alone.append(latents(judge, Persona("one", tuple(traits))) - quality)
    together = latents(judge, Persona("all", tuple(mean + 0.5 * sd))) - quality
    np.testing.assert_allclose(together, np.sum(alone, 0), atol=1e-9)
    half = PsychometricJudge(CATALOG, noise=0, strength=0.5)
    np.testing.assert_allclose(
        latents(half, Persona("all", tuple(mean + 0.5 * sd))) - quality, together / 2, atol=1e-9
    )
    # Neurotic users like saturation less, conscientious ones more: signs of the published table.
    saturation = [np.array(p.pixels, float) for p in CATALOG.pictures.values()]
    saturation = [(x.max(2) - x.min(2)) / np.maximum(x.max(2), 1) for x in saturation]
    saturation = [s.mean() for s in saturation]
    assert np.corrcoef(alone[TRAITS.index("N")], saturation)[0, 1] < -0.9
    assert np.corrcoef(alone[TRAITS.index("A")], saturation)[0, 1] > 0.9


def test_the_persona_term_has_unit_spread_over_people_at_the_norms():
    judge = PsychometricJudge(CATALOG, noise=0, strength=0.3)
    mean, sd = pooled_norm()
    rng = np.random.default_rng(0)
    people = [
        Persona("x", tuple(t)) for t in mean + sd * rng.uniform(-np.sqrt(3), np.sqrt(3), (400, 5))
        if ((t >= 1) & (t <= 5)).all()
    ]  # fmt: skip
    quality = latents(judge, AVERAGE)
    terms = np.stack([(latents(judge, person) - quality) / 0.3 for person in people])
    assert np.sqrt((terms**2).mean()) == pytest.approx(1, abs=0.1)


def test_noise_is_standard_normal_scaled_and_different_for_each_sample():
    judge = PsychometricJudge(CATALOG, noise=0.2, strength=0)
    quiet = latents(PsychometricJudge(CATALOG, noise=0, strength=0), AVERAGE)
    samples = range(400)
    ratings = judge.rate([question(AVERAGE, p, s) for p in (0, 1) for s in samples])
    noise = (np.array([a.rating for a in ratings]).reshape(2, -1) - 3) / 2 * 3 - quiet[:2, None]
    noise /= 0.2
    assert np.abs(noise.mean(1)).max() < 0.15
    assert noise.std(1) == pytest.approx(1, abs=0.1)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.15
    assert len(np.unique(noise.round(9))) == noise.size


def test_answers_do_not_depend_on_order_or_batch():
    judge, other = PsychometricJudge(CATALOG), PsychometricJudge(CATALOG)
    people = Population.sample(3, group="women 21-40", seed=1).personas
    questions = [question(u, p, s) for u in people for p in range(12) for s in range(2)]
    together = judge.rate(questions)
    assert other.rate(questions[::-1])[::-1] == together
    assert [other.rate([q])[0] for q in questions] == together
    assert len({a.rating for a in together}) == len(together)


def test_the_picture_decides_not_its_provider_nor_the_catalog_entry():
    judge = PsychometricJudge(CATALOG)
    asked = question(AVERAGE, 3)
    twin = Question(AVERAGE, "else", "other", noise_picture(3), SCALE)
    assert judge.rate([asked]) == judge.rate([twin])
    unseen = Question(AVERAGE, "r", "p", noise_picture(77), SCALE)
    assert judge.rate([unseen]) == judge.rate([unseen])


def test_scales_agree_and_ratings_are_clipped():
    judge = PsychometricJudge(CATALOG)
    ten = named_scale("1-10")
    for i in range(12):
        a, b = judge.rate([question(AVERAGE, i), question(AVERAGE, i, scale=ten)])
        assert SCALE.qoe(a.rating) == pytest.approx(ten.qoe(b.rating))
    extreme = Persona("extreme", (1.0, 1.0, 1.0, 1.0, 5.0))
    ratings = [a.rating for a in judge.rate([question(extreme, i) for i in range(12)])]
    assert min(ratings) == SCALE.low
    assert max(ratings) == SCALE.high


def test_pictures_that_are_all_alike_are_rated_in_the_middle():
    catalog = Catalog(("p",), ("r",), {("r", "p"): noise_picture(0)}, images={})
    judge = PsychometricJudge(catalog, noise=0)
    extreme = Persona("extreme", (1.0, 5.0, 5.0, 1.0, 5.0))
    assert judge.rate([question(extreme, 0)])[0].rating == 3


def test_no_picture_no_rating():
    asked = Question(AVERAGE, "r", "p", None, SCALE)
    assert PsychometricJudge(CATALOG).rate([asked]) == [Invalid("no picture")]


def test_identity_says_stand_in_names_the_caveat_and_changes_with_every_argument():
    identity = PsychometricJudge(CATALOG).identity
    assert identity.stand_in
    assert "stand-in for a language model" in identity.describe()
    assert "quoted through a secondary review" in identity.describe()
    others = [
        PsychometricJudge(CATALOG, **{name: value}).identity
        for name, value in (("strength", 2), ("noise", 0), ("seed", 1), ("preset", presets()[1]))
    ]
    others.append(PsychometricJudge(make_catalog(12, offset=1)).identity)
    descriptions = {other.describe() for other in [identity, *others]}
    assert len(descriptions) == 6
    assert PsychometricJudge(make_catalog(12)).identity == identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1}, "strength is -1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"preset": "astrology"}, "'astrology' is unknown; choose one of replicated, "),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(InputError, match=message):
        PsychometricJudge(CATALOG, **options)


def test_a_catalog_without_pictures():
    with pytest.raises(InputError, match="the catalog has no pictures"):
        PsychometricJudge(Catalog(("p",), ("r",), {}, images={}))


def test_in_the_studio_users_differ_and_one_provider_beats_chance():
    """The default strength: what it was chosen for, over eight sampled populations."""
    catalog = Catalog.studio()
    judge = PsychometricJudge(catalog)
    distinct = []
    for seed in range(8):
        people = Population.sample(5, group="women 21-40", seed=seed)
        answers = ask(judge, build_questions(people, catalog, SCALE, samples=2))
        table = QoETable.from_answers(
            answers, population=people, catalog=catalog, scale=SCALE,
            judge=judge.identity, samples=2,
        )  # fmt: skip
        references = table.references()
        assert table.stand_in
        assert references["best_single"][1] > 1.1 * references["random"]
        distinct.append(len(set(table.provider_values.argmax(1))))
    assert np.mean(np.array(distinct) > 1) > 0.7
