"""The report of a sweep, from files that were written by hand."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from rlli_jax.errors import InputError
from rlli_jax.report.sweep import render as render_sweep
from rlli_jax.report.sweep_data import load_sweep_run

RATES = [1e-4, 1e-3, 1e-2]
GAMMA = "policies.PPO.hyperparams.gamma"
RATE = "policies.PPO.hyperparams.learning_rate"
KINDS = "policies.PPO.observation"


def write_run(path, keys, ratio, policies=("PPO",)):
    """A sweep's directory. ``keys``: values along points; ``ratio``: [policies, points, seeds]."""
    points, seeds = ratio.shape[1:]
    optimum = np.linspace(2, 4, points)
    dims = ("policy", "point", "seed")
    data = xr.Dataset(
        {
            "ratio": (dims, ratio),
            "objective": (dims, ratio * optimum[:, None]),
            "ratio_iqm": (dims[:2], ratio.mean(-1)),
            "ratio_low": (dims[:2], ratio.min(-1)),
            "ratio_high": (dims[:2], ratio.max(-1)),
            "optimum": ("point", optimum),
            "best_single": ("point", 0.8 * optimum),
            "random": ("point", 0.6 * optimum),
        },
        {key: ("point", values) for key, values in keys.items()}
        | {"policy": list(policies), "seed": np.arange(seeds, dtype=np.int32)},
        {
            "title": "<tiny> & sweep",
            "description": "",
            "swept": json.dumps(list(keys)),
            "judge": "made-up numbers",
            "stand_in": 1,
        },
    )
    path.mkdir(exist_ok=True)
    data.to_netcdf(path / "sweep.nc", engine="scipy")
    (path / "config.yaml").write_text("name: tiny\n")
    (path / "sweep.yaml").write_text("grid:\n  seed: [1]\n")
    (path / "versions.json").write_text('{"jax": "1.2.3"}')
    return path


@pytest.fixture
def grid(tmp_path):
    """Rate x gamma: rate decides (50, 70, 90 %), gamma adds a point."""
    rate, gamma = np.repeat(RATES, 2), np.tile([0.5, 0.9], 3)
    share = np.repeat([0.5, 0.7, 0.9], 2) + np.tile([0.0, 0.01], 3)
    ratio = share[None, :, None] + np.array([0.0, 0.002, 0.003, 0.004, 0.006])
    return write_run(tmp_path / "grid", {RATE: rate, GAMMA: gamma}, ratio)


def text_of(page):
    page = re.sub(r"<style.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_stands_alone_and_names_the_stand_in(grid):
    page = render_sweep(grid).read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert "Scores come from a stand-in for a language model." in page
    assert "made-up numbers" in page
    assert "&lt;tiny&gt; &amp; sweep" in page
    assert "<tiny>" not in page
    assert "1.2.3" in page
    names = sorted(p.name for p in (grid / "figures").iterdir())
    stems = ["profile", f"sensitivity-{GAMMA}", f"sensitivity-{RATE}"]
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("pdf", "svg")]


def test_the_findings_are_those_of_the_numbers(grid):
    text = text_of(render_sweep(grid).read_text())
    assert "6 points × 1 policy × 5 seeds" in text
    # The best point is the last: 0.91 plus the middle of 0.002 and 0.004.
    assert "PPO reaches 91.3" in text
    assert "(learning_rate 0.01, gamma 0.9)" in text
    assert "0 other points" not in text
    sentence = re.search(rf"PPO, {re.escape(RATE)}: from (.*?)\. ", text + " ")
    assert sentence is not None
    run = load_sweep_run(grid)
    key = run.keys[0]
    shares = [float(run.estimate("PPO", level.points).value) for level in key.levels]
    np.testing.assert_allclose(shares, [0.508, 0.708, 0.908])


