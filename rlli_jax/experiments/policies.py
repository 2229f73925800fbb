"""The policies of a study: those that learn, by any learner, and what is common to all."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    WrapValidator,
    create_model,
    model_validator,
)

from rlli_jax.envs.contract import Env
from rlli_jax.errors import InputError
from rlli_jax.experiments.yaml_blocks import Block, Positive
from rlli_jax.learners import LEARNERS, Kind, learner_kind
from rlli_jax.learners.core import Learner


def fit_to_learner(block: dict[str, Any], where: str, overrides: Sequence[str]) -> None:
    """Leave out of a policy what its file gave for another learner than an override names.

    Keys that the new learner has stay, unless they make no config of it together; then its
    defaults are taken. Keys that overrides give stay as they are, and what is left out is said.

    Args:
        block: of the policy, changed in place.
        where: its path, such as ``policies.PPO``.
        overrides: paths of the keys that overrides give.
    """
    name = block["learner"]
    if where in overrides or not isinstance(name, str) or not (name in LEARNERS or ":" in name):
        return
    kind, left_out = learner_kind(name), []

    def keep(part: str, wanted: Callable[[str], bool]) -> None:
        for key in list(block[part]):
            given = {f"{where}.{part}", f"{where}.{part}.{key}"} & set(overrides)
            if not given and not wanted(key):
                del block[part][key]
                left_out.append(f"{part}.{key}")

    for part, known in (("config", kind.config), ("hyperparams", kind.hyperparams)):
        if isinstance(block.get(part), dict):
            names = {field.name for field in fields(known)}
            keep(part, names.__contains__)
            try:
                known(**block[part])
            except (InputError, TypeError, ValueError):
                keep(part, lambda key: False)
    if left_out:
        warnings.warn(
            f"{where} learns by {name}, as an override says: left out what the file gives for "
            f"another learner, {', '.join(left_out)}.",
            stacklevel=2,
        )


class Learned(Block):
    """A policy that learns for a number of iterations (collect, update).

    The keys of ``config`` and ``hyperparams`` are those of the learner, see :func:`learned`.
    """

    learns: ClassVar[bool] = True

    iterations: Positive
    """How often the learner collects steps and updates."""
    config: Any = None
    """What decides shapes; a change compiles anew."""
    hyperparams: Any = None
    """What a sweep may vary within one compilation."""
    learner: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """Which learner: a name, or the import path package.module:attribute of a
    rlli_jax.learners.Kind."""

    @classmethod
    def kind_of(cls, learner: str) -> Kind:
        """What there is to know of a learner, by its name."""
        return learner_kind(learner)

    @model_validator(mode="before")
    @classmethod
    def _schedules_span_the_training(cls, block: Any) -> Any:
        if not isinstance(block, dict) or "learner" not in block:
            return block
        if not isinstance(block.get("hyperparams", {}), dict):
            return block
        kind, total = cls.kind_of(block["learner"]), block.get("iterations")
        schedules = {"total_iterations": total, "anneal": kind.anneal}
        known = [field.name for field in fields(kind.hyperparams)]
        hyperparams = {name: schedules[name] for name in schedules if name in known}
        hyperparams |= block.get("hyperparams", {})
        if hyperparams.get("total_iterations", total) != total:
            raise ValueError("hyperparams.total_iterations follows from iterations; remove it")
        return block | {"hyperparams": hyperparams}

    @classmethod
    def for_content(cls, content: Any) -> "type[Learned] | None":
        """The block whose keys ``content`` may have; None if it names no learner by a path."""
        if cls.model_fields["learner"].annotation is not str:
            return cls
        learner = content.get("learner") if isinstance(content, dict) else None
        return learned(cls, learner) if isinstance(learner, str) and ":" in learner else None

    def __reduce__(self) -> Any:
        # The class of a learner's blocks is made when it is asked for, so pickle cannot find it.
        return _learned_block, (type(self).__base__, dict(self))

    @property
    def program(self) -> tuple:
        """What decides compiled programs, beside the environment."""
        return self.kind_of(self.learner).make, repr(self.config)

    def make(self, env: Env) -> Learner:
        """The learner on an environment."""
        return self.kind_of(self.learner).make(env, self.config)


AnyLearned = TypeVar("AnyLearned", bound=Learned)


@cache
def learned(base: type[AnyLearned], learner: str) -> type[AnyLearned]:
    """The block of one learner: ``base`` with the keys of its config and its hyperparameters.

    Raises InputError as :func:`rlli_jax.learners.learner_kind` does.
    """
    kind = base.kind_of(learner)

    def key(name: str, annotation: Any, **default: Any) -> Any:
        return annotation, Field(description=base.model_fields[name].description, **default)

    return create_model(
        base.__name__.removesuffix("Learned") + kind.config.__name__.removesuffix("Config"),
        __base__=base,
        __doc__=f"A policy that learns by {learner}; keys as in {kind.make.__module__}.",
        # Its fields have their descriptions; to look for docstrings takes half a second in all.
        __cls_kwargs__={"use_attribute_docstrings": False},
        config=key("config", kind.config, default=kind.config()),
        hyperparams=key("hyperparams", kind.hyperparams, default=kind.hyperparams()),
        learner=key("learner", Literal[learner]),
    )


def _learned_block(base: type[AnyLearned], values: dict[str, Any]) -> AnyLearned:
    return learned(base, values["learner"]).model_construct(**values)


OWN = "own"  # tag of learners that are named by their import path


def by_learner(base: type[Learned], *others: type[Block]) -> Any:
    """The type of a policy block, which ``learner`` tells: that of a learner, or one of ``others``.

    Learners are those of :data:`rlli_jax.learners.LEARNERS`, and any other by its import path.
    """
    told = {b: get_args(b.model_fields["learner"].annotation) for b in others}
    tags = {name: name for name in LEARNERS}
    tags |= {name: names[0] for names in told.values() for name in names}

    def tag(block: Any) -> str | None:
        learner = (
            block.get("learner") if isinstance(block, dict) else getattr(block, "learner", None)
        )
        if not isinstance(learner, str):
            return None
        return OWN if ":" in learner else tags.get(learner)

    def own(block: Any, handler: Any, info: ValidationInfo) -> Any:
        kind = base.for_content(block)
        return handler(block) if kind is None else kind.model_validate(block, context=info.context)

    return Annotated[
        Union[
            *(Annotated[learned(base, name), Tag(name)] for name in LEARNERS),
            *(Annotated[block, Tag(names[0])] for block, names in told.items()),
            Annotated[base, WrapValidator(own), Tag(OWN)],
        ],
        Discriminator(
            tag,
            custom_error_type="unknown_learner",
            custom_error_message=f"learner must be one of {', '.join(tags)}, or the import path "
            "package.module:attribute of another",
        ),
    ]
