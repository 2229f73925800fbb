"""Learners: pure functions that learn on any gymnax environment with discrete actions."""

from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any, NamedTuple

from pydantic import with_config

from rlli_jax.envs.contract import Env
from rlli_jax.errors import InputError, why
from rlli_jax.learners.bandits import BanditConfig, BanditHyperparams, linucb, thompson
from rlli_jax.learners.core import Learner
from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo
from rlli_jax.learners.reinforce import ReinforceConfig, ReinforceHyperparams, reinforce
from rlli_jax.learners.sac import D2SACConfig, SACConfig, SACHyperparams, d2sac, sac
from rlli_jax.learners.vine import VineConfig, VineHyperparams, vine


class Kind(NamedTuple):
    """What a study must know of a learner to check its keys and to make it."""

    make: Callable[[Env, Any], Learner]  # environment, config -> learner
    config: type  # a dataclass: what decides shapes
    hyperparams: type  # a dataclass that is a pytree of numbers: what a sweep may vary
    joint: bool = False  # whether it can make several choices a step
    # Its hyperparameter ``anneal``, if it has one, where a study does not say: unlike the learner,
    # a study knows how long it trains.
    anneal: float = 1.0


LEARNERS = {
    "ppo": Kind(ppo, PPOConfig, PPOHyperparams, joint=True),
    "dqn": Kind(dqn, DQNConfig, DQNHyperparams),
    "reinforce": Kind(reinforce, ReinforceConfig, ReinforceHyperparams, joint=True),
    "sac": Kind(sac, SACConfig, SACHyperparams, anneal=0.0),
    "d2sac": Kind(d2sac, D2SACConfig, SACHyperparams, anneal=0.0),
    "vine": Kind(vine, VineConfig, VineHyperparams, anneal=0.95),
    "linucb": Kind(linucb, BanditConfig, BanditHyperparams),
    "thompson": Kind(thompson, BanditConfig, BanditHyperparams),
}


def learner_kind(name: str) -> Kind:
    """A learner of :data:`LEARNERS`, or the :class:`Kind` at ``package.module:attribute``.

    Raises:
        InputError: there is none, or its config or hyperparameters are no dataclass with a default
            for each field.
    """
    if name in LEARNERS:
        return LEARNERS[name]
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except Exception as error:  # a module may raise anything while it is imported
        raise InputError(
            f"learner {name!r} cannot be imported ({why(error)}); write one of "
            f"{', '.join(LEARNERS)}, or package.module:attribute of a package that is installed or "
            "on PYTHONPATH."
        ) from None
    if not isinstance(kind, Kind):
        raise InputError(
            f"learner {name!r} is a {type(kind).__name__}; it must be a rlli_jax.learners.Kind, "
            "such as Kind(make, Config, Hyperparams)."
        )
    for part in (kind.config, kind.hyperparams):
        try:
            plain = is_dataclass(part()) and not hasattr(part, "__pydantic_config__")
        except TypeError:
            raise InputError(
                f"learner {name!r}: {part.__name__} needs a default for each of its fields."
            ) from None
        if plain:  # a key that it does not have would be ignored
            with_config(extra="forbid")(part)
    return kind
