"""Tasks told in words: an environment whose observation is the number of a text.

Teacher, student and language policy know a task only by its list of texts and its list of advice.
A finite list is what lets a language model stand outside the compiled loop: everything it can be
asked is scored once per update of its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from rlli_jax.envs import go_to_red_ball as rb
from rlli_jax.envs.contract import Env, PyTree
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection
from rlli_jax.errors import InputError
from rlli_jax.personas import Population
from rlli_jax.personas.in_words import GOAL, advice, asks, goal_prompt


@dataclass(frozen=True)
class TextTask:
    """What the loops of this package need to know; T texts, A actions.

    ``advice`` has one phrase for each action, in order: it is what a teacher may say and what a
    language policy may do. The student is not told what a phrase means.
    """

    name: str
    goal: str
    env: Env  # observation: the text's number, int32 []
    env_params: PyTree
    texts: tuple[str, ...]  # T
    advice: tuple[str, ...]  # A
    legal: jax.Array  # bool [T, A]
    expert: jax.Array  # float32 [T, A], what a teacher who knows everything would say
    acted_on: jax.Array  # bool [T], False for texts that only end an episode
    # Exact expectations of a policy [T, A] over one episode: ``return``, ``success`` if there is
    # such a thing. Jittable and differentiable.
    value: Callable[[jax.Array], dict[str, jax.Array]]

    def prompt(self, text: str, remark: str = "") -> str:
        """Lamorel's prompt, which shows the current observation only; a remark comes first."""
        return goal_prompt(self.goal, text, remark)


def references(task: TextTask) -> dict[str, dict[str, float]]:
    """What needs no learning, by name: chance, and that constant policy which is right most often.

    ``accuracy``: the expert's probability of what is done, mean over the texts acted on; ``return``
    and so on: exact. Where the constant action is not legal, another is drawn.
    """
    chance = task.legal / task.legal.sum(1, keepdims=True)
    best = int((task.expert * task.legal)[task.acted_on].mean(0).argmax())
    constant = jax.nn.one_hot(best, len(task.advice))
    policies = {
        "chance": chance,
        f"always “{task.advice[best]}”": jnp.where(task.legal[:, [best]], constant, chance),
    }
    found = {}
    for name, policy in policies.items():
        accuracy = (policy * task.expert).sum(1)[task.acted_on].mean()
        found[name] = {"accuracy": float(accuracy)} | {
            key: float(value) for key, value in task.value(policy).items()
        }
    return found


class InWords(environment.Environment):
    """An environment seen through its texts: the observation is the number of a text.

    ``text``: (state of the environment, its parameters) -> int32 [].
    """

    def __init__(
        self, env: Env, text: Callable[[PyTree, PyTree], jax.Array], num_texts: int
    ) -> None:
        super().__init__()
        self._env, self._text, self._num_texts = env, text, num_texts
        if hasattr(env, "legal_actions"):
            self.legal_actions = env.legal_actions

    @property
    def default_params(self) -> PyTree:
        return self._env.default_params

    @property
    def name(self) -> str:
        return f"{self._env.name}, in words"

    @property
    def num_actions(self) -> int:
        return self._env.num_actions

    def step_env(
        self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree
    ) -> tuple[jax.Array, PyTree, jax.Array, jax.Array, dict]:
        _, state, reward, terminated, info = self._env.step_env(key, state, action, params)
        return self._text(state, params), state, reward, terminated, info

    def reset_env(self, key: jax.Array, params: PyTree) -> tuple[jax.Array, PyTree]:
        _, state = self._env.reset_env(key, params)
        return self._text(state, params), state

    def is_terminated(self, state: PyTree, params: PyTree) -> jax.Array:
        return self._env.is_terminated(state, params)

    def is_truncated(self, state: PyTree, params: PyTree) -> jax.Array:
        return self._env.is_truncated(state, params)

    def action_space(self, params: PyTree) -> spaces.Space:
        return self._env.action_space(params)

    def observation_space(self, params: PyTree) -> spaces.Space:
        return spaces.Discrete(self._num_texts)


def go_to_red_ball(expert: jax.Array | None = None) -> TextTask:
    """BabyAI-GoToRedBallNoDists-v0 as language policies know it: 556 texts, 6 actions.

    ``expert``: float32 [550, 6]; the best memoryless policy of seed 0 if absent (about 4 s).
    """
    env = rb.GoToRedBall()
    params = env.default_params
    if expert is None:
        expert = rb.best_policy(jax.random.key(0), params.tables)
    unused = rb.NUM_TEXTS - rb.NUM_POLICY_TEXTS

    def value(policy: jax.Array) -> dict[str, jax.Array]:
        exact = rb.exact_return(policy, params.tables)
        return {"return": exact.mean_return, "success": exact.success}

    return TextTask(
        name="GoToRedBall",
        goal=rb.MISSION,
        env=InWords(env, lambda s, p: p.tables.text[s.state], rb.NUM_TEXTS),
        env_params=params,
        texts=rb.texts(),
        advice=rb.ACTIONS[: env.num_actions],
        legal=jnp.ones((rb.NUM_TEXTS, env.num_actions), bool),
        expert=jnp.pad(expert, ((0, unused), (0, 0)), constant_values=1 / env.num_actions),
        acted_on=jnp.arange(rb.NUM_TEXTS) < rb.NUM_POLICY_TEXTS,
        value=value,
    )


def provider_selection(
    params: EnvParams, population: Population, requests: tuple[str, ...], providers: tuple[str, ...]
) -> TextTask:
    """Which provider should serve which user: K x R texts of persona and request, L actions.

    The users are served in turn. ``return`` is Eq. (2) of the RLLI paper relative to what the best
    provider for every user and request gives: 1 is the optimum.

    Raises:
        InputError: names and table disagree in number, or a user has no provider for some request.
    """
    users, num_requests, num_providers = params.mean.shape
    given = (len(population), len(requests), len(providers))
    if given != params.mean.shape:
        raise InputError(
            f"There are {given[0]} users, {given[1]} requests and {given[2]} providers, but the "
            f"table is for {users}, {num_requests} and {num_providers}; give those of the table."
        )
    if params.asked is not None:
        raise InputError(
            "Some users have no provider for some requests, but all of them are taught; select "
            "users and requests that have ratings."
        )
    env = ProviderSelection(params, assignment="sequential", observation=("user", "request"))
    legal = (params.count > 0).reshape(-1, num_providers)
    mean = params.mean.reshape(-1, num_providers)
    best = jnp.where(legal, mean, -jnp.inf).argmax(1)

    def value(policy: jax.Array) -> dict[str, jax.Array]:
        earned = (policy * mean).sum(1)
        return {"return": earned.sum() / mean[jnp.arange(len(mean)), best].sum()}

    return TextTask(
        name="ProviderSelection",
        goal=GOAL,
        env=InWords(
            env,
            lambda s, p: env.users(s, p) * p.qoe.shape[1] + s.request,
            users * num_requests,
        ),
        env_params=params,
        texts=tuple(
            asks(persona, request) for persona in population.personas for request in requests
        ),
        advice=tuple(map(advice, providers)),
        legal=legal,
        expert=jax.nn.one_hot(best, num_providers),
        acted_on=jnp.ones(users * num_requests, bool),
        value=value,
    )
