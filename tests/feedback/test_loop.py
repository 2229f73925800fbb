"""The simulated loop: what feedback is worth to a policy that was trained on a judge."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.feedback.loop import World, cold, features, judged, simulate, trained


@pytest.fixture(scope="module")
def qoe():
    """Mean QoE over the first and last 500 of 5,000 requests: cold, and two judges with feedback
    and frozen; 3 seeds of each. And what each person's best is worth."""
    rng = np.random.default_rng(0)
    traits = rng.uniform(1, 5, (50, 5))
    x = features(jnp.asarray(traits, jnp.float32))
    people = 0.5 + np.asarray(x) @ rng.normal(0, 0.1, (6, 3))
    right, wrong = (judged(x, jnp.asarray(table)) for table in (people, 1 - people))
    starts = [cold(3, 6), *(trained(w, learns) for w in (right, wrong) for learns in (True, False))]
    world = World(x, jnp.asarray(people, jnp.float32), jnp.float32(0.15))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def program(keys, starts):
        return jax.vmap(lambda s: jax.vmap(lambda k: simulate(k, s, world, 5_000))(keys))(starts)

    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    for seed in (0, 1):  # compiled once
        result = program(jax.random.split(jax.random.key(seed), 3), together)
    windows = np.asarray(result).mean(1)  # [starts, batches]
    ends = windows[:, :10].mean(1), windows[:, -10:].mean(1)
    return *ends, float(people.max(1).mean())


def test_a_right_judge_saves_the_beginning_and_a_wrong_one_is_forgotten(qoe):
    first, last, best = qoe
    cold_start, right, right_frozen, wrong, wrong_frozen = range(5)
    assert first[right] > first[cold_start] + 0.01
    assert last[right] == pytest.approx(best, abs=0.015)
    assert last[right_frozen] == pytest.approx(best, abs=0.015)
    assert last[wrong_frozen] < best - 0.1  # what it believes is wrong, and it never learns
    assert last[wrong] == pytest.approx(last[cold_start], abs=0.01)
    assert (last <= best + 0.01).all()