def test_improvement_is_counted_point_by_point(grid):
    text = text_of(render_sweep(grid).read_text())
    # At the same rate every run with gamma 0.9 beats every run with 0.5, though not across rates;
    # and each of the other two rates beats the first at either gamma.
    assert len(re.findall(r"1\.00 \(0\.\d\d–1\.00\)", text)) == 3


def test_random_numbers_are_put_into_bins(tmp_path):
    generator = np.random.default_rng(0)
    rate = generator.uniform(1e-4, 1e-1, 40)
    path = write_run(tmp_path / "bins", {RATE: rate}, generator.random((1, 40, 3)))
    (key,) = load_sweep_run(path).keys
    assert [len(level.points) for level in key.levels] == [7, 7, 7, 7, 6, 6]
    assert sorted(np.concatenate([level.points for level in key.levels])) == list(range(40))
    edges = [(rate[level.points].min(), rate[level.points].max()) for level in key.levels]
    assert edges == sorted(edges)
    assert "put into bins" in render_sweep(path).read_text()


def test_text_keys_and_several_policies(tmp_path):
    keys = {KINDS: np.array(["[a]", "[b]"]), "environment.rounds": np.array([1, 1], np.int32)}
    ratio = np.random.default_rng(1).random((2, 2, 3))
    path = write_run(tmp_path / "text", keys, ratio, policies=("PPO", "DQN"))
    text = text_of(render_sweep(path).read_text())
    assert f"DQN, {KINDS}" not in text  # a key of PPO does not concern DQN
    assert "PPO, policies.PPO.observation" in text
    assert not list((path / "figures").glob("*rounds*"))  # it has one value


@pytest.mark.parametrize("seeds", [1, 4])
def test_fewer_than_five_seeds_have_no_interval(tmp_path, seeds):
    ratio = np.linspace(0.4, 0.6, 3 * seeds).reshape(1, 3, seeds)
    path = write_run(tmp_path / "few", {RATE: np.array(RATES)}, ratio)
    text = text_of(render_sweep(path).read_text())
    assert "nan" not in text.lower()
    assert "no interval: below 5 seeds" in text
    assert "95 % interval" not in text
    assert "overlap" not in text
    assert "1.00 (" not in text


def test_words_keep_the_order_of_the_config_and_its_first_value_is_compared_with(tmp_path):
    keys = {KINDS: np.array(["words", "a", "words", "a"]), GAMMA: np.array([0.9, 0.9, 0.5, 0.5])}
    ratio = np.array([0.5, 0.7, 0.4, 0.6])[None, :, None] + np.arange(5) / 1000
    path = write_run(tmp_path / "words", keys, ratio)
    kinds, gamma = load_sweep_run(path).keys
    assert [level.label for level in kinds.levels] == ["words", "a"]
    assert [level.label for level in gamma.levels] == ["0.5", "0.9"]
    text = text_of(render_sweep(path).read_text())
    assert "Better than words" in text
    assert "Better than 0.9" in text  # the first value given, though not the lowest


def two_policies(tmp_path):
    """PPO's rate times a number of rounds: DQN has the same runs at every rate."""
    rate, rounds = np.tile(RATES, 2), np.repeat(np.array([1, 2], np.int32), 3)
    runs = np.array([-0.02, -0.01, 0, 0.01, 0.02])
    ppo = rate[:, None] + 0.5 + runs
    dqn = 0.3 + 0.1 * rounds[:, None] + runs
    keys = {RATE: rate, "environment.rounds": rounds}
    return write_run(tmp_path / "two", keys, np.stack([ppo, dqn]), policies=("PPO", "DQN"))


def test_a_policys_points_are_told_by_its_own_keys(tmp_path):
    path = two_policies(tmp_path)
    text = text_of(render_sweep(path).read_text())
    assert "DQN reaches 50.0" in text
    (said,) = re.findall(r"DQN reaches .*? at its best point (.*?) Over all", text)
    assert said == "(rounds 2)."
    rows = re.findall(r"DQN (\S+) (\d) \d\d", text[text.index("Best points") :])
    assert rows == [("–", "2"), ("–", "1")]


