"""Recorded scores: every way to write them down, and every way to get them wrong."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import Invalid, Question, Rated, Scale, named_scale, scale_of
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.personas import Persona

SCALE = named_scale("1-5")
GOOD_POOR = named_scale("good-poor")


CATALOG = Catalog(
    providers=("p0", "NA"),
    requests=("a cat", "a dog"),
    pictures={},
    images={"0.png": (("a cat", "p0"),), "1.png": (("a dog", "NA"),)},
)


def read(folder, text, scale=SCALE, **options):
    path = folder / "scores.csv"
    path.write_text(text)
    return RecordedJudge.from_file(path, CATALOG, scale=scale, **options)


def question(user, request, provider, sample=0, scale=SCALE):
    return Question(Persona(user, (3.0,) * 5), request, provider, None, scale, sample)


GOOD = "user,request,provider,score\nann,a cat,p0,4.5\nann, a dog,NA ,1\nben,a cat,p0,2\n"


def test_scores_and_holes(tmp_path):
    judge = read(tmp_path, GOOD)
    assert judge.users == ("ann", "ben")
    assert judge.samples == 1
    hole = Invalid("no recorded score")
    assert judge.rate(
        [
            question("ben", "a cat", "p0"),
            question("ann", "a dog", "NA"),
            question("ann", "a cat", "NA"),
            question("ann", "a cat", "p0", sample=1),
            question("zoe", "a cat", "p0"),
        ]
    ) == [Rated(2.0), Rated(1.0), hole, hole, hole]


def test_recorded_users_are_a_population_whose_personalities_are_unknown(tmp_path):
    population = read(tmp_path, GOOD).population()
    assert population.names == ("ann", "ben")
    assert population.traits is None


def test_parquet_gives_the_same_scores(tmp_path):
    judge = read(tmp_path, GOOD)
    pd.read_csv(tmp_path / "scores.csv", keep_default_na=False).to_parquet(tmp_path / "s.parquet")
    again = RecordedJudge.from_file(tmp_path / "s.parquet", CATALOG, scale=SCALE)
    assert again.scores == judge.scores


def test_parquet_with_numeric_names_and_samples(tmp_path):
    frame = pd.DataFrame(
        {"user": [7, 7], "image": ["0.png"] * 2, "sample": [0, 1], "score": [1.0, 2.5]}
    )
    frame.to_parquet(tmp_path / "s.parquet")
    judge = RecordedJudge.from_file(tmp_path / "s.parquet", CATALOG, scale=SCALE)
    assert judge.scores == {("7", "a cat", "p0", 0): 1.0, ("7", "a cat", "p0", 1): 2.5}
    assert judge.samples == 2


def test_images_logits_and_default_logit_columns(tmp_path):
    text = "image,judge,logit_good,logit_poor\n0.png,m,2,1\n1.png,m,-3,0\n"
    judge = read(tmp_path, text, GOOD_POOR, columns={"user": "judge"})
    assert judge.scores == {
        ("m", "a cat", "p0", 0): pytest.approx(1 / (1 + np.exp(-1))),
        ("m", "a dog", "NA", 0): pytest.approx(1 / (1 + np.exp(3))),
    }
    swapped = read(
        tmp_path,
        text,
        GOOD_POOR,
        columns={"user": "judge", "logits": ["logit_good", "logit_poor"]},
    )
    assert swapped.scores["m", "a cat", "p0", 0] == pytest.approx(1 / (1 + np.exp(1)))


def test_mean_of_columns_one_user_and_a_mapped_image(tmp_path):
    text = "request,provider,image,x,y\nanything,else,0.png,1,4\n"
    judge = read(tmp_path, text, columns={"image": "image", "score": ["x", "y"]}, user="human")
    assert judge.scores == {("human", "a cat", "p0", 0): 2.5}


def test_names_beat_images_when_the_file_has_both(tmp_path):
    judge = read(tmp_path, "user,request,provider,image,score\nann,a dog,NA,0.png,3\n")
    assert list(judge.scores) == [("ann", "a dog", "NA", 0)]


def test_identity_holds_what_decides_the_answers(tmp_path):
    first = read(tmp_path, GOOD).identity
    assert first == read(tmp_path, GOOD).identity
    assert first != read(tmp_path, GOOD.replace("4.5", "4.4")).identity
    other = Scale("mine", ("a", "b"), 1, 5)
    assert first != read(tmp_path, GOOD, other).identity
    assert not first.stand_in
    assert "scores.csv" in first.describe()


def test_a_question_on_another_scale(tmp_path):
    with pytest.raises(InputError, match=r"scale '1-10'.*are on '1-5'"):
        read(tmp_path, GOOD).rate([question("ann", "a cat", "p0", scale=named_scale("1-10"))])


HEADER = "user,request,provider,score\nann,a cat,p0,3\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "ann,a dog,p9,3\n", r"row 2 below the header: provider 'p9' is not in the cat"),
        (HEADER + "ann,a cow,p0,3\n", r"row 2 below the header: request 'a cow' is not in the"),
        (HEADER + ",a dog,p0,3\n", r"row 2 .*column 'user' is empty"),
        (HEADER + "ann,a cat,p0,4\n", r"row 2 .*user 'ann' has a second score.*first in row 1"),
        (HEADER + "ann,a dog,p0,inf\n", r"row 2 .*holds 'inf', which is neither a number nor a"),
        (HEADER + "ann,a dog,p0,good\n", r"row 2 .*holds 'good', which is neither a number nor a"),
        (HEADER + "ann,a dog,p0,5.5\n", r"row 2 .*score 5.5 is outside the scale '1-5', 1 to 5"),
        (HEADER + "ann,a dog,p0,0\n", r"row 2 .*score 0 is outside the scale"),
        (HEADER + "ann,a dog,p0,3,4,5\n", r"cannot be parsed .*line 3"),
        (
            "user,request,provider,score\nann,a cat,p0,3,\nann,a dog,p0,3,\n",
            r"cannot be parsed .*Expected 4 fields in line 2, saw 5",
        ),
        ("user,request,provider,score\nann,a cat,p0\n", "every score is blank"),
        ('user,request\n"ann,a cat\n', "cannot be parsed"),
        (
            "user,provider,score\nann,p0,3\n",
            "there is no column 'request'; the file has user, pro",
        ),
        ("request,provider,score\na cat,p0,3\n", "there is no column 'user'"),
        ("user,request,provider\nann,a cat,p0\n", "there is no column 'score'"),
        ("user,image,score\nann,9.png,3\n", "row 1 .*no image named '9.png'"),
        (
            "user,image,score,sample\nann,0.png,3,0.5\n",
            "row 1 .*sample 0.5 is not a whole number",
        ),
        ("", "the file is empty"),
        ("user,request,provider,score\n", "the file has no rows"),
    ],
)
def test_bad_rows(text, message, tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv.*" + message):
        read(tmp_path, text)


LOGITS = "user,image,score,logit_good,logit_poor\nann,0.png,0.5,1,2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "both a score and logits"),
        ({"columns": {"score": "score", "logits": ["a", "b"]}}, "both a score and logits"),
        ({"columns": {"logits": ["logit_good"]}}, "logits names 1 columns, but .* has 2 labels"),
        ({"columns": {"score": "mos"}}, "no column 'mos'; the file has user, image.*for score"),
        ({"columns": {"score": []}}, "names no column"),
        ({"columns": {"scores": "score"}}, "'scores' is unknown; choose from user, request"),
        ({"columns": {"score": "score", "user": ["a", "b"]}}, "user is one column, not 2"),
        ({"columns": {"user": "user"}, "user": "human"}, "not both"),
    ],
)
def test_bad_columns(options, message, tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv.*" + message):
        read(tmp_path, LOGITS, GOOD_POOR, **options)


def test_naming_one_of_score_and_logits_settles_it(tmp_path):
    judge = read(tmp_path, LOGITS, GOOD_POOR, columns={"score": "score"})
    assert judge.scores["ann", "a cat", "p0", 0] == 0.5


def test_bad_files(tmp_path):
    def attempt(name):
        RecordedJudge.from_file(tmp_path / name, CATALOG, scale=SCALE)

    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        attempt("none.csv")
    (tmp_path / "scores.parquet").write_text(GOOD)
    with pytest.raises(InputError, match=r"scores\.parquet: the file cannot be parsed"):
        attempt("scores.parquet")
    (tmp_path / "binary.csv").write_bytes(b"user,\xff\xfe\nx,y\n")
    with pytest.raises(InputError, match=r"binary\.csv: the file is not in UTF-8"):
        attempt("binary.csv")
    pd.DataFrame({"user": ["ann", None], "image": "0.png", "score": 3}).to_parquet(
        tmp_path / "null.parquet"
    )
    with pytest.raises(InputError, match=r"row 2 .*column 'user' is empty"):
        attempt("null.parquet")
    pd.DataFrame(
        {"user": "ann", "image": ["0.png", "1.png"], "score": pd.array([1, None], "Int64")}
    ).to_parquet(tmp_path / "missing.parquet")
    judge = RecordedJudge.from_file(tmp_path / "missing.parquet", CATALOG, scale=SCALE)
    assert judge.scores == {("ann", "a cat", "p0", 0): 1.0}


WIDE = replace(CATALOG, file_names={"a_cat": "a cat", "a_cat.png": "a cat", "a_dog": "a dog"})


def test_columns_may_name_requests_as_their_files_do(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("user,provider,a_cat,a dog\nann,p0,5,4\nben,NA,3,\n")
    judge = RecordedJudge.from_file(path, WIDE, scale=SCALE)
    assert judge.scores == {
        ("ann", "a cat", "p0", 0): 5.0,
        ("ann", "a dog", "p0", 0): 4.0,
        ("ben", "a cat", "NA", 0): 3.0,
    }


def test_a_wide_table_says_which_columns_are_left_out_where_a_provider_has_none(tmp_path):
    text = "who,request,age,p0,N.A.\nann,a cat,30,5,4\n"
    with pytest.warns(UserWarning, match=r"provider NA; left out, .* its name: age, N\.A\.\.$"):
        judge = read(tmp_path, text, columns={"user": "who"})
    assert judge.scores == {("ann", "a cat", "p0", 0): 5.0}
    read(tmp_path, "user,request,age,p0,NA\nann,a cat,30,5,4\n")  # all have a column: no warning


def test_a_name_that_is_nearly_right_ends_the_sentence_with_one_mark(tmp_path):
    with pytest.raises(InputError, match=r"is not in the catalog; did you mean 'a cat'\?$"):
        read(tmp_path, "user,request,provider,score\nann,a catt,p0,1\n")


def test_a_label_that_is_a_number_keeps_its_place_beside_others(tmp_path):
    scale = scale_of(["0 (bad)", "1", "2", "3", "4 (best)"])  # rated 1 to 5
    text = "user,request,provider,score\nann,a cat,p0,1\nann,a dog,NA,0 (bad)\n"
    judge = read(tmp_path, text, scale=scale)
    assert list(judge.scores.values()) == [2.0, 1.0]


def test_a_mapped_column_of_a_wide_table_is_not_called_left_out(tmp_path, recwarn):
    judge = read(tmp_path, "rater,request,p0\nann,a cat,5\n", columns={"user": ["rater"]})
    assert judge.users == ("ann",)
    assert not [w for w in recwarn if "rater" in str(w.message)]


def test_names_that_differ_in_capitals_alone_share_no_column(tmp_path):
    catalog = Catalog(providers=("sd", "SD"), requests=("a cat",), pictures={}, images={})
    path = tmp_path / "scores.csv"
    path.write_text("user,request,SD\nann,a cat,5\n")
    judge = RecordedJudge.from_file(path, catalog, scale=SCALE)
    assert judge.scores == {("ann", "a cat", "SD", 0): 5.0}
