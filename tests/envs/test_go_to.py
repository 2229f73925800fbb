"""GoTo against minigrid, what instructions mean, and what an encoder makes of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlli_jax.envs.chance import digits
from rlli_jax.envs.go_to import GoTo
from rlli_jax.envs.go_to.env import ACTIONS, EnvState
from rlli_jax.envs.go_to.instructions import COLOURS, KINDS, SPLITS, THINGS, goals, told
from rlli_jax.envs.go_to.parts import CELLS, PARTS, VIEW
from rlli_jax.envs.go_to.rooms import draw_rooms, reachable
from rlli_jax.errors import InputError

SEEN = {name: i for i, name in enumerate(("unseen", "empty", "wall", "door", "floor", *THINGS))}


@pytest.fixture(scope="module", params=[("all", 7), ("then", 3)])
def env(request):
    # minigrid takes a second thing that is carried off for still being there; it is not, here.
    instructions, actions = request.param
    return GoTo(instructions=instructions, actions=actions, observation=tuple(PARTS))


def played(env, episodes, steps):
    """States and actions of random play, as NumPy arrays [steps, episodes]; it goes on after a
    success, which minigrid does too."""
    params = env.default_params

    def step(state, key):
        action = jax.random.randint(key, (episodes,), 0, env.num_actions)
        result = jax.vmap(lambda s, a: env.step_env(None, s, a, params))(state, action)
        return result[1], (state, action, *result)

    keys = jax.random.split(jax.random.key(3), steps + 1)
    _, start = jax.vmap(env.reset_env, (0, None))(jax.random.split(keys[0], episodes), params)
    return jax.tree.map(
        np.asarray, jax.jit(lambda s, k: jax.lax.scan(step, s, k)[1])(start, keys[1:])
    )


def test_every_step_and_view_equals_minigrid(env):
    gymnasium = pytest.importorskip("gymnasium", reason="minigrid's peer, gymnasium, is absent")
    pytest.importorskip("minigrid", reason="the minigrid package is absent")
    from minigrid.core.constants import COLOR_TO_IDX
    from minigrid.core.world_object import Ball, Box, Key
    from minigrid.envs.babyai.core.verifier import BeforeInstr, GoToInstr, ObjDesc

    peer = gymnasium.make("BabyAI-GoToLocal-v0").unwrapped
    peer.reset(seed=0)
    # minigrid gives 64 steps for each goal.
    peer.max_steps *= env.default_params.goals.shape[1]
    assert peer.max_steps == env.default_params.max_steps_in_episode
    make = dict(zip(THINGS, (Key, Ball, Box), strict=True))
    before, actions, seen, after, reward, terminated, _ = played(env, 60, 60)
    truncated = np.asarray(
        jax.vmap(jax.vmap(lambda s: env.is_truncated(s, env.default_params)))(after)
    )
    happened = set()
    for episode in range(60):
        state = jax.tree.map(lambda x, e=episode: x[0, e], before)
        for x in range(1, 7):
            for y in range(1, 7):
                peer.grid.set(x, y, None)
        things = []
        for cell, kind in zip(state.cell, state.kind, strict=True):
            thing = make[THINGS[kind % 3]](COLOURS[kind // 3])
            peer.grid.set(cell % 6 + 1, cell // 6 + 1, thing)
            thing.cur_pos = cell % 6 + 1, cell // 6 + 1
            things.append(thing)
        peer.agent_pos = (state.agent % 6 + 1, state.agent // 6 + 1)
        peer.agent_dir, peer.carrying, peer.step_count = int(state.direction), None, 0
        wanted = np.asarray(env.default_params.goals[state.instruction])
        parts = [GoToInstr(ObjDesc(THINGS[kind % 3], COLOURS[kind // 3])) for kind in wanted]
        peer.instrs = BeforeInstr(*parts) if len(parts) == 2 else parts[0]
        peer.instrs.reset_verifier(peer)
        for t in range(60):
            result = peer.step(int(actions[t, episode]))
            ours = (reward[t, episode], terminated[t, episode], truncated[t, episode])
            assert tuple(result[1:4]) == (pytest.approx(ours[0]), ours[1], ours[2])
            now = jax.tree.map(lambda x, t=t, e=episode: x[t, e], after)
            assert tuple(map(int, peer.agent_pos)) == (now.agent % 6 + 1, now.agent // 6 + 1)
            assert peer.agent_dir == now.direction
            assert (peer.carrying is None) == (now.carried < 0)
            if now.carried >= 0:
                assert peer.carrying is things[now.carried]
                happened.add("carried")
            happened |= {
                "gone"
                for c, i in zip(now.cell, range(8), strict=True)
                if c < 0 and i != now.carried
            }
            np.testing.assert_array_equal(
                view(seen[t, episode]), minigrid_view(result[0]["image"], COLOR_TO_IDX)
            )
            if ours[1]:
                break
        happened.add(bool(ours[1]))
    handled = {"carried", "gone"} if env.num_actions == len(ACTIONS) else set()
    assert happened == {True, False} | handled


def view(observation):
    """Things and walls of each cell, as [49, 10]: colours, things, wall."""
    blocked, looks = observation[:CELLS], observation[2 * CELLS : 11 * CELLS].reshape(9, CELLS)
    return np.concatenate([looks.T, (blocked - looks[6:].sum(0))[:, None]], -1)


def minigrid_view(image, colours):
    found = np.zeros((CELLS, 10))
    for cell in range(CELLS):
        thing, colour, _ = image[cell % VIEW, VIEW - 1 - cell // VIEW]
        found[cell, 9] = thing == SEEN["wall"]
        if thing >= SEEN["key"]:
            found[
                cell,
                [
                    COLOURS.index(next(c for c, i in colours.items() if i == colour)),
                    6 + thing - SEEN["key"],
                ],
            ] = 1
    return found


def test_rooms_are_drawn_as_minigrid_draws_them():
    rooms = draw_rooms(20_000, 8, 0)
    x, y = rooms % 6, rooms // 6
    assert (abs(x[:, :1] - x[:, 1:]) + abs(y[:, :1] - y[:, 1:]) >= 2).all()
    assert all(len(set(room)) == 9 for room in rooms[:500].tolist())
    assert reachable(rooms).all()
    # The corner of two things is shut: (0, 0) behind (1, 0) and (0, 1); the agent is elsewhere.
    assert reachable(np.array([[20, 0, 1, 6], [20, 0, 1, 7]])).tolist() == [False, True]
    few = draw_rooms(40_000, 1, 1)[:, 0]
    np.testing.assert_allclose(np.bincount(few, minlength=36) / 40_000, 1 / 36, atol=0.004)
    with pytest.raises(InputError, match="objects is 40; a room takes 1 to 16"):
        draw_rooms(1, 40, 0)
    with pytest.raises(InputError, match="seed is -1; it must be at least 0"):
        draw_rooms(1, 1, -1)


def test_an_episode_has_what_its_instruction_asks_for():
    env = GoTo(objects=3, instructions="held_out")
    params = env.default_params
    keys = jax.random.split(jax.random.key(0), 6_000)
    _, state = jax.jit(jax.vmap(env.reset_env, (0, None)))(keys, params)
    wanted = params.goals[state.instruction] == state.kind
    assert wanted.any(1).all()
    # Each thing is asked for alike, and the others are of any kind.
    np.testing.assert_allclose(wanted.mean(0), 1 / 3 + 2 / 3 / 18, atol=0.02)
    share = np.bincount(np.asarray(state.kind)[~np.asarray(wanted)], minlength=18) / (~wanted).sum()
    asked = np.isin(np.arange(18), params.goals)  # in a sixth of the episodes none else is of it
    np.testing.assert_allclose(share, np.where(asked, 5 / 6, 1) / 17, atol=0.01)
    np.testing.assert_allclose(np.bincount(state.instruction) / 6_000, 1 / 6, atol=0.02)


def test_another_set_of_instructions_compiles_nothing_anew():
    env = GoTo(objects=2, instructions=["reach the red ball"])
    start = jax.jit(chex.assert_max_traces(lambda p: env.reset_env(jax.random.key(0), p), 1))
    start(env.default_params)
    start(GoTo(objects=2, instructions=["go to the blue key"], seed=1).default_params)


def test_a_step_at_the_end_begins_another_episode():
    env = GoTo(objects=2, instructions="all")
    params = env.default_params.replace(max_steps_in_episode=1)
    _, state = env.reset(jax.random.key(0), params)
    seen, after, _, _, truncated, info = env.step(jax.random.key(1), state, 0, params)
    assert truncated
    assert after.time == 0
    np.testing.assert_array_equal(seen, env.reset_env(jax.random.key(1), params)[0])
    last = env.step_env(jax.random.key(1), state, 0, params)
    np.testing.assert_array_equal(info["final_observation"], last[0])


def test_what_is_seen_is_the_same_on_every_backend(monkeypatch):
    parts = (tuple(PARTS), ("room", "things"))
    envs = [GoTo(objects=3, instructions="trained", observation=some) for some in parts]
    params = envs[0].default_params
    keys = jax.random.split(jax.random.key(0), 200)
    _, state = jax.jit(jax.vmap(envs[0].reset_env, (0, None)))(keys, params)
    state = state.replace(carried=jnp.where(jnp.arange(200) < 50, 1, -1))

    def seen():
        return [jax.jit(jax.vmap(lambda s, e=e: e.observe(s, params)))(state) for e in envs]

    here = seen()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for ours, theirs in zip(here, seen(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_word_of_chance_holds_every_combination_alike():
    found = jnp.stack(digits(jnp.arange(4 * 18 * 3, dtype=jnp.uint32), (4, 18, 3)))
    assert len(np.unique(found, axis=1).T) == 4 * 18 * 3
    assert found.min(1).tolist() == [0, 0, 0]
    assert found.max(1).tolist() == [3, 17, 2]


def test_splits_hold_out_pairs_of_known_words():
    asked = {name: {goals(text)[0] for text in texts} for name, texts in SPLITS.items()}
    assert asked["trained"].isdisjoint(asked["held_out"])
    assert asked["trained"] | asked["held_out"] == asked["all"] == set(range(18))
    assert asked["synonyms"] == asked["other_words"] == asked["trained"]
    for name in ("trained", "held_out"):
        assert {k // 3 for k in asked[name]} == set(range(6))
        assert {k % 3 for k in asked[name]} == set(range(3))
    assert goals("Walk to the azure sphere.") == (KINDS.index("blue ball"),)
    assert goals("go to the red key, then reach the red box") == (0, 2)


@pytest.mark.parametrize(
    ("instructions", "sentence"),
    [
        ([], "instructions is empty; give at least one"),
        ("most", "instructions 'most' are unknown; choose one of all, trained, held_out"),
        (
            ["go to the blue door"],
            "has the word 'door', which is unknown; name things by red, green",
        ),
        (["go to the ball"], "names no one goal in 'go to the ball'; name one colour"),
        (["go to the blue key for the red ball"], "names no one goal"),
        (["go"], "names no one goal"),
        (["go to the red key, then stop"], "has the word 'stop', which is unknown"),
        (["go to the red key then go"], "names no one goal in 'go'"),
        (["reach the red key", "reach the red key, then the red box"], "instructions of as many"),
        (["the red key then the red box then the red ball"], "has 3 parts; 2 at most"),
    ],
)
def test_an_instruction_that_cannot_be_followed_is_refused(instructions, sentence):
    with pytest.raises(InputError, match=sentence):
        GoTo(instructions=instructions)


def test_likeness_finds_what_is_meant():
    for split in ("trained", "held_out", "synonyms"):
        say = told(SPLITS[split], "hashing")
        assert (say.likeness.argmax(1) == say.goals[:, 0]).mean() > 0.9
        np.testing.assert_allclose(say.likeness.mean(1), 0, atol=1e-5)
    numbers = told(SPLITS["synonyms"], "one_hot")
    assert (numbers.likeness == 0).all()  # a number says nothing of what is meant
    assert (
        not (numbers.vectors[:, None] == told(SPLITS["trained"], "one_hot").vectors).all(-1).any()
    )


def test_a_view_does_not_show_what_is_behind():
    env = GoTo(objects=2, instructions=["go to the red key"], observation=("blocked", "likeness"))
    state = EnvState(
        time=jnp.int32(0), agent=jnp.int32(14), direction=jnp.int32(3), instruction=jnp.int32(0),
        cell=jnp.array([8, 20]), kind=jnp.array([0, 1]), carried=jnp.int32(-1),
        part=jnp.int32(0),
    )  # fmt: skip
    assert [x.tolist() for x in env.things(state)] == [[1, -1], [0, 0], [True, False]]
    assert env.free(state).tolist() == [2, 3, 2]
    observation = env.observe(state, env.default_params)
    assert observation[CELLS + VIEW + VIEW // 2] == env.default_params.likeness[0, 0]
    like = env.default_params.likeness[0, 0]
    listed = GoTo(objects=2, instructions=["go to the red key"], observation=("things",))
    expected = [1, 0, 1 / 7, 0, 0, 0, like, 0]
    np.testing.assert_allclose(listed.observe(state, env.default_params), expected, rtol=1e-6)
    assert env.reached(state, env.wanted(state, env.default_params))
