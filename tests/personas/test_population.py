"""Personas and populations: files in and out, sampling from norms, and bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rlli_jax.errors import InputError
from rlli_jax.personas import TRAITS, Persona, Population, correlation_names, groups
from rlli_jax.personas.norms import correlation_matrix, group_norm, load_data, pooled_norm

SHARED = Path(__file__).parents[3] / "shared" / "data" / "personas"
ADA, BOB = Persona("Ada", (5, 4, 3, 2, 1)), Persona("Bob, the 2nd", (1.25, 2.0, 10 / 3, 4.1, 5.0))
HEADER = "name,O,C,E,A,N\n"


def refusal(function, *args, **kwargs) -> str:
    """The message of the InputError, checked to be one sentence that says what to do."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- in memory


def test_a_population_gives_names_and_traits_in_order():
    population = Population((ADA, BOB))
    assert len(population) == 2
    assert population.names == ("Ada", "Bob, the 2nd")
    assert population.traits.dtype == np.float32
    np.testing.assert_array_equal(
        population.traits, np.float32([[5, 4, 3, 2, 1], [1.25, 2.0, 10 / 3, 4.1, 5.0]])
    )


@pytest.mark.parametrize("value", [0.99, 5.01, float("nan"), float("inf"), "high", None, True])
def test_a_persona_outside_the_scale_is_refused(value):
    message = refusal(Persona, "Ada", (3, 3, 3, 3, value))
    assert message.startswith("Persona 'Ada', trait 'N': got ")
    assert "from 1 to 5" in message


def test_a_persona_needs_a_name_and_five_traits():
    assert "has the name '  '" in refusal(Persona, "  ", (3, 3, 3, 3, 3))
    assert "has 4 traits" in refusal(Persona, "Ada", (3, 3, 3, 3))


def test_a_population_needs_personas_with_distinct_names():
    assert "at least one persona" in refusal(Population, ())
    assert "2 personas of the population are named 'Ada'" in refusal(Population, (ADA, BOB, ADA))


# ---------------------------------------------------------------- CSV


