"""A trained policy outside of its training: as a file of its own, and asked about a new user.

The file holds StableHLO, by ``jax.export``: it serves with JAX alone, without this package, on CPU,
CUDA and TPU, for any number of observations at once.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from rlli_jax.envs.contract import PyTree
from rlli_jax.envs.policy import Policy, PolicyInput, policy_input
from rlli_jax.envs.provider_selection import EnvParams, ProviderSelection
from rlli_jax.errors import InputError, listed
from rlli_jax.experiments.asking import ANSWERS, load_answers
from rlli_jax.experiments.checkpoints import Checkpoints
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.run_directory import read_config, resuming
from rlli_jax.experiments.selection.study import training_params
from rlli_jax.experiments.selection.tables import model_of_fresh, split_table
from rlli_jax.experiments.selection.texts import texts
from rlli_jax.experiments.training import Program, Shared, all_shared, of_seeds
from rlli_jax.files import write_bytes
from rlli_jax.judges import scale_of
from rlli_jax.learners.core import Learner
from rlli_jax.personas import TRAIT_NAMES, TRAITS, Population
from rlli_jax.qoe import QoETable
from rlli_jax.qoe.model import QoEModel, fit_model
from rlli_jax.qoe.newcomers import Foreseen, foresee
from rlli_jax.run_files import write_json

PLATFORMS = ("cpu", "cuda", "tpu")
LOWEST, HIGHEST = 1.0, 5.0  # of a trait


@dataclass(frozen=True)
class TrainedPolicy:
    """The greedy policy of one seed of a run, and what it knows."""

    name: str
    seed: int
    env: ProviderSelection
    policy: Policy
    population: Population
    table: QoETable  # of all requests
    texts: jax.Array | None = None  # [R, D] of all requests, where the policy is told their words

    @property
    def params(self) -> EnvParams:
        """The table's users and the requests of its training."""
        params: EnvParams = self.env.default_params
        return params


def load_policy(run: str | Path, name: str | None = None) -> TrainedPolicy:
    """The best seed of a policy of a finished run, from its last checkpoint.

    Args:
        run: a run directory of ``rlli run``.
        name: of the policy; if absent, the one that learned with the highest mean objective,
            among those that observe the persona if there are any.

    Raises:
        InputError: the run is not finished, has no such policy, or cannot be read.
    """
    path = Path(run)
    config = read_config(path)
    learned = {n: p for n, p in config.policies.items() if isinstance(p, Learned)}
    if not learned or (name is not None and name not in learned):
        raise InputError(
            f"{path} has no policy {name or ''!r} that learned; it has "
            f"{', '.join(learned) or 'none'}."
        )
    objectives = {n: _objectives(path, n) for n in ([name] if name else learned)}
    knowing = [n for n in objectives if "persona" in learned[n].observation]
    chosen = max(knowing or objectives, key=lambda n: float(objectives[n].mean()))
    block = learned[chosen]
    table = QoETable.load(path / "table.npz")
    population = Population.from_csv(path / "population.csv", traits=config.knows_traits)
    train, _ = split_table(config.table, table)
    answers = load_answers(path / ANSWERS) if (path / ANSWERS).exists() else None
    model = model_of_fresh(config, table, train, population.traits, answers)
    params, trained_on = (
        jax.tree.map(jnp.asarray, training_params(config, train, population.traits, people))
        for people in (None, model)
    )
    words = None
    if "request_text" in block.observation:
        told = texts(table.requests, train.requests, block.text)
        words, seen = (jnp.asarray(told.of(part)) for part in (table, train))
        params, trained_on = (p.replace(request_text=seen) for p in (params, trained_on))
    make = partial(
        ProviderSelection, assignment=config.environment.assignment, observation=block.observation
    )
    learner = block.make(make(trained_on))
    state = _final_state(path, chosen, learner, block, config.seeds, trained_on)
    seed = int(objectives[chosen].argmax())
    policy = learner.policy(jax.tree.map(lambda x: x[seed], state))
    return TrainedPolicy(chosen, seed, make(params), policy, population, table, words)


def _objectives(path: Path, name: str) -> np.ndarray:
    """[seeds], of the evaluation."""
    file = path / "policies" / name / "evaluation.npz"
    try:
        with np.load(file) as evaluation:
            return np.asarray(evaluation["objective"])
    except (OSError, ValueError, KeyError):
        raise InputError(
            f"{file} cannot be read: the run is not finished; go on with: {resuming(path)}."
        ) from None


def _final_state(
    path: Path, name: str, learner: Learner, block: Any, seeds: int, params: EnvParams
) -> PyTree:
    """The state after training, [seeds, ...]."""
    folder = path / "checkpoints" / name
    checkpoints = Checkpoints(folder)
    last = checkpoints.latest()
    if last is None or last != block.iterations:
        raise InputError(
            f"{folder} holds no checkpoint of iteration {block.iterations}, the last one; train "
            f"the policy to its end with: {resuming(path)}."
        )
    shared, keys = Shared(all_shared(params)), jax.random.split(jax.random.key(0), seeds)
    program = Program(learner, last, shared, jax.devices()[:1])
    given = of_seeds(keys, block.hyperparams, params)
    return checkpoints.restore(last, program.content(given, last))["state"]


