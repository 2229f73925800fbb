"""The QoE table, against brute force on small random tables."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from rlli_jax.errors import InputError
from rlli_jax.judges import Failed, Invalid, JudgeIdentity, Rated, named_scale
from rlli_jax.personas import Persona, Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.reliability import reliability, shrink

SEEDS = range(20)


def names(prefix, size):
    return tuple(f"{prefix}{i}" for i in range(size))


def make_table(qoe, valid=None):
    qoe = np.asarray(qoe, np.float32)
    valid = np.ones(qoe.shape, bool) if valid is None else valid
    users, requests, providers, _ = qoe.shape
    return QoETable(
        qoe, valid, names("u", users), names("r", requests), names("p", providers), "test", False
    )


def random_table(seed):
    """1-4 users, requests, providers, samples; about a third holes.

    Every user has a provider for some request, and with an even seed for every one.
    """
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, 4))
    valid = rng.random(shape) > 0.35
    keep = rng.integers(0, shape[2], shape[:2])
    for user, request in np.ndindex(*shape[:2] if seed % 2 == 0 else (shape[0], 1)):
        valid[user, request, keep[user, request], 0] = True
    if seed % 2:
        valid[:, 1:] &= rng.random((shape[0], shape[1] - 1, 1, 1)) > 0.3  # gaps
    return make_table(rng.random(shape), valid)


def cell_mean(table, user, request, provider):
    """Mean of the valid samples, or None."""
    cell = table.qoe[user, request, provider][table.valid[user, request, provider]]
    return float(cell.astype(np.float64).mean()) if cell.size else None


def value_of(table, user, request, provider):
    """The cell's mean; in a hole, uniform over the providers that can serve."""
    mean = cell_mean(table, user, request, provider)
    if mean is not None:
        return mean
    others = [cell_mean(table, user, request, p) for p in range(len(table.providers))]
    return np.mean([m for m in others if m is not None])


