"""Single figures: what is drawn is what the data say."""

import matplotlib
import numpy as np
import pytest

from rlli_jax.report import figures, load_run, style


@pytest.fixture
def run(run_dir):
    with matplotlib.rc_context(style.STYLE):
        yield load_run(run_dir)


def test_curves_are_nan_safe_and_their_lines_scale_with_rounds(run):
    drawn = list(figures.learning_curves(run))
    assert len(drawn) == 2
    limits = set()
    for _, _, figure in drawn:
        (axes,) = figure.axes
        limits.add(axes.get_ylim())
        levels = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
        reference = run.reference
        expected = [reference.random, reference.best_single, reference.optimum]
        np.testing.assert_allclose(levels, 10 * np.array(expected))
        smoothed = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert [line.get_label()[:3] for line in smoothed] == ["PPO", "DQN"]
        assert all(np.isfinite(line.get_ydata()).sum() >= 29 for line in smoothed)
    assert len(limits) == 1


def test_bars_are_mean_qoe_and_ticks_each_users_optimum(run):
    (axes,) = figures.user_bars(run).axes
    bars, errors = axes.containers[0], axes.containers[1]
    ppo = run.policies[0]
    np.testing.assert_allclose([bar.get_height() for bar in bars], ppo.qoe.mean(0))
    assert len(axes.containers) == 2 * len(run.policies)
    ends = np.array(errors.lines[2][0].get_segments())[:, :, 1]
    half = 2.776445105197793 * ppo.qoe.std(0, ddof=1) / np.sqrt(5)  # t(0.975; 4 degrees)
    np.testing.assert_allclose(ends, np.stack([ppo.qoe.mean(0) - half, ppo.qoe.mean(0) + half], 1))
    optimum = axes.collections[-1].get_segments()
    np.testing.assert_allclose([line[0, 1] for line in optimum], run.table.provider_values.max(1))


def test_variants_of_one_learner_in_one_setting_look_different(run):
    ppo, *others = run.policies
    variants = [ppo, *(ppo.model_copy(update={"name": f"variant {i}"}) for i in range(2)), *others]
    looks = figures.policy_looks(variants)
    assert len(set(looks.values())) == len(variants)
    assert {looks[p.name].colour for p in variants[:3]} == {looks[ppo.name].colour}


def test_choice_maps_show_shares_and_outline_the_best(run):
    drawn = [axes for axes in figures.choice_maps(run).axes if axes.get_visible()]
    assert len(drawn) == len(run.policies)
    optimal, best = drawn[-1], run.table.provider_values.argmax(1)
    assert optimal.get_title(loc="left") == "Optimal"
    shown = np.array([int(text.get_text()) for text in optimal.texts[:6]]).reshape(2, 3)
    np.testing.assert_array_equal(shown, 100 * np.eye(3)[best])
    assert [text.get_text() for text in optimal.texts[6:]] == ["Vivid", "Film", "Monochrome"]
    outlined = [patch for patch in optimal.patches if not patch.get_fill() or
                patch.get_facecolor()[3] == 0]  # fmt: skip
    corners = [(round(patch.get_x() + 0.46), round(patch.get_y() + 0.46)) for patch in outlined]
    assert corners == [(provider, user) for user, provider in enumerate(best)]


def test_profiles_show_every_trait(run):
    drawn = figures.profiles(run).axes
    for axes, traits in zip(drawn, run.traits, strict=True):
        np.testing.assert_allclose(axes.lines[1].get_xdata(), traits)


def test_labels_that_would_collide_move_apart():
    assert figures._spread([0.0, 1.0, 1.01], 0.1) == pytest.approx([0.0, 1.0, 1.1])
