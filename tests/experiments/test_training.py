"""Training in chunks with checkpoints: nothing that a run ends with depends on how it got there."""

import asyncio
import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from probe_envs import ConstantReward

from rlli_jax.envs.policy import Policy
from rlli_jax.envs.provider_selection import ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.experiments import memory
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.training import train
from rlli_jax.learners.core import Learner
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo

SEEDS, ITERATIONS = 3, 7
KEY = jax.random.key(1)


@struct.dataclass
class State:
    key: jax.Array  # typed
    place: jax.Array  # [2] float32
    steps: jax.Array  # [] int32
    seen: jax.Array  # [4] bool


def random_walk() -> Learner:
    """A made-up learner with every kind of leaf that a real state has: cheap to compile."""

    def init(key, hyperparams, env_params):
        key, start = jax.random.split(key)
        place = jax.random.normal(start, (2,)) * hyperparams
        return State(key, place, jnp.int32(0), jnp.zeros(4, bool))

    def step(state, env_params):
        key, move = jax.random.split(state.key)
        place = state.place + env_params * jax.random.normal(move, (2,))
        seen = state.seen.at[state.steps % 4].set(place[0] > 0)
        metrics = {
            "place": place.sum(),
            "episode_return": jnp.where(state.steps % 2 == 0, place[0], jnp.nan),
        }
        return State(key, place, state.steps + 1, seen), metrics

    return Learner(init, step, lambda state: Policy((), lambda *_: (jnp.int32(0), ())), 1)


def trained(folder, chunk, iterations=ITERATIONS, progress=lambda iteration, metrics: None):
    return train(
        random_walk(),
        jnp.float32(0.5),
        jnp.float32(0.1),
        jax.random.split(jax.random.key(1), SEEDS),
        iterations,
        chunk,
        Checkpoints(folder),
        progress,
    )


def leaves(result):
    state = result.state.replace(key=jax.random.key_data(result.state.key))
    return [np.asarray(x) for x in jax.tree.leaves((state, result.metrics))]


def assert_same(first, second):
    assert jax.tree.structure(first.state) == jax.tree.structure(second.state)
    for a, b in zip(leaves(first), leaves(second), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("go") / "c", ITERATIONS)


def test_metrics_are_those_of_a_loop_by_hand(in_one_go):
    learner = random_walk()
    for seed, key in enumerate(jax.random.split(jax.random.key(1), SEEDS)):
        state, places = learner.init(key, jnp.float32(0.5), None), []
        for _ in range(ITERATIONS):
            state, metrics = learner.step(state, jnp.float32(0.1))
            places.append(float(metrics["place"]))
        np.testing.assert_allclose(in_one_go.metrics["place"][seed], places, rtol=1e-5, atol=1e-6)
    assert in_one_go.metrics["place"].shape == (SEEDS, ITERATIONS)
    assert in_one_go.metrics["place"].dtype == np.float32
    assert np.isnan(in_one_go.metrics["episode_return"][:, 1::2]).all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_results_do_not_depend_on_the_chunk(tmp_path, in_one_go, chunk):
    told = []
    result = trained(tmp_path / "c", chunk, progress=lambda done, _: told.append(done))
    assert_same(result, in_one_go)
    assert told == [*range(chunk, ITERATIONS, chunk), ITERATIONS]


class Crash(BaseException):
    """As sudden as an interrupt from the keyboard."""


@pytest.mark.parametrize("crash_at", [2, 4, 7])
def test_a_crash_loses_at_most_a_chunk_and_no_bit(tmp_path, in_one_go, crash_at):
    def crash(done, _):
        if done >= crash_at:
            raise Crash

    with pytest.raises(Crash):
        trained(tmp_path / "c", 2, progress=crash)
    assert Checkpoints(tmp_path / "c").latest() == crash_at
    told = []
    result = trained(tmp_path / "c", 2, progress=lambda done, _: told.append(done))
    assert told[0] == crash_at
    assert_same(result, in_one_go)
    assert result.train_seconds > 0


