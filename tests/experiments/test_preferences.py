"""A study of preferences, from YAML to runs, references and report; comparisons from files."""

import re
import zlib
from contextlib import closing
from itertools import product

import numpy as np
import pytest
import yaml
from chat_server import LocalServer, completion
from PIL import Image
from rich.console import Console

from rlli_jax.errors import InputError
from rlli_jax.experiments.preferences.pairs import read_pairs
from rlli_jax.qoe import QoETable
from rlli_jax.run_files.preferences import AskedPairs, PreferenceReferences, PreferenceRuns
from rlli_jax.studies import carry_out, load_study, render

STUDY = {
    "name": "preferences",
    "kind": "preferences",
    "seeds": 6,
    "population": {"sample": {"size": 8, "group": "women 21-40", "seed": 3}},
    "catalog": {"studio": True},
    "judge": {"kind": "psychometric", "samples": 2},
    "pairs": {"counts": [20, 4000], "noise": [0.1]},
    "reward_model": {"sizes": ["pictures", "linear"]},
    "optimisation": {"iterations": 40, "points": 8},
}


def written(folder, **changes):
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    carry_out(load_study(written(folder)), folder / "run", "refuse", Console(quiet=True))
    return folder / "run"


def test_many_pairs_reach_the_optimum_and_few_or_a_model_without_persona_do_not(finished):
    known = PreferenceReferences.read(finished / "references.json")
    runs = PreferenceRuns.read(finished / "runs.npz")
    assert len(runs.count) == 24
    assert known.random < known.reference < known.best_single < known.optimum
    end = {
        (count, size): runs.exact_gold[(runs.count == count) & (runs.size == size), -1].mean()
        for count in (20, 4000)
        for size in (0, 1)
    }
    assert known.optimum - 0.01 < end[4000, 1] <= known.optimum + 1e-6
    assert end[20, 1] < known.optimum - 0.02
    assert end[4000, 0] < known.optimum - 0.02
    assert runs.gradient.max() < 0.5
    assert (runs.ppo_kl >= -1e-6).all()
    # The best policy for a weight of divergence is not beaten by PPO that went as far.
    assert (runs.ppo_proxy.max(1) <= runs.exact_proxy.max(1) + 1e-2).all()