@pytest.mark.parametrize("seed", SEEDS)
def test_means_against_brute_force(seed):
    table = random_table(seed)
    for index in np.ndindex(*table.legal.shape):
        mean = cell_mean(table, *index)
        assert table.legal[index] == (mean is not None)
        assert table.mean[index] == pytest.approx(0 if mean is None else mean, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_references_against_brute_force(seed):
    """Enumerates every assignment of providers to users, and every legal choice."""
    table = random_table(seed)
    users, requests, providers = (range(n) for n in table.legal.shape)
    own = {k: [r for r in requests if table.valid[k, r].any()] for k in users}
    alone = {
        name: sum(np.mean([value_of(table, k, r, p) for r in own[k]]) for k in users)
        for p, name in enumerate(table.providers)
    }
    optimum = max(
        sum(np.mean([value_of(table, k, r, choice[k]) for r in own[k]]) for k in users)
        for choice in itertools.product(providers, repeat=len(users))
    )
    legal = {
        (k, r): [m for p in providers if (m := cell_mean(table, k, r, p)) is not None]
        for k in users
        for r in own[k]
    }
    references = table.references()
    assert references["providers"] == pytest.approx(alone)
    assert references["optimum"] == pytest.approx(optimum)
    best, value = references["best_single"]
    assert value == pytest.approx(max(alone.values()))
    assert alone[best] == pytest.approx(value)
    assert references["optimum_per_request"] == pytest.approx(
        sum(max(means) / len(own[k]) for (k, _), means in legal.items())
    )
    assert references["random"] == pytest.approx(
        sum(np.mean(means) / len(own[k]) for (k, _), means in legal.items())
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_references_are_in_order(seed):
    table = random_table(seed)
    references = table.references()
    order = [
        references["random"],
        references["best_single"][1],
        references["optimum"],
        references["optimum_per_request"],
        len(table.users),
    ]
    assert order == pytest.approx(sorted(order))


def test_references_by_hand():
    table = make_table([[[[1.0], [0.5]], [[0.0], [0.5]]], [[[0.2], [0.8]], [[0.2], [0.6]]]])
    assert table.references() == {
        "optimum": pytest.approx(0.5 + 0.7),
        "optimum_per_request": pytest.approx(0.75 + 0.7),
        "best_single": ("p1", pytest.approx(1.2)),
        "random": pytest.approx(0.5 + 0.45),
        "providers": {"p0": pytest.approx(0.7), "p1": pytest.approx(1.2)},
    }


def test_a_provider_gains_nothing_by_leaving_hard_requests_out():
    """p0 serves only the easy request, where it is the worse of the two."""
    qoe = [[[[0.8], [0.9]], [[0.0], [0.1]]]]
    valid = np.array([[[[True], [True]], [[False], [True]]]])
    references = make_table(qoe, valid).references()
    assert references["providers"] == pytest.approx({"p0": 0.45, "p1": 0.5})
    assert references["best_single"][0] == "p1"


@pytest.mark.parametrize("seed", SEEDS)
def test_standardised_keeps_the_order_and_removes_level_and_spread(seed):
    table = random_table(seed)
    scores = table.standardised()
    assert np.array_equal(scores.valid, table.valid)
    assert scores.judge != table.judge
    for k in range(len(table.users)):
        before, after = table.qoe[k][table.valid[k]], scores.qoe[k][table.valid[k]]
        assert np.array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    # Squeezing and shifting a user's ratings changes nothing.
    squeezed = make_table(table.qoe * 0.25 + 0.5, table.valid).standardised()
    np.testing.assert_allclose(squeezed.qoe, scores.qoe, atol=1e-5)


def test_standardised_values():
    table = make_table([[[[0.0], [1.0]]]])
    np.testing.assert_allclose(
        table.standardised().qoe.ravel(), [0.15865525, 0.84134475], rtol=1e-6
    )
    constant = make_table(np.full((1, 3, 2, 1), 0.7)).standardised()
    np.testing.assert_array_equal(constant.qoe, 0.5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("axis", ["requests", "users"])
def test_splits_are_disjoint_complete_and_seeded(seed, axis):
    rng = np.random.default_rng(seed)
    table = make_table(rng.random((7, 9, 2, 1)))
    fraction = rng.uniform(0.01, 0.99)

    def split(seed):
        return getattr(table, f"split_{axis}")(fraction, seed)

    first, second = split(seed)
    every = getattr(table, axis)
    parts = getattr(first, axis), getattr(second, axis)
    assert sorted(parts[0] + parts[1]) == sorted(every)
    assert len(parts[0]) == min(max(round(fraction * len(every)), 1), len(every) - 1)
    for part, part_names in zip((first, second), parts, strict=True):
        assert list(part_names) == sorted(part_names)
        again = table.select(**{axis: part_names})
        assert np.array_equal(part.qoe, again.qoe)
    assert getattr(split(seed)[0], axis) == parts[0]
    assert len({getattr(split(s)[0], axis) for s in range(50)}) > 1


def test_select_takes_the_named_cells_in_the_order_given():
    table = make_table(np.arange(24).reshape(2, 3, 4, 1) / 24)
    chosen = table.select(users=["u1"], requests=["r2", "r0"])
    assert (chosen.users, chosen.requests) == (("u1",), ("r2", "r0"))
    np.testing.assert_array_equal(chosen.qoe[0, :, :, 0] * 24, [[20, 21, 22, 23], [12, 13, 14, 15]])
    assert table.select().users == table.users


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda t: t.select(users=["nobody"]), "'nobody' is not in the table"),
        (lambda t: t.select(requests=[]), "the list is empty"),
        (lambda t: t.select(users=["u0", "u0"]), "twice"),
        (lambda t: t.split_requests(0.0, 0), "between 0 and 1"),
        (lambda t: t.split_requests(float("nan"), 0), "between 0 and 1"),
        (lambda t: t.select(users=["u0"]).split_users(0.5, 0), "needs at least two"),
    ],
)
def test_impossible_parts(act, message):
    with pytest.raises(InputError, match=message):
        act(make_table(np.full((2, 2, 2, 1), 0.5)))


@pytest.mark.parametrize("seed", SEEDS)
def test_save_and_load(seed, tmp_path):
    table = random_table(seed)
    table.save(tmp_path / "table.npz")
    loaded = QoETable.load(tmp_path / "table.npz")
    assert np.array_equal(loaded.qoe, table.qoe)
    assert np.array_equal(loaded.valid, table.valid)
    assert loaded.qoe.dtype == np.float32
    for name in ("users", "requests", "providers", "judge", "stand_in"):
        assert getattr(loaded, name) == getattr(table, name)
    assert [p.name for p in tmp_path.iterdir()] == ["table.npz"]