def test_equal_runs_are_counted_once(tmp_path):
    run = load_sweep_run(two_policies(tmp_path))
    assert run.distinct("DQN") == [0, 3]
    assert run.distinct("PPO") == list(range(6))
    assert run.ratio("DQN").shape == (5, 2)
    # Three copies of the same five runs tell no more than one.
    np.testing.assert_equal(run.estimate("DQN", [0, 1, 2]), run.estimate("DQN", [0]))


def test_a_policy_whose_name_begins_that_of_another_keeps_its_keys(tmp_path):
    keys = {"policies.PPO.2.iterations": np.array([1, 2], np.int32)}
    path = write_run(tmp_path / "dots", keys, np.zeros((2, 2, 5)), policies=("PPO", "PPO.2"))
    run = load_sweep_run(path)
    assert [len(run.concerns(name)) for name in run.policies] == [0, 1]


def test_a_swept_seed_that_an_earlier_version_mislabelled_is_refused(tmp_path):
    path = write_run(tmp_path / "seed", {RATE: np.array(RATES)}, np.zeros((1, 3, 5)))
    data = xr.load_dataset(path / "sweep.nc", engine="scipy")
    data.attrs["swept"] = json.dumps(["seed"])
    data.to_netcdf(path / "sweep.nc", engine="scipy")
    with pytest.raises(InputError, match=r"swept key seed .* \(--resume\)"):
        load_sweep_run(path)


def test_an_unfinished_sweep_says_so(grid):
    (grid / "sweep.nc").unlink()
    with pytest.raises(InputError, match=r"sweep.nc is missing: the run is not finished"):
        render_sweep(grid)


def test_a_damaged_file_is_named(grid):
    (grid / "sweep.nc").write_bytes(b"no netCDF")
    with pytest.raises(InputError, match=r"sweep.nc"):
        render_sweep(grid)


def test_providers_are_shown_where_a_key_changes_what_they_offer(tmp_path):
    """Six people of other levels: their difference is exact, though their mean is not."""
    from rlli_jax.report.sweep_providers import concerned, offered

    steps, rates = np.repeat([0, 2], 2), np.tile([1e-4, 1e-3], 2)
    path = write_run(
        tmp_path / "run", {"catalog.steps": steps, RATE: rates}, np.full((1, 4, 5), 0.5)
    )
    people, noise = np.linspace(0.3, 0.8, 6), np.array([0.0, 0.01, -0.01])  # of requests
    qoe = np.zeros((4, 6, 3, 2))
    qoe += people[:, None, None] + noise[:, None]
    qoe[..., 1] -= 0.1 * steps[:, None, None]
    qoe[:, :, 1, 1] = np.nan  # no picture of the second request
    data = xr.load_dataset(path / "sweep.nc", engine="scipy")
    data["offered"] = ("point", "person", "request", "provider"), qoe
    data["saved"] = ("point", "provider"), np.stack([0 * steps, steps / 8], 1)
    data = data.assign_coords(provider=["alone", "sharing"])
    data.to_netcdf(path / "sweep.nc", engine="scipy")

    run = load_sweep_run(path)
    (key,) = concerned(run)  # a learning rate changes no picture
    assert key.path == "catalog.steps"
    first, second = offered(run, key, "sharing")
    assert first.more is None
    np.testing.assert_allclose(first.qoe.value, people.mean() - 0.005)
    assert float(first.qoe.high - first.qoe.low) > 0.1
    np.testing.assert_allclose(second.more, -0.2, atol=1e-9)
    assert [at.saved for at in (first, second)] == [0, 0.25]
    np.testing.assert_allclose(offered(run, key, "alone")[1].more, 0, atol=1e-9)
    page = render_sweep(path).read_text()
    assert "intervals over people, for these requests" in page
    assert "25\N{NO-BREAK SPACE}%" in page
