"""Reinforcement learning with language-model interaction, at accelerator speed.

Ask the language model everything first; then learn at accelerator speed. What stands here is the
stable public interface; a name is imported from its room when it is asked for, so that
``import rlli_jax`` itself costs nothing. See ``docs/architecture.md`` for the rooms and what may
import what.
"""

from typing import TYPE_CHECKING

from rlli_jax.lazy import attach

if TYPE_CHECKING:
    from rlli_jax.catalog import Catalog
    from rlli_jax.envs import EdgeMarket, GoTo, GoToRedBall, ProviderSelection, Session
    from rlli_jax.envs.policy import Policy, evaluate
    from rlli_jax.envs.provider_selection import make_params
    from rlli_jax.errors import InputError
    from rlli_jax.feedback import Log, gain_of_personalising, interaction_test, value_policies
    from rlli_jax.learners import LEARNERS, Kind
    from rlli_jax.learners.bandits import BanditConfig, BanditHyperparams, linucb, thompson
    from rlli_jax.learners.core import Learner
    from rlli_jax.learners.dqn import DQNConfig, DQNHyperparams, dqn
    from rlli_jax.learners.hyperparams import Hyperparams
    from rlli_jax.learners.ppo import PPOConfig, PPOHyperparams, ppo
    from rlli_jax.learners.reinforce import ReinforceConfig, ReinforceHyperparams, reinforce
    from rlli_jax.learners.sac import D2SACConfig, SACConfig, SACHyperparams, d2sac, sac
    from rlli_jax.learners.training import train
    from rlli_jax.learners.vine import VineConfig, VineHyperparams, vine
    from rlli_jax.oracle import ask, build_questions
    from rlli_jax.personas import Population
    from rlli_jax.qoe import QoETable
    from rlli_jax.studies import STUDIES, StudyKind, load_study, render, run_study

__version__ = "0.1.0"

__all__ = [
    "LEARNERS",
    "STUDIES",
    "BanditConfig",
    "BanditHyperparams",
    "Catalog",
    "D2SACConfig",
    "DQNConfig",
    "DQNHyperparams",
    "EdgeMarket",
    "GoTo",
    "GoToRedBall",
    "Hyperparams",
    "InputError",
    "Kind",
    "Learner",
    "Log",
    "PPOConfig",
    "PPOHyperparams",
    "Policy",
    "Population",
    "ProviderSelection",
    "QoETable",
    "ReinforceConfig",
    "ReinforceHyperparams",
    "SACConfig",
    "SACHyperparams",
    "Session",
    "StudyKind",
    "VineConfig",
    "VineHyperparams",
    "ask",
    "build_questions",
    "d2sac",
    "dqn",
    "evaluate",
    "gain_of_personalising",
    "interaction_test",
    "linucb",
    "load_study",
    "make_params",
    "ppo",
    "reinforce",
    "render",
    "run_study",
    "sac",
    "thompson",
    "train",
    "value_policies",
    "vine",
]

_ROOMS = {
    ".catalog": ("Catalog",),
    ".envs": ("EdgeMarket", "GoTo", "GoToRedBall", "ProviderSelection", "Session"),
    ".envs.policy": ("Policy", "evaluate"),
    ".envs.provider_selection": ("make_params",),
    ".errors": ("InputError",),
    ".feedback": ("Log", "gain_of_personalising", "interaction_test", "value_policies"),
    ".learners": ("LEARNERS", "Kind"),
    ".learners.core": ("Learner",),
    ".learners.bandits": ("BanditConfig", "BanditHyperparams", "linucb", "thompson"),
    ".learners.dqn": ("DQNConfig", "DQNHyperparams", "dqn"),
    ".learners.hyperparams": ("Hyperparams",),
    ".learners.ppo": ("PPOConfig", "PPOHyperparams", "ppo"),
    ".learners.reinforce": ("ReinforceConfig", "ReinforceHyperparams", "reinforce"),
    ".learners.sac": ("D2SACConfig", "SACConfig", "SACHyperparams", "d2sac", "sac"),
    ".learners.training": ("train",),
    ".learners.vine": ("VineConfig", "VineHyperparams", "vine"),
    ".oracle": ("ask", "build_questions"),
    ".personas": ("Population",),
    ".qoe": ("QoETable",),
    ".studies": ("STUDIES", "StudyKind", "load_study", "render", "run_study"),
}
__getattr__, __dir__ = attach(__name__, _ROOMS)
