"""What people said of other pictures, read from a table."""

import pytest

from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.personas.examples import MOST, refuse_known, with_examples

PEOPLE = Population.sample(2, group="women 21-40", seed=0)


def told(tmp_path, text):
    file = tmp_path / "examples.csv"
    file.write_text(text)
    return with_examples(PEOPLE, file)


def test_ratings_go_to_the_people_who_gave_them(tmp_path):
    rows = "user;picture;rating\nUser 2;a  cat;good\nUser 2;a dog;poor\nSomebody;a cow;fair\n"
    one, two = told(tmp_path, rows).personas
    assert one == PEOPLE.personas[0]
    assert two.rated == (("a cat", "good"), ("a dog", "poor"))
    assert two.traits == PEOPLE.personas[1].traits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user,picture\nUser 1,cat\n", "no column 'rating'"),
        ("user,picture,rating\nNobody,cat,good\n", "nobody of the population is in it"),
        ("user,picture,rating\nUser 1,,good\n", "column 'picture' is empty"),
        ("user,picture,rating\n" + "User 1,cat,good\n" * (MOST + 1), f"{MOST} are the most"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        told(tmp_path, text)


def test_nobody_is_told_a_rating_of_what_is_asked(tmp_path):
    people = told(tmp_path, "user,picture,rating\nUser 1,a cat,good\n")
    refuse_known(people, {"a dog"})
    with pytest.raises(InputError, match="must be of another picture"):
        refuse_known(people, {"a  cat"})
