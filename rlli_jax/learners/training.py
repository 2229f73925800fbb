"""Train a learner: any number of settings and seeds in one compiled program."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from rlli_jax.envs.contract import Key, PyTree, typed_key
from rlli_jax.errors import InputError
from rlli_jax.learners.core import Learner
from rlli_jax.learners.cpu import START, TRAIN, compiler_options, vmap_in_groups
from rlli_jax.progress import LoggedProgress

PARTS = 20  # of a training, between which progress is shown


def train(
    learner: Learner,
    hyperparams: Any,
    params: PyTree,
    keys: Key,
    iterations: int,
    *,
    progress: bool = True,
) -> tuple[PyTree, dict[str, jax.Array]]:
    """Train for every setting of the hyperparameters on every key, all in one program.

    Schedules such as ``anneal`` span the training: ``total_iterations`` is set to ``iterations``.
    A run whose losses are no numbers any more does not stop the others; its metrics show it::

        rates = jnp.logspace(-4, -2, 8)
        keys = jax.random.split(jax.random.key(0), 3)
        state, metrics = train(ppo(env), PPOHyperparams(learning_rate=rates), params, keys, 50)
        metrics["episode_return"]  # [8, 3, 50]

    Args:
        learner: such as ``ppo(env)``.
        hyperparams: of one setting, or of H: then some of its fields are arrays [H].
        params: of the environment, shared by all runs.
        keys: one random key, or S of them, ``jax.random.split(jax.random.key(0), S)``.
        iterations: how often ``learner.step`` is called, each time for ``learner.env_steps`` steps.
        progress: whether to show a bar.

    Returns:
        The states, of which ``learner.policy`` takes one, and the metrics. Leading axes are
        [H, S]; H is left out for one setting, S for a single key. Metrics have [iterations] as
        their last axis.

    Raises:
        InputError: ``iterations`` is not a positive whole number, ``keys`` are no random keys,
            fields of ``hyperparams`` differ in length, or learners cannot step the environment.
    """
    iterations = _whole(iterations)
    keys = typed_key(keys)
    if not isinstance(learner, Learner):
        raise InputError(f"a learner is needed, such as ppo(env), but this is {learner!r}.")
    if isinstance(hyperparams, type):
        raise InputError(f"hyperparams is a class; give values: {hyperparams.__name__}().")
    if hasattr(hyperparams, "total_iterations"):
        hyperparams = hyperparams.replace(total_iterations=iterations)
    settings = _settings(hyperparams)
    runs = (settings or 1) * keys.size

    def of_each_run(x: Any) -> jax.Array:
        """A number, or one for each setting -> one for each run."""
        x = jnp.broadcast_to(jnp.asarray(x), (settings or 1,))
        return jnp.repeat(x, keys.size, 0)

    init = jax.jit(jax.vmap(learner.init, (0, 0, None)), compiler_options=compiler_options(START))
    state = init(
        jnp.tile(keys.reshape(-1), settings or 1), jax.tree.map(of_each_run, hyperparams), params
    )
    program, metrics = train_program(learner), []
    # Parts of equal length compile once; a last one of another length would compile again.
    equal = (iterations // n for n in range(PARTS, PARTS // 4, -1) if iterations % n == 0)
    length = next(equal, -(-iterations // PARTS))
    console = Console(stderr=True)  # what a script prints stays its own
    with LoggedProgress(console=console, transient=True, disable=not progress) as bar:
        task = bar.add_task(f"{runs} run{'s' if runs > 1 else ''}", total=iterations)
        for done in range(0, iterations, length):
            part = min(length, iterations - done)
            state, new = jax.block_until_ready(program(state, params, length=part))
            metrics.append(new)
            bar.advance(task, part)
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *metrics)
    shape = (*((settings,) if settings else ()), *keys.shape)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (state, whole))


def train_program(learner: Learner) -> Any:
    """states, env_params, length -> states, metrics [runs, length]; it uses the given states up."""

    def run(state: PyTree, env_params: PyTree, length: int) -> tuple[PyTree, PyTree]:
        def one(state: PyTree, env_params: PyTree) -> tuple[PyTree, PyTree]:
            return jax.lax.scan(
                lambda state, _: learner.step(state, env_params), state, length=length
            )

        return vmap_in_groups(one, (0, None), learner.group_size)(state, env_params)

    return jax.jit(
        run,
        static_argnames="length",
        donate_argnames="state",
        compiler_options=compiler_options(TRAIN),
    )


def _whole(iterations: Any) -> int:
    try:
        whole = operator.index(iterations)
    except TypeError:
        whole = 0
    if whole < 1:
        raise InputError(f"iterations is {iterations!r}; give a whole number of at least 1.")
    return whole


def _settings(hyperparams: PyTree) -> int | None:
    """How many settings there are; None if every field is one number."""
    shapes = {jnp.shape(x) for x in jax.tree.leaves(hyperparams)} - {()}
    if not shapes:
        return None
    (settings, *rest), *others = shapes
    if rest or others or not settings:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise InputError(
            f"fields of hyperparams have the shapes {listed}; give each field one number, or one "
            "for each setting."
        )
    return settings