def test_names_survive_saving(tmp_path):
    table = QoETable(
        np.ones((1, 1, 2, 1)), np.ones((1, 1, 2, 1)), ("Åsa",), ("a 猫, \n“cat”",), ("", "p "),
        "judge [a: 1]", True,
    )  # fmt: skip
    table.save(tmp_path / "t.npz")
    loaded = QoETable.load(tmp_path / "t.npz")
    assert (loaded.users, loaded.requests, loaded.providers) == (
        table.users,
        table.requests,
        table.providers,
    )
    assert loaded.stand_in is True


@pytest.mark.parametrize("damage", ["empty", "half", "text", "flipped", "array", "other", "pickle"])
def test_damaged_files(damage, tmp_path):
    path = tmp_path / "table.npz"
    make_table(np.random.default_rng(0).random((3, 9, 4, 2))).save(path)
    content = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("user,request\n")
    elif damage == "flipped":
        content[200] ^= 0xFF
        path.write_bytes(content)
    elif damage == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "other":
        np.savez(path, something=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, qoe=np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"table\.npz: this is not a table of QoE, or"):
        QoETable.load(path)


def test_a_missing_file_and_a_table_with_nan(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: there is no such table"):
        QoETable.load(tmp_path / "none.npz")
    table = make_table(np.full((1, 2, 1, 1), 0.5))
    table.save(tmp_path / "t.npz")
    content = dict(np.load(tmp_path / "t.npz"))
    content["qoe"][0, 1] = np.nan
    np.savez(tmp_path / "t.npz", **content)
    with pytest.raises(InputError, match=r"t\.npz: user 'u0', request 'r1'.*QoE nan"):
        QoETable.load(tmp_path / "t.npz")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.01, 1.01])
def test_impossible_qoe_never_enters(bad):
    qoe = np.full((1, 2, 2, 1), 0.5)
    qoe[0, 1, 0, 0] = bad
    with pytest.raises(InputError, match="user 'u0', request 'r1', provider 'p0', sample 0: QoE"):
        make_table(qoe)
    valid = np.ones(qoe.shape, bool)
    valid[0, 1, 0, 0] = False
    assert make_table(qoe, valid).qoe[0, 1, 0, 0] == 0


def test_a_user_needs_a_provider_for_some_request_only():
    valid = np.ones((2, 3, 2, 1), bool)
    valid[1, 2] = False
    table = make_table(np.zeros(valid.shape), valid)
    assert table.served.tolist() == [[True] * 3, [True, True, False]]
    with pytest.raises(InputError, match="user 'u1' has no valid provider for request 'r2'"):
        table.require_served()
    valid[1] = False
    with pytest.raises(InputError, match="user 'u1' has no valid provider for any request"):
        make_table(np.zeros(valid.shape), valid)


def test_shapes_and_names():
    with pytest.raises(InputError, match="needs qoe and valid of shape"):
        make_table(np.zeros((1, 2, 3, 1)), np.ones((1, 2, 3, 2), bool))
    with pytest.raises(InputError, match="user 'a' is in the table twice"):
        QoETable(
            np.ones((2, 1, 1, 1)), np.ones((2, 1, 1, 1)), ("a", "a"), ("r",), ("p",), "j", False
        )


def test_arrays_are_read_only_copies():
    qoe = np.full((1, 1, 1, 1), 0.5, np.float32)
    table = make_table(qoe)
    qoe[:] = 1
    assert table.qoe.item() == 0.5
    with pytest.raises(ValueError, match="read-only"):
        table.qoe[:] = 1


class TinyCatalog:
    requests = ("r0", "r1")
    providers = ("p0", "p1")

    def offers(self, request, provider):
        return True


POPULATION = Population(tuple(Persona(name, (3.0,) * 5) for name in ("ann", "ben")))
SETTING = {
    "population": POPULATION,
    "catalog": TinyCatalog(),
    "scale": named_scale("1-5"),
    "judge": JudgeIdentity("test", {"seed": 1}, stand_in=True),
}