def export_policy(trained: TrainedPolicy, file: str | Path) -> Path:
    """Write a policy to ``file``, and what its inputs mean to ``file`` + ``.json``.

    The file holds one function: observations [b, size] float32 and legal actions [b, *heads, L]
    bool -> actions [b, *heads] int32, for any b. Serve it with::

        policy = jax.export.deserialize(bytearray(open(file, "rb").read()))
        action = policy.call(observation, legal)

    Raises:
        InputError: the policy keeps a memory from step to step, or a file cannot be written.
    """
    if jax.tree.leaves(trained.policy.initial):
        raise InputError(f"{trained.name} keeps a memory from step to step; it cannot be exported.")
    env, params = trained.env, trained.params
    observation, state = env.reset_env(jax.random.key(0), params)
    seen = policy_input(env, observation, state, params)

    def act(observation: jax.Array, legal: jax.Array) -> jax.Array:
        def one(observation: jax.Array, legal: jax.Array) -> jax.Array:
            situation = PolicyInput(observation, legal, state, params)
            action, _ = trained.policy.act(jax.random.key(0), situation, trained.policy.initial)
            return action.astype(jnp.int32)

        return jax.vmap(one)(observation, legal)

    (batch,) = export.symbolic_shape("b")
    inputs = [
        jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for x in (seen.observation, seen.legal)
    ]
    try:
        exported = export.export(jax.jit(act), platforms=PLATFORMS)(*inputs).serialize()
    except ImportError:
        raise InputError(
            "exporting a policy needs flatbuffers, which is not installed; pip install flatbuffers."
        ) from None
    file = Path(file)
    write_bytes(file, bytes(exported))
    write_json(
        file.with_name(file.name + ".json"),
        {
            "policy": trained.name,
            "seed": trained.seed,
            "assignment": env.assignment,
            "observation": _entries(trained),
            "providers": list(trained.table.providers),
            "users": list(trained.table.users),
            "judge": trained.table.judge,
            "stand_in": trained.table.stand_in,
        },
    )
    return file


def _entries(trained: TrainedPolicy) -> list[str]:
    """What each number of the observation is."""
    table, several = trained.table, trained.env.assignment != "sequential"
    joint = trained.env.assignment == "joint"
    personas = [f"({trait} - 3) / 2" for trait in TRAIT_NAMES]
    providers = [f"last provider was {name}" for name in table.providers]
    parts = {
        "action": [f"{user}: {p}" for user in table.users for p in providers]
        if joint
        else providers,
        "reward": ["last reward"],
        "user": [f"user is {name}" for name in table.users],
        "persona": [f"{user}: {p}" for user in table.users for p in personas]
        if several
        else personas,
        "request": [f"request is {name}" for name in table.requests],
        "request_text": _numbered("request text", trained.params.request_text),
    }
    return [entry for part in trained.env.observation for entry in parts[part]]


def _numbered(what: str, vectors: jax.Array | None) -> list[str]:
    """Names of the numbers of vectors [N, D]."""
    return [] if vectors is None else [f"{what}, {i + 1}" for i in range(vectors.shape[1])]


