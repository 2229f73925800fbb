"""Answers to the 50 IPIP markers, results of bigfive-test.com, and traits on other scales."""

import json
from pathlib import Path

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.personas import Population, norms
from rlli_jax.personas.questionnaire import ipip50, population_from_answers, score

SHARED = Path(__file__).parents[3] / "shared"
ANSWERS = SHARED / "data/questionnaires/ipip50_answers.tsv"
ITEMS = ipip50().items


def write(path: Path, *people: dict, separator: str = "\t") -> Path:
    """A file of answers, 3 to everything that is not given."""
    columns = [*(name for name in people[0] if name not in ITEMS), *ITEMS]
    rows = [[str(person.get(column, 3)) for column in columns] for person in people]
    path.write_text("\n".join(separator.join(row) for row in [columns, *rows]) + "\n")
    return path


def test_reversed_items_are_turned(tmp_path):
    path = write(tmp_path / "a.tsv", {"name": "Ann", "E1": 5, "E2": 1, "N2": 1, "O2": 5})
    traits = population_from_answers(path).personas[0].traits
    assert traits == pytest.approx((2.8, 3, 3.4, 3, 3.2))


def test_items_without_an_answer_are_tolerated_up_to_a_share(tmp_path):
    few = {"user": "Ann", "C1": 0, "C2": "", "C3": 5}
    path = write(tmp_path / "a.csv", few, separator=";")
    people = population_from_answers(path)
    assert people.names == ("Ann",)
    assert people.personas[0].traits[1] == pytest.approx((5 + 7 * 3) / 8)
    with pytest.raises(InputError, match=r"1 of 1 people left out more than 10% .*Ann"):
        population_from_answers(path, max_missing=0.1)


@pytest.mark.parametrize(
    ("person", "message"),
    [({"E1": 6}, "row 1 .*answer to E1 is 6; give 1 to 5"), ({"E1": "x"}, "'E1' holds 'x'")],
)
def test_answers_that_are_none_are_refused(tmp_path, person, message):
    with pytest.raises(InputError, match=message):
        population_from_answers(write(tmp_path / "a.tsv", person))


def test_absent_items_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("name,E1,E2\nAnn,1,2\n")
    with pytest.raises(InputError, match=r"48 of the 50 items have no column \(E3, E4.*has name"):
        population_from_answers(tmp_path / "a.csv")


@pytest.mark.skipif(not ANSWERS.exists(), reason="the shared questionnaires are not there")
def test_two_thousand_people_have_the_published_moments_and_reliability():
    people = population_from_answers(ANSWERS)
    assert len(people) == 2000
    assert people.traits is not None
    np.testing.assert_allclose(people.traits.mean(0), [3.94, 3.35, 2.99, 3.87, 3.11], atol=0.006)
    np.testing.assert_allclose(people.traits.std(0), [0.62, 0.75, 0.95, 0.74, 0.87], atol=0.006)
    correlation = np.corrcoef(people.traits.T)
    found = [correlation[i, j] for i, j in ((2, 3), (2, 4), (1, 4), (1, 3), (3, 4), (0, 2))]
    np.testing.assert_allclose(found, [0.37, -0.29, -0.23, 0.13, -0.13, 0.11], atol=0.006)

    key = ipip50()
    answers = np.loadtxt(ANSWERS, skiprows=1)  # the columns are not in the order of the key
    header = ANSWERS.open().readline().split()
    answers = answers[:, [header.index(item) for item in key.items]]
    np.testing.assert_allclose(score(answers, key), people.traits, atol=1e-6)
    turned = np.where(key.reverse, 6 - answers, answers)
    alphas = []
    for trait in range(5):
        items = turned[:, key.traits == trait]
        share = items.var(0, ddof=1).sum() / items.sum(1).var(ddof=1)
        alphas.append(items.shape[1] / (items.shape[1] - 1) * (1 - share))
    np.testing.assert_allclose(alphas, [0.806, 0.833, 0.909, 0.860, 0.887], atol=0.0006)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared cases are not there")