def test_from_answers_lays_cells_in_c_order_and_masks_the_rest():
    answers = [Rated(1 + i / 4) for i in range(16)]
    answers[3] = Invalid("no picture")
    answers[4] = Failed("timeout")
    table = QoETable.from_answers(answers, **SETTING, samples=2)
    expected = np.arange(16) / 16
    expected[[3, 4]] = 0
    np.testing.assert_allclose(table.qoe, expected.reshape(2, 2, 2, 2))
    assert np.flatnonzero(~table.valid.ravel()).tolist() == [3, 4]
    assert table.users == ("ann", "ben")
    described = SETTING["judge"].describe()
    assert (table.judge, table.stand_in) == (
        f"{described}; 2 of 16 answers are missing (1 invalid, 1 failed), masked",
        True,
    )


@pytest.mark.parametrize("bad", [float("nan"), 0.9, 5.1, float("inf")])
def test_ratings_off_the_scale(bad):
    answers = [Rated(3.0)] * 8
    answers[6] = Rated(bad)
    with pytest.raises(
        InputError,
        match=rf"judge 'test' answered {bad:g}, which .*'1-5'.* user 'ben', request 'r1', provider",
    ):
        QoETable.from_answers(answers, **SETTING)


def test_from_answers_without_any_answer_for_a_user():
    answers = [Rated(3.0)] * 4 + [Failed("timeout")] * 4
    with pytest.raises(InputError, match=r"user 'ben' has no valid provider .* at all: timeout\.$"):
        QoETable.from_answers(answers, **SETTING)
    with pytest.raises(ValueError, match="7 answers do not fill"):
        QoETable.from_answers(answers[:7], **SETTING)


class HolesCatalog(TinyCatalog):
    """No picture of the first request by the second provider."""

    def offers(self, request, provider):
        return (request, provider) != (0, 1)


def answers_with_holes():
    """[2 users, 2 requests, 2 providers, 2 samples]; ann lacks one sample, ben a whole cell."""
    answers = np.empty((2, 2, 2, 2), object)
    for i, cell in enumerate(np.ndindex(answers.shape)):
        answers[cell] = Rated(1 + i / 4, valid_mass=0.5 + i / 40)
    answers[:, 0, 1] = Invalid("no picture")
    answers[0, 1, 0, 1] = Invalid("chatter")
    answers[1, 1, 1, 0] = answers[1, 1, 1, 1] = Failed("timeout")
    return answers


HOLES = SETTING | {"catalog": HolesCatalog(), "samples": 2}


def test_a_pair_without_a_picture_is_no_missing_answer():
    answers = [Rated(3.0 + i % 2) for i in range(16)]
    for i in (2, 3, 10, 11):
        answers[i] = Invalid("no picture")
    table = QoETable.from_answers(answers, **HOLES, on_missing="raise")
    assert table.judge == SETTING["judge"].describe()
    assert table.missing.sum() == 0
    assert not table.legal[:, 0, 1].any()


def test_missing_answers_raise():
    with pytest.raises(
        InputError,
        match=r"3 of 16 answers are missing \(1 invalid, 2 failed\); the first is user 'ann', "
        r"request 'r1', provider 'p0', sample 1: chatter\. Run again to ask failed questions anew, "
        r"or set on_missing to mask or impute\.$",
    ):
        QoETable.from_answers(list(answers_with_holes().flat), **HOLES, on_missing="raise")


def test_running_again_is_not_advised_where_no_question_would_be_asked_anew():
    answers = answers_with_holes()
    answers[1, 1, 1] = Invalid("chatter")
    with pytest.raises(
        InputError, match=r"sample 1: chatter\. Set on_missing to mask or impute\.$"
    ):
        QoETable.from_answers(list(answers.flat), **HOLES, on_missing="raise")