def write(tmp_path: Path, text: str, name: str = "people.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_round_trip_is_exact(tmp_path):
    population = Population((ADA, BOB, Persona('Zoë\n"Z"', (1, 1, 1, 1, 1 + 1 / 7))))
    population.to_csv(tmp_path / "people.csv")
    assert Population.from_csv(tmp_path / "people.csv") == population


def test_csv_columns_in_any_order_with_others_between(tmp_path):
    path = write(tmp_path, "\ufeffage, N,A,E,C,O,name\n31,1,2,3,4,5,Ada\n\n")
    assert Population.from_csv(path) == Population((ADA,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        (HEADER, "has no rows"),
        ("name,O,C,E,A\nAda,1,2,3,4\n", "no column 'N'; the file has name, O, C, E, A: "),
        ("name,O,C,E,A,N,O\nAda,1,2,3,4,5,5\n", "2 columns are named 'O'"),
        (HEADER + "Ada,1,2,3,4,5\nBob,1,2,6,4,5\n", "row 2 below the header: column 'E': got '6'"),
        (HEADER + "Ada,1,0.5,3,4,5\n", "row 1 below the header: column 'C': got '0.5'"),
        (HEADER + "Ada,1,2,3,nan,5\n", "row 1 below the header: column 'A': got 'nan'"),
        (HEADER + "Ada,1,2,3,4,calm\n", "row 1 below the header: column 'N' holds 'calm'"),
        (HEADER + "Ada,1,2,3,4,\n", "row 1 below the header: column 'N': got nothing"),
        (HEADER + "Ada,1,2\n", "row 1 below the header: column 'E': got nothing"),
        (HEADER + ",1,2,3,4,5\n", "row 1 below the header: column 'name' is empty"),
        (
            HEADER + "Ada,1,2,3,4,5\nAda ,1,2,3,4,5\n",
            "row 2 below the header: column 'name': 'Ada'",
        ),
    ],
)
def test_a_bad_csv_is_refused_with_its_place(tmp_path, text, expected):
    path = write(tmp_path, text)
    message = refusal(Population.from_csv, path)
    assert message.startswith(str(path))
    assert expected in message


@pytest.mark.parametrize(
    ("read", "missing", "folder"),
    [
        (Population.from_csv, "nobody.csv: there is no such file", "cannot be parsed"),
        (Population.from_bigfive_test, "nobody.csv cannot be opened", "cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_opened_is_refused(tmp_path, read, missing, folder):
    assert missing in refusal(read, tmp_path / "nobody.csv")
    assert folder in refusal(read, tmp_path)


@pytest.mark.parametrize("read", [Population.from_csv, Population.from_bigfive_test])
def test_a_binary_file_is_refused(tmp_path, read):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert re.search(
        r"picture.png(: the file (cannot be parsed|is not in UTF-8)| is not a )",
        refusal(read, path),
    )


def test_a_csv_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "no").touch()
    assert "cannot be written" in refusal(Population((ADA,)).to_csv, tmp_path / "no" / "where.csv")


# ---------------------------------------------------------------- bigfive-test.com


def result(**scores: float) -> dict:
    """One person's result as the open-source test returns it: sums over 24 answers."""
    facets = {"1": {"score": 12, "count": 4, "result": "neutral"}}
    return {
        trait: {"score": score, "count": 24, "result": "neutral", "facet": facets}
        for trait, score in scores.items()
    }


HERS = result(N=24, E=72, O=120, A=48, C=96)


def from_json(tmp_path: Path, data: object) -> Population:
    path = write(tmp_path, data if isinstance(data, str) else json.dumps(data), "results.json")
    return Population.from_bigfive_test(path)


def test_one_result_is_one_user(tmp_path):
    assert from_json(tmp_path, HERS) == Population((Persona("User 1", ADA.traits),))


def test_a_list_of_results_with_and_without_names(tmp_path):
    means = {"O": 1.25, "C": 2, "E": 3.5, "A": 4, "N": 5}
    population = from_json(tmp_path, [{"name": "Ada", **HERS}, means])
    assert population == Population((ADA, Persona("User 2", (1.25, 2, 3.5, 4, 5))))


@pytest.mark.parametrize("name", ["Ada", "A"])  # "A" is a trait's key too
def test_results_by_name(tmp_path, name):
    population = from_json(tmp_path, {name: HERS, "Bob": result(O=60, C=60, E=60, A=60, N=61)})
    assert population.names == (name, "Bob")
    np.testing.assert_allclose(population.traits[0], ADA.traits)
    assert population.personas[1].traits == (2.5, 2.5, 2.5, 2.5, 61 / 24)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{'O': 3}", "is not a JSON file"),
        ("", "is not a JSON file"),
        ("[]", "has no person"),
        ("[3, 4]", "person 1: got 3.0"),
        ('{"Ada": {"O": 3}, "Ada": {"O": 4}}', "the key 'Ada' 2 times"),
        (result(O=60, C=60, E=60, A=60), "person 1 (User 1): the result of 'N' is missing"),
        ({**HERS, "N": {"score": 60}}, "trait 'N': score is 60.0 and count is null"),
        ({**HERS, "N": {"score": 60, "count": 0}}, "trait 'N': score is 60.0 and count is 0.0"),
        (
            {**HERS, "N": {"score": "60", "count": 24}},
            "trait 'N': score is \"60\" and count is 24.0",
        ),
        ({**HERS, "N": {"score": 121, "count": 24}}, "trait 'N', score / count: got 5.04"),
        ({**HERS, "N": {"score": 10**400, "count": 24}}, "trait 'N', score / count: got inf"),
        ({"Bob": HERS, "Ada": {**HERS, "N": 60}}, "person 2 (Ada), trait 'N': got 60.0"),
        ({**HERS, "N": float("nan")}, "person 1 (User 1), trait 'N': got nan"),
        ({"Ada": HERS, "": HERS}, 'person 2: the name is ""'),
        ([{"name": 7, **HERS}], "person 1: the name is 7.0"),
        ([{"name": "Ada", **HERS}, {"name": "Ada", **HERS}], "names 2 persons 'Ada'"),
    ],
)
def test_a_bad_result_is_refused_with_its_place(tmp_path, data, expected):
    assert expected in refusal(from_json, tmp_path, data)


# ---------------------------------------------------------------- norms and sampling

SIZE = 8_000
ERRORS = 4.5  # standard errors allowed: a normal error exceeds them once in 150,000 times


@pytest.mark.parametrize("group", groups())
def test_a_sample_has_the_moments_of_the_norms(group):
    seed = 10 + groups().index(group)  # independent draws for each group
    traits = Population.sample(SIZE, group=group, seed=seed).traits.astype(float)

    # What the norms become when clipped to 1-5, by quantiles of the normal distribution.
    mean, sd = group_norm(group)
    quantiles = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]
    clipped = np.clip(mean + sd * quantiles, 1, 5)

    error = np.abs(traits.mean(axis=0) - clipped.mean(axis=0))
    assert (error < ERRORS * sd / np.sqrt(SIZE)).all()
    error = np.abs(traits.std(axis=0) - clipped.std(axis=0))
    assert (error < ERRORS * sd / np.sqrt(2 * SIZE)).all()