def test_the_report_says_what_many_pairs_reach_and_where_gold_turns(finished):
    page = render(finished).read_text()
    assert "With 4,000 pairs PPO on the reward model ends" in page
    assert re.search("gold falls? while the proxy rises", page)
    assert "Scores come from a stand-in" in page
    assert "where both end, DPO is worth" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": {"counts": [20, 20]}}, r"pairs\.counts: .*twice"),
        ({"population": None}, "population: this key is missing"),
        ({"optimisation": {"betas": [0.1, 1]}}, r"optimisation\.betas: the first must be larger"),
        (
            {"pairs": {"ask": "all", "noise": [0.1]}},
            r"pairs\.ask: only a language model that reads",
        ),
        ({"pairs": {"file": "pairs.csv"}}, r"pairs\.noise: a file has the noise of its raters"),
    ],
)
def test_a_mistake_names_its_key(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_study(written(tmp_path, **changes))


@pytest.fixture
def likes_colour(monkeypatch):
    """A server whose judge rates by a hash, and of two pictures prefers the one in colour; what is
    shown first where both are, or neither is."""
    monkeypatch.setattr("rlli_jax.judges.server.FIRST_WAIT", 0.001)

    def respond(body, n=0):
        text = body["messages"][0]["content"]
        if "which of the two" not in text:
            return completion(str(1 + zlib.crc32(text.encode()) % 5))
        shown = re.findall("picture, described in words: (.*)", text)
        grey = ["black and white" in words for words in shown]
        return completion("second" if grey == [True, False] else "first")

    with closing(LocalServer()) as server:
        server.respond = respond
        yield server


def test_the_judge_itself_compares_in_both_orders(tmp_path, likes_colour):
    rows, rng = ["provider,request,image,caption"], np.random.default_rng(0)
    for request, provider in product(("cat", "dog"), ("ink", "oil", "old")):
        image = f"{request}-{provider}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / image)
        style = "black and white" if provider == "old" else f"colours of {provider}"
        rows.append(f"{provider},a {request},{image},a {request} in {style}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    judge = {
        "kind": "openai", "model": "m", "base_url": likes_colour.url, "scoring": "text",
        "scale": "1-5", "sees": "description", "examination": None, "require": [],
        "store": str(tmp_path / "answers.sqlite"),
    }  # fmt: skip
    path = written(
        tmp_path,
        population={"sample": {"size": 3}},
        catalog={"manifest": "manifest.csv"},
        judge=judge,
        pairs={"ask": "all", "counts": [18], "noise": [0.1]},
        reward_model={"sizes": ["pictures"]},
        seeds=2,
    )
    stopped = load_study(path, ["judge.budget.questions=20"])  # 18 cells, 36 questions about pairs
    with pytest.raises(InputError, match=r"34 of 36 questions about pairs have no answer \(not"):
        carry_out(stopped, tmp_path / "stopped", "refuse", Console(quiet=True))
    assert len(likes_colour.requests) == 20  # one budget for both
    with pytest.raises(InputError, match=r"14 of 36 questions about pairs have no answer \(not"):
        carry_out(stopped, tmp_path / "stopped", "resume", Console(quiet=True))  # another command
    run = tmp_path / "run"
    carry_out(load_study(path), run, "refuse", Console(quiet=True))
    assert len(likes_colour.requests) == 18 + 36  # what was answered is not asked again
    place, won = AskedPairs.read(run / "pairs.npz").comparisons()
    assert place.tolist() == list(range(18))
    # Of ink-oil, ink-old and oil-old: whichever is first, then the one in colour.
    assert won.tolist() == [0.5, 1, 1] * 6
    page = re.sub(r"\s+", " ", render(run).read_text())
    assert "18 pairs compared by the judge in both orders" in page
    assert "In 33.3 % of these the orders do not prefer the same picture" in page
    # All of it where both are in colour, half of it elsewhere: (1 + .5 + .5) / 3.
    assert "What is shown first gets 0.67 of the preference" in page


@pytest.fixture
def table():
    qoe = np.array([[[0.1, 0.2, np.nan]], [[0.7, 0.4, 0.5]]])
    return QoETable.from_array(
        qoe, users=("ann", "ben"), requests=("a cat",), providers=("ink", "oil", "wax"), judge="x"
    )


HEADER = "user_id,caption,model_0,model_1,label_0,label_1\n"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_comparisons_of_a_file_are_taken_in_either_order(tmp_path, table, ending):
    text = HEADER + "ben,a cat,wax,ink,1,0\nann,a cat,ink,oil,0.5,0.5\nben,a cat,ink,oil,1,0\n"
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    if ending == "parquet":
        import pandas as pd

        pd.read_csv(path).to_parquet(path := tmp_path / "pairs.parquet")
    place, won = read_pairs(path, table)
    # Pairs of ann: 0 ink-oil, 1 ink-wax, 2 oil-wax; of ben from 3 on.
    assert place.tolist() == [4, 0, 3]
    assert won.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("eve,a cat,ink,oil,1,0", "nobody knows the user 'eve'"),
        ("ann,a dog,ink,oil,1,0", "nobody knows the request 'a dog'"),
        ("ann,a cat,ink,tar,1,0", "nobody knows the provider 'tar'"),
        ("ann,a cat,ink,wax,1,0", "no rating of the picture of 'wax'"),
        ("ann,a cat,ink,oil,1,1", "label_0 is 1 and label_1 1; give 1 and 0"),
        ("ann,a cat,ink,ink,1,0", "compared with itself"),
        ("ben,a cat,ink,oil,1,0\nben,a cat,oil,ink,1,0", "contradicts row"),
    ],
)
def test_a_bad_comparison_is_one_sentence(tmp_path, table, rows, message):
    path = tmp_path / "pairs.csv"
    path.write_text(HEADER + rows + "\n")
    with pytest.raises(InputError, match=message):
        read_pairs(path, table)


def test_a_sweep_is_refused_with_what_to_do_in_its_place(tmp_path):
    path = written(tmp_path, sweep={"grid": {"pairs.bias": [0.0, 0.1]}})
    with pytest.raises(InputError, match=r"varies pairs\.counts.*all in one run; list values ther"):
        load_study(path)