@pytest.mark.parametrize("on_missing", ["mask", "impute"])
def test_missing_answers_never_become_zero(on_missing):
    answers = answers_with_holes()
    table = QoETable.from_answers(list(answers.flat), **HOLES, on_missing=on_missing)
    rated = np.vectorize(lambda a: isinstance(a, Rated))(answers)
    ratings = np.vectorize(lambda a: a.rating if isinstance(a, Rated) else np.nan)(answers)
    qoe = (ratings - 1) / 4
    np.testing.assert_allclose(table.qoe[rated], qoe[rated])
    assert table.missing.tolist() == [[[0, 0], [1, 0]], [[0, 0], [0, 2]]]
    assert not table.valid[0, 1, 0, 1]  # the cell has its other sample
    assert table.mean[0, 1, 0] == pytest.approx(qoe[0, 1, 0, 0])
    assert table.legal[1, 1, 1] == (on_missing == "impute")
    if on_missing == "impute":
        provider_mean = np.nanmean(qoe[:, :, 1])
        assert table.mean[1, 1, 1] == pytest.approx(provider_mean)
        assert table.judge.endswith("cells without any rating imputed by the provider's mean")
    else:
        assert table.judge.endswith("3 of 16 answers are missing (1 invalid, 2 failed), masked")
    masses = np.vectorize(lambda a: a.valid_mass if isinstance(a, Rated) else np.nan)(answers)
    with np.errstate(all="ignore"):
        expected = np.nan_to_num(np.nansum(masses, -1) / rated.sum(-1))
    np.testing.assert_allclose(table.valid_mass, expected, rtol=1e-6)


def test_a_provider_without_any_rating_cannot_be_imputed():
    answers = answers_with_holes()
    answers[:, :, 1] = Failed("timeout")
    table = QoETable.from_answers(list(answers.flat), **HOLES, on_missing="impute")
    assert not table.legal[:, :, 1].any()


def test_what_is_missing_goes_with_the_table(tmp_path):
    answers = list(answers_with_holes().flat)
    table = QoETable.from_answers(answers, **HOLES)
    table.save(tmp_path / "t.npz")
    for name in ("valid_mass", "missing"):
        stored = getattr(QoETable.load(tmp_path / "t.npz"), name)
        assert np.array_equal(stored, getattr(table, name))
        part = getattr(table.select(users=["ben"], requests=["r1"]), name)
        assert np.array_equal(part, getattr(table, name)[1:, 1:])
    with pytest.raises(InputError, match="missing has the shape"):
        replace(table, missing=np.zeros((1, 2, 2)))


def test_what_is_not_rated_alike_everywhere_is_worth_what_a_random_choice_gives_there():
    """p0 has .90 on one request, p1 .95 and .50: alone p0 is worth (.90 + .50) / 2."""
    valid = np.array([[[[True], [True]], [[False], [True]]]])
    references = make_table([[[[0.9], [0.95]], [[0.0], [0.5]]]], valid).references()
    assert references["providers"] == pytest.approx({"p0": 0.7, "p1": 0.725})
    assert references["optimum"] == pytest.approx(0.725)
    assert references["random"] == pytest.approx(0.7125)


