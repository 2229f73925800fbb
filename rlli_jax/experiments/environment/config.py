"""A study of an environment of one's own: any gymnax environment, by its import path."""

import dataclasses
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PydanticUserError, ValidationError, create_model

from rlli_jax.checking import one_sentence
from rlli_jax.envs.contract import Env, PyTree, require_environment
from rlli_jax.errors import InputError, shown, why
from rlli_jax.experiments.policies import Learned, by_learner
from rlli_jax.experiments.yaml_blocks import Block, Positive, TrainedBlock

NUMBERS = "biuf"  # kinds of NumPy's types


class MakeBlock(Block):
    """Which environment, and what its parameters are."""

    make: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """Import path package.module:name of a gymnax environment, or of what makes one when it is
    called."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """With which it is called, by keyword."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Fields of its default parameters that are to have other values."""

    def load(self) -> tuple[Env, PyTree]:
        """The environment and its parameters.

        Raises:
            InputError: it cannot be imported, cannot be made with these arguments, is no
                environment, or has no such parameter.
        """
        module, _, name = self.make.partition(":")
        try:
            env = getattr(import_module(module), name)
            ready = not isinstance(env, type) and hasattr(env, "step_env")
            env = env if ready and not self.arguments else env(**self._arguments(env))
        except Exception as error:  # a module may raise anything while it is imported
            if self.arguments and isinstance(error, InputError | TypeError):
                raise InputError(f"environment.arguments: {why(error)}.") from None
            raise InputError(
                f"environment.make: {self.make!r} cannot be imported "
                f"({why(error)}); write package.module:name of a package that is "
                "installed or on PYTHONPATH."
            ) from None
        require_environment(env)
        params = env.default_params
        known = [f.name for f in dataclasses.fields(params)]
        for key, given in self.params.items():
            if key not in known:
                raise InputError(
                    f"environment.params.{key}: unknown key; the keys here are {', '.join(known)}."
                )
            usual, value = (np.asarray(x).dtype.kind for x in (getattr(params, key), given))
            if usual in NUMBERS and value not in NUMBERS:
                raise InputError(
                    f"environment.params.{key}: must be a number, or numbers (given: "
                    f"{shown(given)})."
                )
        return env, dataclasses.replace(params, **self.params)

    def _arguments(self, make: Any) -> dict[str, Any]:
        """The arguments, by the annotations of what takes them.

        Raises:
            InputError: one is unknown, or not of its type.
        """
        try:
            taken = inspect.signature(make, eval_str=True).parameters
        except (NameError, TypeError, ValueError):  # none, or of names for type checkers alone
            return self.arguments
        if not taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            return self.arguments
        for name in self.arguments:
            if name not in taken:
                raise InputError(f"{name} is unknown; the keys here are {', '.join(taken)}.")
        return {name: _of_type(taken[name], value) for name, value in self.arguments.items()}


def _of_type(parameter: inspect.Parameter, value: Any) -> Any:
    """A value as the annotation of a parameter has it; as it is where pydantic knows no such type.

    Raises:
        InputError: it is none of that type.
    """
    if parameter.annotation is parameter.empty or value == parameter.default:
        return value
    content, types = {parameter.name: value}, {parameter.name: (parameter.annotation, ...)}
    try:
        model: Any = create_model("arguments", **types)  # type: ignore[call-overload]
    except PydanticUserError:
        return value
    try:
        return getattr(model.model_validate(content), parameter.name)
    except ValidationError as error:
        raise InputError(one_sentence(error, content, model)) from None


class RandomPolicy(Block):
    """A policy that does not learn."""

    learner: Literal["random"]
    """Uniform over the legal actions."""


if TYPE_CHECKING:
    AnyPolicy = Learned | RandomPolicy
else:
    AnyPolicy = by_learner(Learned, RandomPolicy)


class EpisodesBlock(Block):
    """How trained policies are judged."""

    episodes: Positive = 256
    """Played with each policy."""


class EnvironmentStudy(TrainedBlock):
    """A whole study of an environment of one's own."""

    kind: Literal["environment"] = "environment"
    """Of the study."""
    environment: MakeBlock
    """In which policies learn."""
    policies: Annotated[dict[str, AnyPolicy], Field(min_length=1)]
    """Every policy by a name of your own; each is trained (if it learns) and evaluated."""
    evaluation: EpisodesBlock = EpisodesBlock()
    """How trained policies are judged."""