def test_domains_and_stored_answers_of_the_case_are_read():
    domains = Population.from_bigfive_test(SHARED / "cases/25/domains.json")
    expected = np.array([74, 72, 71, 70, 73]) / 24
    np.testing.assert_allclose(domains.personas[0].traits, expected)
    answers = Population.from_bigfive_test(SHARED / "cases/25/answers.json")
    listed = json.loads((SHARED / "cases/25/answers.json").read_text())
    means = [np.mean([a["score"] for a in listed if a["domain"] == trait]) for trait in "OCEAN"]
    np.testing.assert_allclose(answers.personas[0].traits, means)


def stored(missing: str = "", count: int = 0) -> list[dict]:
    """Stored answers, 24 a domain: O 1, C 2, E 3, A 4, N 5; the first ``count`` of one missing."""
    return [
        {"id": f"{trait}{i}", "domain": trait, "facet": 1, "score": place}
        for place, trait in enumerate("OCEAN", 1)
        for i in range(24)
        if trait != missing or i >= count
    ]


@pytest.mark.parametrize(
    "shape",
    [
        lambda answers: {"Ann": answers},
        lambda answers: [{"name": "Ann", "answers": answers}],
        lambda answers: {"name": "Ann", "answers": answers},
        lambda answers: {"Ann": {"answers": answers}},
    ],
)
def test_stored_answers_of_people_with_names(tmp_path, shape):
    (tmp_path / "a.json").write_text(json.dumps(shape(stored("A", 4))))
    people = Population.from_bigfive_test(tmp_path / "a.json")
    assert (people.names, people.personas[0].traits) == (("Ann",), (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (stored("A", 12), "12 answers of 'A' are there, but 24 of another domain"),
        (stored() + stored()[:1], "the answer 'O0' is there twice"),
        ([*stored(), {"domain": "X", "score": 1}], "domain 'X' is unknown"),
        ([*stored(), {"domain": "O", "score": 6}], "got 6.0; give a number from 1 to 5"),
        ([{"domain": "O", "score": 70, "count": 24}] * 2, "domain 'O' is there twice"),
    ],
)
def test_stored_answers_that_are_not_sound_are_refused(tmp_path, answers, message):
    (tmp_path / "a.json").write_text(json.dumps(answers))
    with pytest.raises(InputError, match=message):
        Population.from_bigfive_test(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("scale", "row", "expected"),
    [
        ("1-7", "1;4;7;2,5;5", (1, 3, 5, 2, 11 / 3)),
        ("0-100", "0;50;100;25;75", (1, 3, 5, 2, 4)),
        ("-2-2", "-2;-1;0;1;2", (1, 2, 3, 4, 5)),
    ],
)
def test_traits_on_another_scale_are_mapped_linearly(tmp_path, scale, row, expected):
    (tmp_path / "a.csv").write_text(f"name;O;C;E;A;N\nAnn;{row}\n")
    people = Population.from_csv(tmp_path / "a.csv", scale=scale)
    assert people.personas[0].traits == pytest.approx(expected)


def test_t_scores_stand_in_the_pooled_norm(tmp_path):
    (tmp_path / "a.csv").write_text("name,O,C,E,A,N\nAnn,50,60,45,50,100\n")
    mean, sd = norms.pooled_norm()
    traits = Population.from_csv(tmp_path / "a.csv", scale="T").personas[0].traits
    assert traits[:4] == pytest.approx(tuple(mean[:4] + sd[:4] * [0, 1, -0.5, 0]))
    assert traits[4] == 5  # five standard deviations above the mean: the end of the scale


def test_a_trait_off_the_stated_scale_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,O,C,E,A,N\nAnn,1,2,3,4,8\n")
    with pytest.raises(InputError, match="column 'N': got '8'; give a number from 1 to 7"):
        Population.from_csv(tmp_path / "a.csv", scale="1-7")
    with pytest.raises(InputError, match="the lower first, such as 1-7"):
        Population.from_csv(tmp_path / "a.csv", scale="7-1")