def test_a_table_is_standardised_by_the_level_and_spread_of_another():
    train = make_table([[[[0.2], [0.4]]], [[[0.5], [0.5]]]])
    test = make_table([[[[0.4], [0.6]]], [[[0.1], [0.9]]]])
    expected = [[[0.84134475, 0.9986501]], [[0.5, 0.5]]]  # 1 and 3 spreads up; no spread
    np.testing.assert_allclose(test.standardised(by=train).qoe[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_different_samples_are_joined_again(seed):
    rng = np.random.default_rng(seed)
    table = make_table(rng.random((3, 6, 2, 2)), rng.random((3, 6, 2, 2)) > 0.05)
    first, second = table.split_requests(0.5, seed)
    again = first.join(second, table.requests)
    assert again.requests == table.requests
    for name in ("qoe", "valid", "valid_mass", "missing"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    single = replace(second, qoe=second.mean[..., None], valid=second.legal[..., None])
    mixed = first.join(single, table.requests)
    np.testing.assert_allclose(mixed.mean, table.mean, atol=1e-7)
    assert not mixed.valid[:, [table.requests.index(r) for r in second.requests], :, 1].any()


def test_equal_repeats_of_a_judge_that_does_not_draw_are_one_answer():
    ratings = np.random.default_rng(0).integers(1, 6, (2, 2, 2))
    once = QoETable.from_answers([Rated(float(r)) for r in ratings.flat], **SETTING)
    often = [Rated(float(r)) for r in ratings.flat for _ in range(3)]
    table = QoETable.from_answers(often, **SETTING, samples=3)
    np.testing.assert_array_equal(table.qoe, once.qoe)
    assert table.judge.endswith("3 equal repeats of each question counted once")
    assert np.isnan(reliability(table).repeat_sd)  # or they would pass for perfect reliability
    np.testing.assert_array_equal(shrink(table).qoe, shrink(once).qoe)
    often[7] = Failed("timeout")  # a repeat that is missing changes nothing
    table = QoETable.from_answers(often, **SETTING, samples=3)
    assert (table.qoe.shape, table.missing.sum()) == ((2, 2, 2, 1), 0)
    often[7] = Rated(1.5)  # one that differs does
    assert QoETable.from_answers(often, **SETTING, samples=3).qoe.shape[-1] == 3


def test_a_gap_is_counted_in_the_description_of_the_judge():
    answers = [Rated(3.0)] * 8
    answers[2] = answers[3] = Invalid("no recorded score")
    table = QoETable.from_answers(answers, **SETTING)
    assert table.judge.endswith("masked, 1 of 4 user x request pairs without any rating")


def test_a_table_of_an_array_has_its_scores_and_a_hole_where_it_has_nan():
    scores = np.arange(24).reshape(2, 3, 4) / 24
    scores[1, 2, 3] = np.nan
    table = QoETable.from_array(scores)
    assert (table.qoe[..., 0] == np.nan_to_num(scores).astype(np.float32)).all()
    assert (table.legal == ~np.isnan(scores)).all()
    assert table.users == ("user 1", "user 2")
    assert table.requests == ("request 1", "request 2", "request 3")
    assert table.providers[-1] == "provider 4"
    assert not table.stand_in


def test_a_table_of_an_array_takes_samples_names_and_a_mask():
    scores, valid = np.full((1, 2, 2, 3), 0.25), np.ones((1, 2, 2, 3), bool)
    scores[0, 0, 0, 0], valid[0, 0, 0, 0] = np.inf, False  # what a hole holds is not looked at
    table = QoETable.from_array(
        scores.tolist(), users=["ann"], requests=["a", "b"], providers=["x", "y"],
        valid=valid, judge="a panel",
    )  # fmt: skip
    assert (table.users, table.requests, table.providers) == (("ann",), ("a", "b"), ("x", "y"))
    assert (table.valid == valid).all()
    assert table.mean.tolist() == [[[0.25, 0.25], [0.25, 0.25]]]
    assert table.judge == "a panel"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"qoe": [[1]]}, r"qoe has the shape \[1, 1\]; give \[users, requests, providers\] or"),
        ({"qoe": np.ones((0, 1, 1))}, "none of them 0"),
        ({"qoe": "good"}, "qoe: not an array of numbers"),
        ({"qoe": [[[1.5]]]}, r"user 'user 1'.* QoE 1.5 is not in \[0, 1\]"),
        ({"qoe": [[[np.nan]]]}, "user 'user 1' has no valid provider"),
        ({"users": ["a", "b"]}, "users: 2 names for 1; give one for each"),
        ({"providers": ["a", "a"]}, "provider 'a' is in the table twice"),
        ({"valid": [True]}, r"valid has the shape \[1\] and qoe \[1, 1, 2\]"),
        ({"qoe": [[[np.nan, 1]]], "valid": [[[True, True]]]}, "QoE nan is not in"),
    ],
)
def test_an_array_that_is_no_table_is_one_sentence(given, says):
    with pytest.raises(InputError, match=says):
        QoETable.from_array(**({"qoe": [[[0.5, 0.5]]]} | given))


def test_a_table_shows_its_shape_judge_and_holes_and_no_arrays():
    scores = np.full((5, 40, 4), 0.5)
    scores[0, 0, 0] = np.nan
    assert repr(QoETable.from_array(scores, judge="a panel")) == (
        "QoETable(5 users x 40 requests x 4 providers x 1 samples, 1 holes, 0 predicted, "
        "judge='a panel')"
    )