class Predicted(NamedTuple):
    """QoE that a user is believed to have with a provider, mean over the requests, 0 to 1."""

    mean: float
    low: float  # end of the 90 % interval
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} (90 % interval {self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Selection:
    """The provider that a policy gives a user, with what the user is likely to think of it."""

    policy: str
    provider: str
    qoe: Predicted
    predictions: dict[str, Predicted]  # of every provider


def select(run: str | Path, traits: tuple[float, ...], name: str | None = None) -> Selection:
    """Ask a run's policy which provider should serve a user that it may never have seen.

    The policy is asked as at the start of an episode. What the user thinks of each provider is
    predicted by a model of QoE (:mod:`rlli_jax.qoe.model`) of the run's users.

    Args:
        traits: Big Five in the order O, C, E, A, N, each from 1 to 5.

    Raises:
        InputError: other traits, or no policy of the run can tell users apart by their persona.
    """
    persona = _persona(traits)
    trained = load_policy(run, name)
    env, known = trained.env, trained.population.traits
    if known is None:
        raise InputError(
            f"the users of {run} are known by name only, so nothing can be said of a persona; "
            "that takes a study whose users' personalities are known."
        )
    if env.assignment != "sequential" or "persona" not in env.observation:
        raise InputError(
            f"the policy {trained.name!r} of {run} cannot choose by persona: that takes an "
            "observation with persona (without user) and environment.assignment sequential."
        )
    if "user" in env.observation:
        raise InputError(
            f"the policy {trained.name!r} of {run} knows users by their number (observation "
            "user), so it cannot choose for others."
        )
    often = np.bincount(choices(trained, persona[None])[0])
    chosen = trained.table.providers[int(often.argmax())]
    predicted = _by_provider(
        trained.table, foresee(model_of(Path(run), trained.table, known), persona)
    )
    return Selection(trained.name, chosen, predicted[chosen], predicted)


def select_by_ratings(
    run: str | Path, file: str | Path, traits: tuple[float, ...] | None = None
) -> Selection:
    """The provider that suits a user best by a few ratings of the user's own.

    The run's model of QoE chooses, not a policy: policies know nothing of ratings.

    Args:
        run: a run directory with a table.
        file: a table with the columns request, provider and rating, on the scale of the run's
            judge.
        traits: as of :func:`select`; None if they are unknown.

    Raises:
        InputError: other traits, or something is wrong with the file.
    """
    from rlli_jax.tabular import read_table  # and with it pandas

    path = Path(run)
    config = read_config(path)
    table = QoETable.load(path / "table.npz")
    known = Population.from_csv(path / "population.csv", traits=config.knows_traits).traits
    persona = None if traits is None else _persona(traits)
    if persona is not None and known is None:
        raise InputError(
            f"the users of {run} are known by name only, so a persona says nothing; leave out "
            "--persona."
        )
    given = read_table(file, "a rating")
    advice = "give a table with the columns request, provider and rating"
    scale = scale_of(config.judge.scale)
    cells = []
    for kind, axis in (("request", table.requests), ("provider", table.providers)):
        names = given.names(given.require(kind, advice=advice))
        for row, name in enumerate(names):
            if name not in axis:
                given.fail(f"{kind} {name!r} is not in the run; it has {listed(axis)}", row)
        cells.append([axis.index(name) for name in names])
    ratings = given.numbers(given.require("rating", "score", advice=advice))
    for wrong in np.flatnonzero(~((ratings >= scale.low) & (ratings <= scale.high))):
        given.fail(
            f"the rating is not on the scale {scale.name!r}; give a number from {scale.low:g} to "
            f"{scale.high:g}",
            int(wrong),
        )
    model = model_of(path, table, known)
    qoe = np.array([scale.qoe(rating) for rating in ratings])
    predicted = _by_provider(table, foresee(model, persona, np.array(cells).T, qoe))
    chosen = max(predicted, key=lambda name: predicted[name].mean)
    return Selection(
        f"the model of QoE, by {len(qoe)} ratings", chosen, predicted[chosen], predicted
    )


def model_of(run: Path, table: QoETable, traits: np.ndarray | None) -> QoEModel:
    """The model of QoE of a run's users, fitted to their answers.

    Raises:
        InputError: there are too few answers, or their file cannot be read.
    """
    file = run / ANSWERS
    if not file.exists():
        return fit_model(np.where(table.legal, table.mean, np.nan), traits)
    return fit_model(load_answers(file), traits)


def _by_provider(table: QoETable, found: Foreseen) -> dict[str, Predicted]:
    return {
        name: Predicted(*map(float, numbers))
        for name, *numbers in zip(table.providers, *found, strict=True)
    }


def _persona(traits: tuple[float, ...]) -> np.ndarray:
    """Traits [5], checked."""
    persona = np.asarray(traits, np.float64)
    if persona.shape != (len(TRAITS),) or not ((persona >= LOWEST) & (persona <= HIGHEST)).all():
        raise InputError(
            f"--persona {','.join(f'{x:g}' for x in traits)}: give five numbers from 1 to 5, in "
            f"the order {', '.join(TRAIT_NAMES)}."
        )
    return persona


def choices(trained: TrainedPolicy, personas: np.ndarray) -> np.ndarray:
    """The provider that each of n users gets for each request that somebody has a rating of.

    All rated providers are on offer.

    Args:
        trained: a policy that observes the persona, in sequential assignment.
        personas: [n, 5], Big Five on the 1-5 scale.

    Returns:
        [n, requests], positions of providers.
    """
    env, params = trained.env, trained.params
    assert params.personas is not None
    params = params.replace(asked=None)  # and may ask for everything
    _, start = env.reset_env(jax.random.key(0), params)
    offered = (params.count > 0).any(0)  # [R, L]

    def choose(persona: jax.Array, request: jax.Array, legal: jax.Array) -> jax.Array:
        # The first user of an episode is the one that is asked about.
        own = params.replace(personas=params.personas.at[0].set(persona))
        state = start.replace(request=request)
        observation = env.observe(jax.random.key(0), state, None, own)
        seen = PolicyInput(observation.reshape(-1), legal, state, own)
        return trained.policy.act(jax.random.key(0), seen, trained.policy.initial)[0]

    requests = jnp.flatnonzero(offered.any(-1))
    each = jax.vmap(jax.vmap(choose, (None, 0, 0)), (0, None, None))
    return np.asarray(each(jnp.asarray(personas, jnp.float32), requests, offered[requests]))