SMALL = {"num_envs": 2, "num_steps": 4, "hidden": (4,)}
REPLAY = {**SMALL, "buffer_size": 16, "batch_size": 4, "warm_up": 4}
RECURRENT = {**SMALL, "memory": 3, "num_minibatches": 1, "num_epochs": 1}


@pytest.mark.parametrize(
    ("make", "config", "hyperparams"),
    [
        pytest.param(ppo, PPOConfig(**RECURRENT), PPOHyperparams(), id="ppo-gru"),
        pytest.param(
            dqn, DQNConfig(**REPLAY, prioritized=True, quantiles=3), DQNHyperparams(), id="dqn"
        ),
    ],
)
def test_a_learner_goes_on_bit_for_bit(tmp_path, make, config, hyperparams):
    """With optimiser, buffer, priorities, memory and episodes that have begun."""
    env = ProviderSelection(assignment="sequential")
    arguments = (make(env, config), hyperparams, env.default_params, jax.random.split(KEY, 2), 4, 2)

    def stop(done, _):
        if done == 2:
            raise Crash

    whole = train(*arguments, Checkpoints(tmp_path / "whole"), lambda *_: None)
    with pytest.raises(Crash):
        train(*arguments, Checkpoints(tmp_path / "c"), stop)
    result = train(*arguments, Checkpoints(tmp_path / "c"), lambda *_: None)

    def numbers(x):
        keys = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if keys else x)

    for a, b in zip(*map(jax.tree.leaves, (whole.state, result.state)), strict=True):
        np.testing.assert_array_equal(numbers(a), numbers(b))
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(values, result.metrics[name])


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_checkpoint_is_written_is_not_lost(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save = checkpoints._checkpointer.save

    async def stop():
        os.kill(os.getpid(), signal.SIGINT)

    def interrupted(*arguments):
        save(*arguments)
        asyncio.run(stop())

    monkeypatch.setattr(checkpoints._checkpointer, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(3, {"x": jnp.ones(2)})
    assert checkpoints.latest() == 3


def test_only_the_newest_checkpoint_stays(tmp_path):
    trained(tmp_path / "c", 2)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [str(ITERATIONS), "settings.json"]


def test_an_unfinished_checkpoint_does_not_count(tmp_path, in_one_go):
    trained(tmp_path / "c", 2, iterations=4)
    partial = tmp_path / "c" / "6.orbax-checkpoint-tmp"  # as orbax names it until it is whole
    partial.mkdir()
    assert Checkpoints(tmp_path / "c").latest() == 4
    assert_same(trained(tmp_path / "c", 2), in_one_go)
    assert not partial.exists()


def test_a_training_that_is_done_is_not_repeated(tmp_path):
    first = trained(tmp_path / "c", 3)
    again = trained(tmp_path / "c", 3)
    assert_same(again, first)
    assert again.train_seconds == pytest.approx(first.train_seconds, rel=1e-6)


def empty(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def cut(path):
    for file in path.rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-20])


def remove_metadata(path):
    (path / "_METADATA").unlink()


@pytest.mark.parametrize("damage", [empty, cut, remove_metadata])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, damage):
    trained(tmp_path / "c", 2, iterations=4)
    damage(tmp_path / "c" / "4")
    with pytest.raises(InputError) as error:
        trained(tmp_path / "c", 2)
    message = str(error.value)
    assert message.startswith(f"checkpoint {tmp_path / 'c' / '4'} is damaged (")
    assert message.endswith("remove that folder to train this policy from its start.")
    assert "\n" not in message


def test_the_checkpoint_of_something_else_is_one_sentence(tmp_path):
    path = tmp_path / "c"
    Checkpoints(path).save(4, {"state": jnp.zeros(3)})
    with pytest.raises(InputError, match="is whole, but its arrays are not those") as error:
        trained(path, 2)
    assert "remove" not in str(error.value)