@pytest.mark.parametrize("name", correlation_names())
def test_a_sample_has_the_published_correlations(name):
    # In this group 2 in 100 or fewer of any trait are clipped, too few to be seen in r.
    traits = Population.sample(SIZE, group="men 41-60", seed=2, correlations=name).traits
    published = correlation_matrix(name)
    error = np.abs(np.corrcoef(traits, rowvar=False) - published)
    assert (error <= ERRORS * (1 - published**2) / np.sqrt(SIZE) + 1e-6).all()


def test_a_sample_is_clipped_to_the_scale():
    group, trait = "women over 60", TRAITS.index("C")
    traits = Population.sample(SIZE, group=group, seed=3).traits
    assert traits.max() == 5.0
    assert traits.min() >= 1.0
    mean, sd = group_norm(group)
    beyond = stats.norm.sf(4.995, mean[trait], sd[trait])  # from 4.995 on it rounds to 5
    error = np.abs((traits[:, trait] == 5.0).mean() - beyond)
    assert error < ERRORS * np.sqrt(beyond * (1 - beyond) / SIZE)


def test_the_seed_decides_the_people():
    sample = Population.sample(6, group="women 21-40", seed=4)
    assert sample == Population.sample(6, group="women 21-40", seed=4)
    assert sample.personas[:2] == Population.sample(2, group="women 21-40", seed=4).personas
    assert not np.isin(sample.traits, Population.sample(6, group="women 21-40", seed=5)).all()
    assert sample.names == ("User 1", "User 2", "User 3", "User 4", "User 5", "User 6")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"size": 0}, "size of a sampled population is 0"),
        ({"size": 2.5}, "size of a sampled population is 2.5"),
        ({"size": True}, "size of a sampled population is true"),
        ({"seed": -1}, "seed of a sampled population is -1"),
        ({"group": "men"}, "group 'men'; choose one of: men under 21, men 21-40"),
        ({"correlations": "mine"}, "named 'mine'; choose one of: davies_2015_r_observed"),
    ],
)
def test_a_bad_sample_is_refused(arguments, expected):
    size = arguments.pop("size", 3)
    arguments = {"group": "men 21-40", "seed": 0, **arguments}
    assert expected in refusal(Population.sample, size, **arguments)


def test_the_correlations_can_be_sampled_from():
    for name in correlation_names():
        r = correlation_matrix(name)
        np.testing.assert_array_equal(r, r.T)
        np.testing.assert_array_equal(np.diag(r), 1)
        assert np.linalg.eigvalsh(r).min() > 0


def test_the_pooled_norm_is_that_of_the_mixture():
    # Equal numbers from each group; the moments are exact up to the grid of quantiles.
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    norms = [group_norm(group) for group in groups()]
    everyone = np.concatenate([mean + sd * quantiles for mean, sd in norms])
    np.testing.assert_allclose(pooled_norm().mean, everyone.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pooled_norm().sd, everyone.std(axis=0), rtol=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the source figures in ../shared/data")
def test_the_shipped_figures_are_those_of_the_sources():
    def source(name: str) -> dict:
        return json.loads((SHARED / f"{name}.json").read_text(encoding="utf-8"))

    name = "johnson_ipip_neo_120_domain_norms"
    assert {
        figures["group_in_source"]: {
            "mean": dict(zip(TRAITS, figures["mean"], strict=True)),
            "sd": dict(zip(TRAITS, figures["sd"], strict=True)),
        }
        for figures in load_data(name)["groups"].values()
    } == source(name)

    matrices = source("big5_intercorrelations")
    assert matrices.pop("order") == list(TRAITS)
    shipped = load_data("big5_intercorrelations")["matrices"]
    assert {key: matrix["r"] for key, matrix in shipped.items()} == matrices

    assert load_data("trait_markers_104") == source("trait_markers_104")


def test_people_known_by_name_only_have_no_traits_and_survive_a_file(tmp_path):
    people = Population.named(["ann", "ben"])
    assert people.traits is None
    people.to_csv(tmp_path / "people.csv")
    assert (tmp_path / "people.csv").read_text() == "name\nann\nben\n"
    assert Population.from_csv(tmp_path / "people.csv", traits=False) == people
    with pytest.raises(InputError, match="no column 'O'"):
        Population.from_csv(tmp_path / "people.csv")
    with pytest.raises(InputError, match="personality of 'ann' is unknown"):
        people.personas[0].known_traits  # noqa: B018


def test_traits_are_known_of_all_or_of_none():
    with pytest.raises(InputError, match="1 of 2 personas are unknown, 'ben' the first"):
        Population((Persona("ann", (3.0,) * 5), Persona("ben")))
