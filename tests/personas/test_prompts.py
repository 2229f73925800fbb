"""The prompt engineer: levels, adjectives, and texts that stay what they are."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from rlli_jax.errors import InputError
from rlli_jax.personas import TRAIT_NAMES, TRAITS, Persona, general_setup, persona_text
from rlli_jax.personas.norms import load_data, pooled_norm
from rlli_jax.personas.prompts import trait_level

LABELS = ("bad", "poor", "fair", "good", "excellent")


@dataclass(frozen=True)
class Scale:
    name: str
    labels: tuple[str, ...]


@pytest.mark.parametrize("trait", TRAITS)
def test_levels_rise_with_the_score_through_all_nine(trait):
    levels = [trait_level(trait, score) for score in np.linspace(1, 5, 401)]
    assert levels[0] == 1
    assert levels[-1] == 9
    assert set(np.diff(levels)) == {0, 1}


@pytest.mark.parametrize("trait", TRAITS)
def test_levels_are_stanines_of_the_norm(trait):
    index = TRAITS.index(trait)
    mean, sd = pooled_norm()
    people = mean[index] + sd[index] * stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    shares = np.bincount([trait_level(trait, score) for score in people], minlength=10)[1:] / 10_000
    # The shares by which stanines are defined, given in whole percent.
    np.testing.assert_allclose(shares, np.array([4, 7, 12, 17, 20, 17, 12, 7, 4]) / 100, atol=0.005)


def test_a_cut_parts_two_levels():
    mean, sd = pooled_norm()
    cut = mean[0] + 0.25 * sd[0]
    assert trait_level("O", cut + 1e-9) == 6
    assert trait_level("O", cut - 1e-9) == 5


def test_every_adjective_is_used_once_at_the_ends():
    pairs = load_data("trait_markers_104")["pairs_low_high"]
    assert sum(len(pairs[trait]) for trait in TRAITS) == 52
    for side, score in ((0, 1.0), (1, 5.0)):
        text = persona_text(Persona("Ada", (score,) * 5))
        assert text.count("extremely ") == 52
        for trait in TRAITS:
            for pair in pairs[trait]:
                assert f"extremely {pair[side]}" in text


def test_each_trait_is_worded_by_its_own_score():
    lines = persona_text(Persona("Ada", (5, 1, *pooled_norm().mean[2:]))).splitlines()
    assert lines[0] == "For the following task, respond as a person with this personality."
    assert lines[1].startswith("Openness: this person is extremely imaginative, ")
    assert lines[2].startswith("Conscientiousness: this person is extremely unsure, ")
    assert lines[3].startswith("Extraversion: this person is neither unfriendly nor friendly, ")
    assert lines[4].endswith(", and neither disagreeable nor agreeable.")
    assert lines[5].startswith("Neuroticism: this person is neither relaxed nor tense, ")


def test_the_text_depends_on_levels_and_not_on_the_name():
    text = persona_text(Persona("Ada", (3.0, 3.0, 3.0, 3.0, 3.0)))
    assert text == persona_text(Persona("Bob", (3.0, 3.0, 3.0, 3.0, 3.001)))
    assert text != persona_text(Persona("Ada", (3.0, 3.0, 3.0, 3.0, 3.4)))


def test_no_two_combinations_of_levels_share_a_text():
    mean, sd = pooled_norm()
    texts = {
        persona_text(Persona("Ada", tuple(np.where(np.arange(5) == trait, mean + z * sd, mean))))
        for trait in range(5)
        for z in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)
    }
    assert len(texts) == 5 * 8 + 1  # the average person comes up once for each trait


def test_the_setup_introduces_the_traits_and_the_scale():
    text = general_setup(Scale("overall quality", LABELS))
    for name in TRAIT_NAMES:
        assert text.count(f"- {name}: ") == 1
    assert 'Use the scale "overall quality", from worst to best: bad, poor, fair, good, ' in text
    assert "Use this scale, from worst to best: 1, 2, 3." in general_setup(["1", "2", "3"])


@pytest.mark.parametrize("labels", ["good", (), ("good",), ("good", "good"), ("bad", " "), (1, 2)])
def test_a_scale_without_distinct_labels_is_refused(labels):
    with pytest.raises(InputError, match="give at least two different texts, the worst first"):
        general_setup(labels)


def test_the_wording_is_what_it_was():
    """Cached answers are kept under these texts: change the digests only on purpose."""
    people = [Persona("Ada", traits) for traits in ((1, 2, 3, 4, 5), (3.5, 4.2, 2.2, 5, 1.1))]
    texts = (general_setup(Scale("overall quality", LABELS)), *map(persona_text, people))
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts] == [
        "418aaae5b6f54c54",
        "f6bcdfb709ff56b4",
        "f142f562fc683771",
    ]


def test_the_brief_wording_has_one_adjective_for_each_trait():
    mean = pooled_norm().mean
    average = Persona("Ada", tuple(mean)).traits
    brief = persona_text(Persona("Ada", (5.0, *average[1:]), "brief"))
    assert brief == (
        "Respond as a person who is extremely imaginative, neither "
        "disorganized nor organized, neither introverted nor extraverted, neither disagreeable "
        "nor agreeable, and neither emotionally stable nor emotionally unstable."
    )
    full = persona_text(Persona("Ada", (5.0, *average[1:])))
    assert len(brief) < len(full) / 4
    assert brief != persona_text(Persona("Ada", (3.0, *average[1:]), "brief"))


def test_an_unknown_wording_is_one_sentence():
    with pytest.raises(InputError, match="wording 'short'; choose one of full, brief"):
        Persona("Ada", (3.0,) * 5, "short")


def test_a_biography_tells_each_trait_apart_and_no_name():
    mean = tuple(pooled_norm().mean.tolist())
    average = persona_text(Persona("Ada", mean, "biography"))
    assert "Ada" not in average
    seen = {average}
    for trait in range(5):
        for value in (1.0, 5.0):
            traits = [*mean]
            traits[trait] = value
            seen.add(persona_text(Persona("Ada", tuple(traits), "biography")))
    assert len(seen) == 11


def test_who_answered_a_questionnaire_is_told_by_the_answers_alone():
    said = (("I am the life of the party.", 1), ("I have a vivid imagination.", 5))
    text = persona_text(Persona("Ada", (3.0,) * 5, "answers", said))
    assert text.splitlines() == [
        "Respond as the person who said of themselves:",
        '- "I am the life of the party." disagrees',
        '- "I have a vivid imagination." agrees',
    ]
    with pytest.raises(InputError, match="there are none; choose another wording"):
        Persona("Ada", (3.0,) * 5, "answers")


def test_ratings_of_other_pictures_stand_behind_the_persona_in_any_wording():
    plain = Persona("Ada", (3.0,) * 5, "brief")
    knowing = replace(plain, rated=(("A dark portrait.", "poor"), ("a bright cat", "good")))
    assert persona_text(knowing).splitlines() == [
        persona_text(plain),
        "This person rated other pictures:",
        "- A dark portrait: poor",
        "- a bright cat: good",
    ]