def test_a_full_disk_is_one_sentence_and_more_space_ends_it_well(
    small_disk, in_one_go, caplog, capfd
):
    disk, enlarge = small_disk("32k")  # a checkpoint takes more
    with pytest.raises(InputError, match=r"checkpoint .*/2 cannot be written: the disk .* is full"):
        trained(disk / "c", 2)
    assert not caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert [p.name for p in (disk / "c").iterdir()] == ["settings.json"]
    enlarge("8m")
    assert_same(trained(disk / "c", 2), in_one_go)
    assert sorted(p.name for p in (disk / "c").iterdir()) == [str(ITERATIONS), "settings.json"]


def test_a_read_only_disk_is_one_sentence_at_once(tmp_path, read_only, in_one_go):
    trained(tmp_path / "c", 2, iterations=4)
    undo = read_only(tmp_path / "c")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"checkpoint .*/6 cannot be written: .* is read-only"):
        trained(tmp_path / "c", 2)
    assert time.monotonic() - started < 60
    undo()
    assert_same(trained(tmp_path / "c", 2), in_one_go)


@pytest.fixture
def setting():
    """Changes settings of JAX until the end of the test."""
    before = {}

    def change(name, value):
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield change
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "of an earlier version"])
@pytest.mark.parametrize(
    ("name", "value"), [("jax_enable_x64", True), ("jax_default_prng_impl", "rbg")]
)
def test_other_settings_are_refused_and_the_checkpoint_is_kept(
    tmp_path, in_one_go, setting, name, value, recorded
):
    path = tmp_path / "c"
    trained(path, 2, iterations=4)
    if not recorded:
        (path / "settings.json").unlink()
    before = getattr(jax.config, name)
    setting(name, value)
    with pytest.raises(InputError) as error:
        trained(path, 2)
    assert name.upper() in str(error.value)
    assert "remove" not in str(error.value)
    if recorded:
        assert f"set {name.upper()}={before} to go on" in str(error.value)
    setting(name, before)
    assert_same(trained(path, 2), in_one_go)


def walking_until(change):
    """The random walk, whose step is changed by ``change(state before, state, metrics)``."""
    walk = random_walk()

    def step(state, env_params):
        return change(state, *walk.step(state, env_params))

    return walk._replace(step=step)


def diverging(state, after, metrics):
    """The second seed's loss is no number from its fifth iteration on."""
    second = jax.random.key_data(jax.random.split(KEY, SEEDS))[1]
    # The seed of a run is in its first place alone, so the place tells them apart.
    place = jax.random.normal(jax.random.split(jax.random.wrap_key_data(second))[1], (2,)) * 0.5
    far = jnp.where(state.steps == 0, (state.place == place).all(), state.seen[3])
    loss = jnp.where(far & (state.steps >= 4), jnp.nan, 1.0)
    return after.replace(seen=after.seen.at[3].set(far)), metrics | {"loss": loss}


def test_losses_that_are_no_numbers_stop_the_training_before_its_checkpoint(tmp_path):
    def run(iterations):
        keys = jax.random.split(KEY, SEEDS)
        learner = walking_until(diverging)
        start, rate = jnp.float32(0.5), jnp.float32(0.1)
        return train(learner, start, rate, keys, iterations, 2, Checkpoints(tmp_path / "walk"))

    with pytest.raises(InputError) as error:
        run(ITERATIONS)
    assert str(error.value).startswith(
        "policy walk: loss are no numbers from iteration 5 on, in 1 of 3 seeds (seed 1 first): "
    )
    assert str(error.value).endswith("the checkpoint of iteration 4, which is sound, stays.")
    assert np.isfinite(run(4).metrics["loss"]).all()


@struct.dataclass
class Learning:
    params: jax.Array
    steps: jax.Array


def counter(params, episode_return, episodes):
    """A learner whose parameters and returns are as given, by the number of steps."""

    def init(key, hyperparams, env_params):
        return Learning(jnp.zeros(2), jnp.int32(0))

    def step(state, env_params):
        metrics = {"episode_return": episode_return(state.steps), "episodes": episodes(state.steps)}
        return Learning(params(state.steps), state.steps + 1), metrics

    return Learner(init, step, lambda state: Policy((), lambda *_: (jnp.int32(0), ())), 1)


