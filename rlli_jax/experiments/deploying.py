"""A policy of a finished run, made ready for the service, and the service started."""

import gc
import os
import socket
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlli_jax.envs.policy import PolicyInput
from rlli_jax.errors import InputError
from rlli_jax.experiments import serving
from rlli_jax.experiments.serving import TrainedPolicy
from rlli_jax.judges import scale_of
from rlli_jax.qoe.model import FEWEST, fit_model
from rlli_jax.qoe.newcomers import beliefs
from rlli_jax.service import Arm, ServedPolicy, open_decisions, parse_rule
from rlli_jax.service.selecting import Belief, Selector

KEY = "RLLI_SERVE_KEY"  # the environment variable
LOCAL = ("127.0.0.1", "::1", "localhost")


def served_policy(run: str | Path, name: str | None = None) -> ServedPolicy:
    """A policy of a run, ready to choose for anybody.

    It is asked as at the start of an episode, about whichever providers are offered.

    Raises:
        InputError: as :func:`rlli_jax.experiments.serving.load_policy`; or it chooses for all users
            at once.
    """
    trained = serving.load_policy(run, name)
    env, params = trained.env, trained.params
    if env.assignment != "sequential":
        raise InputError(
            f"the policy {trained.name!r} of {run} chooses for all users at once; to serve people "
            "takes environment.assignment sequential."
        )
    params = params.replace(asked=None)  # anybody may ask for everything
    predict, belief = _predictions(trained)
    users, requests = len(params.count), len(trained.table.requests)
    if trained.texts is not None:
        params = params.replace(request_text=trained.texts)

    def one(
        persona: jax.Array, user: jax.Array, request: jax.Array, offered: jax.Array
    ) -> jax.Array:
        # Any user's place does for somebody new, as the persona there is replaced.
        place = jnp.minimum(user, users - 1)
        known = params.personas
        own = params if known is None else params.replace(personas=known.at[place].set(persona))
        _, start = env.reset_env(jax.random.key(0), own)
        state = start.replace(time=place, request=jnp.minimum(request, requests - 1))
        observation = env.observe(jax.random.key(0), state, None, own)
        seen = PolicyInput(observation.reshape(-1), offered, state, own)
        action, _ = trained.policy.act(jax.random.key(0), seen, trained.policy.initial)
        return action

    compiled = jax.jit(jax.vmap(one))

    def choose(
        persona: np.ndarray, user: np.ndarray, request: np.ndarray, offered: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        action = np.asarray(compiled(persona, user, request, offered))
        return action, predict(persona, user, request)

    traits = trained.population.traits
    table = trained.table
    return ServedPolicy(
        name=trained.name,
        judge=f"{table.judge}{' (a stand-in)' if table.stand_in else ''}",
        providers=table.providers,
        requests=table.requests,
        users={
            user: None if traits is None else tuple(map(float, traits[k]))
            for k, user in enumerate(table.users)
        },
        observes=frozenset(
            {"user", "persona", "request"}
            & {part.removesuffix("_text") for part in env.observation}
        ),
        predicts_by_persona=traits is not None,
        choose=choose,
        belief=belief,
    )


# persona [b, 5], user [b], request [b] -> expected QoE of each provider [b, L]
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _predictions(trained: TrainedPolicy) -> tuple[Predict, Belief | None]:
    """The model of QoE (:mod:`rlli_jax.qoe.model`) of the run's table, for anybody; how sure it is.

    For each request, and for the mean over requests, which stands for one that is not known. Where
    personas are unknown it is the user's own row of the table, or the mean over users.
    """
    table, traits = trained.table, trained.population.traits
    means = table.provider_values
    if traits is None or table.legal.sum() < FEWEST:
        of_request = np.where(table.legal, table.mean, means[:, None])  # [K, R, L]
        rows = np.concatenate([of_request, means[:, None]], 1)
        rows = np.concatenate([rows, rows.mean(0, keepdims=True)])
        return lambda persona, user, request: rows[user, request], None
    model = fit_model(np.where(table.legal, table.mean, np.nan), traits)
    own = model.coefficients  # [R, L, F]
    coefficients = np.concatenate([own, own.mean(0, keepdims=True)])

    def predict(persona: np.ndarray, user: np.ndarray, request: np.ndarray) -> np.ndarray:
        phi = model.features(persona, len(persona))
        explained = np.einsum("bf,blf->bl", phi, coefficients[request])
        return np.asarray((model.level + explained).clip(0, 1))

    ready = cache(lambda: beliefs(model))  # not every way to explore asks how sure it is

    def belief(persona: np.ndarray, user: np.ndarray, request: np.ndarray) -> np.ndarray:
        return ready()(model.features(persona, len(persona)), request)

    return predict, belief


def serve(
    runs: Sequence[Path],
    *,
    policies: Sequence[str],
    shares: Sequence[float],
    explore: str,
    log: str | None,
    scale: str,
    host: str,
    port: int,
    rate: float,
) -> None:
    """Serve policies of runs over HTTP until stopped.

    Raises:
        InputError: something cannot be served, or the port is taken.
    """
    try:
        import uvicorn

        from rlli_jax.service.app import Settings, make_app
    except ImportError as error:
        raise InputError(
            f"rlli serve needs {error.name}, which is missing; pip install 'rlli_jax[serve]'."
        ) from None
    key = os.environ.get(KEY) or None
    if key is None and host not in LOCAL:
        raise InputError(
            f"--host {host} is open to others: set a key in the environment variable {KEY}, which "
            "requests then carry as Authorization: Bearer KEY."
        )
    for name, given in (("--policies", policies), ("--shares", shares)):
        if given and len(given) != len(runs):
            raise InputError(f"{name} has {len(given)} values for {len(runs)} runs; give one each.")
    rating = scale_of(scale)
    rule = parse_rule(explore)
    names: list[str | None] = [*policies] or [None] * len(runs)
    parts = list(shares) or [1 / len(runs)] * len(runs)
    arms = [
        Arm(served_policy(run, name), share)
        for run, name, share in zip(runs, names, parts, strict=True)
    ]
    selector = Selector(arms, rule)
    selector.warm()
    decisions = open_decisions(log or f"sqlite:///{runs[0].resolve() / 'decisions.sqlite'}")
    decisions.settle_scale(scale)
    settings = Settings(rating.low, rating.high, rate, key, served_policy)
    app = make_app(selector, decisions, settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # it would close the streams of other loggers
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    try:
        listener = config.bind_socket()
    except SystemExit:  # uvicorn has said why
        raise InputError(
            f"port {port} of {host} cannot be used; is another service there? Give --port."
        ) from None
    with listener:
        # Connections inherit it: an answer leaves at once, not with the next acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        where = f"http://{host}:{listener.getsockname()[1]}"
        print(f"{where}  (page), {where}/docs (interface); log: {decisions.name}", flush=True)
        # To look through all of JAX for garbage would stop the service for a tenth of a second.
        gc.freeze()
        server.run(sockets=[listener])
        gc.unfreeze()
