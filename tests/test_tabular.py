"""Tables as people have them, read by one reader."""

from pathlib import Path

import pandas as pd
import pytest

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import scale_of
from rlli_jax.judges.recorded import RecordedJudge
from rlli_jax.personas import Population
from rlli_jax.tabular import read_table

CASES = Path(__file__).parents[2] / "shared/cases"
ROWS = [["name", "O", "C", "E", "A", "N"], ["Ann, B.", "3.5", "3", "3", "3", "3"]]
CATALOG = Catalog(("sd", "dalle"), ("a cat", "a dog"), {})


def scores(path: Path, text: str, scale: str | list[str] = "1-7", **options: object) -> dict:
    path.write_text(text, encoding="utf-8")
    return dict(
        RecordedJudge.from_file(path, CATALOG, scale=scale_of(scale), **options).scores  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'name,O,C,E,A,N\n"Ann, B.",3.5,3,3,3,3\n'),
        ("a.CSV", "\ufeffname;O;C;E;A;N\r\nAnn, B.;3,5;3;3;3;3\r\n"),
        ("a.tsv", "name\tO\tC\tE\tA\tN\nAnn, B.\t3,5\t3\t3\t3\t3\n"),
        ("a.txt", "name|O|C|E|A|N\nAnn, B.|3.5|3|3|3|3\n"),
        ("blank.csv", "\n\nName;O;C;E;A;N;;\n\nAnn, B.;3,5;3;3;3;3;;\n;;;;;;;\n;;;;;;;\n"),
        (
            "full.csv",
            "Extraversion;OPENNESS;name;conscientiousness;a;n;age\n3;3,5;Ann, B.;3;3;3;40\n",
        ),
    ],
)
def test_separators_decimal_commas_and_blank_rows_are_found_out(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    people = Population.from_csv(tmp_path / name)
    assert people.names == ("Ann, B.",)
    assert people.personas[0].traits == (3.5, 3, 3, 3, 3)


def test_excel_parquet_and_utf16_give_what_csv_gives(tmp_path):
    frame = pd.DataFrame([["Ann, B.", 3.5, 3, 3, 3, 3], [7, 1, 2, 3, 4, 5]], columns=ROWS[0])
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.assign(name=frame["name"].astype(str)).to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.txt", index=False, sep="\t", encoding="utf-16")
    excel, parquet, text, wide = (
        Population.from_csv(tmp_path / name) for name in ("a.xlsx", "a.parquet", "a.csv", "b.txt")
    )
    assert excel == parquet == text == wide
    assert excel.names == ("Ann, B.", "7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,score,score\na,1,2\n", "2 columns are named 'score'; keep one"),
        ("user;Score;SCORE\na;1;2\n", "the columns 'Score' and 'SCORE' mean the same"),
        ("who;what\na;b\n", "no column 'score'; the file has who, what: hint"),
        ("user,score\na,1,2\n", "cannot be parsed"),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.csv", "a score").require("score", advice="hint")


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path):
    (tmp_path / "a.csv").write_bytes("user;score\nJörg;3\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"not in UTF-8 \(byte 0xf6 at place 12\); .* CSV UTF-8"):
        read_table(tmp_path / "a.csv", "a score")


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not there")
def test_duplicate_columns_of_a_manifest_and_of_scores_are_refused():
    with pytest.raises(InputError, match="2 columns are named 'image'"):
        Catalog.from_manifest(CASES / "17/manifest.csv")
    with pytest.raises(InputError, match="2 columns are named 'score'"):
        RecordedJudge.from_file(CASES / "17/scores.csv", CATALOG, scale=scale_of("1-5"))


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not there")
def test_semicolons_and_tabs_of_the_case_are_read():
    semicolon = Population.from_csv(CASES / "25/semicolon.csv")
    assert semicolon.personas[0].traits == (3.5, 3, 3, 3, 3)
    assert Population.from_csv(CASES / "25/tab.csv").personas[0].traits == (3, 3, 3, 3, 3)


def test_blank_scores_are_gaps(tmp_path):
    text = "user;request;provider;score\nAnn;a cat;sd;6,5\nAnn;a dog;sd;\nBen;a cat;dalle;NA\n"
    assert scores(tmp_path / "a.csv", text) == {("Ann", "a cat", "sd", 0): 6.5}


def test_wide_scores_have_a_column_a_provider_or_a_request(tmp_path):
    wide = "user,request,SD,dalle,age\nAnn,a cat,7,1,40\nAnn,a dog,,2,40\n"
    expected = {
        ("Ann", "a cat", "sd", 0): 7,
        ("Ann", "a cat", "dalle", 0): 1,
        ("Ann", "a dog", "dalle", 0): 2,
    }
    assert scores(tmp_path / "a.csv", wide) == expected
    by_request = "user,provider,a cat,a dog\nAnn,sd,7,\nAnn,dalle,1,2\n"
    assert scores(tmp_path / "b.csv", by_request) == expected


def test_scores_are_labels_of_ones_own(tmp_path):
    text = "user,request,provider,score\nAnn,a cat,sd,Often\nAnn,a dog,sd,never\nB,a cat,sd,2.5\n"
    labels = ["never", "sometimes", "often"]
    assert list(scores(tmp_path / "a.csv", text, labels).values()) == [3, 1, 2.5]
    with pytest.raises(InputError, match=r"row 1 .*'great', which is neither a number nor a label"):
        scores(tmp_path / "a.csv", text.replace("Often", "great"), labels)


def test_school_grades_are_best_at_one(tmp_path):
    text = 'user,request,provider,score\nAnn,a cat,sd,1\nAnn,a dog,sd,"1,5"\n'
    assert list(scores(tmp_path / "a.csv", text, "6-1").values()) == [6, 5.5]