def count(folder, learner):
    keys = jax.random.split(KEY, 2)
    return train(learner, jnp.float32(0), jnp.float32(0), keys, 4, 4, Checkpoints(folder))


def test_a_mean_return_of_no_episode_is_no_fault(tmp_path):
    learner = counter(lambda n: jnp.ones(2), lambda n: jnp.nan, lambda n: 0)
    assert np.isnan(count(tmp_path / "c", learner).metrics["episode_return"]).all()


@pytest.mark.parametrize(
    ("learner", "name"),
    [
        (counter(lambda n: jnp.ones(2), lambda n: jnp.nan, lambda n: n // 3), "episode_return"),
        (counter(lambda n: jnp.array([1, jnp.inf]), lambda n: 1.0, lambda n: 1), "parameters"),
    ],
)
def test_returns_and_parameters_that_are_no_numbers_are_found(tmp_path, learner, name):
    with pytest.raises(InputError, match=f"policy c: {name} are .* iteration 4 on, in 2 of 2 seed"):
        count(tmp_path / "c", learner)
    assert Checkpoints(tmp_path / "c").latest() is None


class NotANumber(ConstantReward):
    """The reward is no number once in an episode."""

    length = 3

    def reward(self, state, action):
        return jnp.where(state.time == 1, jnp.nan, 1.0)


class NothingSeen(ConstantReward):
    """The observation is no number at the second step of an episode."""

    length = 2

    def observe(self, key, state, action, params):
        return jnp.array([state.sign, jnp.where(state.time > 0, jnp.nan, 0.0)])


@pytest.mark.parametrize("env", [NotANumber(), NothingSeen()])
def test_rewards_and_observations_that_are_no_numbers_are_reported(tmp_path, env):
    config = PPOConfig(num_envs=2, num_steps=4, num_minibatches=1, num_epochs=1, hidden=(4,))
    keys = jax.random.split(KEY, 2)
    with pytest.raises(
        InputError, match=r"policy PPO: .* no numbers from iteration 1 on, in 2 of 2"
    ):
        train(
            ppo(env, config),
            PPOHyperparams(total_iterations=3),
            env.default_params,
            keys,
            3,
            1,
            Checkpoints(tmp_path / "PPO"),
        )


def test_memory_that_does_not_suffice_is_one_sentence_before_it_is_taken(tmp_path):
    env = ProviderSelection()
    config = DQNConfig(
        num_envs=4, num_steps=4, buffer_size=2**31 - 2**10, batch_size=16, warm_up=64
    )
    keys = jax.random.split(KEY, 2)
    with pytest.raises(
        InputError, match=r"policy DQN needs .* GB for its state \(.* GB of them for state.*buffer"
    ):
        train(
            dqn(env, config),
            DQNHyperparams(total_iterations=2),
            env.default_params,
            keys,
            2,
            2,
            Checkpoints(tmp_path / "DQN"),
        )
    assert not (tmp_path / "DQN").exists()


def test_a_container_may_use_what_it_is_given_and_the_cache_of_files_is_no_use(
    monkeypatch, tmp_path
):
    read_text = Path.read_text

    def read(path, *args, **options):
        given = {
            "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4000 kB\n",
            "/sys/fs/cgroup/memory.max": "3000000",
            "/sys/fs/cgroup/memory.current": "2500000",
            "/sys/fs/cgroup/memory.stat": "anon 9\nactive_file 500000\ninactive_file 1000000\n",
        }
        return given.get(str(path)) or read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.free_bytes() == 2_000_000
    memory.require_memory("policy A", jnp.zeros(400_000))
    with pytest.raises(InputError, match=r"policy A needs 0\.0 GB .* but 0\.0 GB are free"):
        memory.require_memory("policy A", {"a": jnp.zeros(600_000)})
