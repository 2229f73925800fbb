"""What the blocks of all kinds of judges have in common; each kind is in ``judge_blocks``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from rlli_jax.errors import InputError
from rlli_jax.experiments.yaml_blocks import Block
from rlli_jax.judges import Judge, scale_of
from rlli_jax.judges.examination import Check

if TYPE_CHECKING:  # slow to import
    from rich.console import Console

    from rlli_jax.oracle import Asker, Budget
    from rlli_jax.personas import Population


class JudgeBlock(Block):
    """What every judge has."""

    paid: ClassVar[bool] = False
    """Whether it is a language model, which is asked in words and whose answers are kept."""
    own_users: ClassVar[bool] = False
    """Whether it knows its users, so that none need be given."""

    scale: str | tuple[str, ...] = "adjectives"
    """A name, a-b, or labels from worst to best."""

    @property
    def described(self) -> bool:
        """Whether it reads a description in place of seeing the picture."""
        return False

    @property
    def required(self) -> tuple[Check, ...]:
        """Checks of the examination that it must not fail."""
        return ()

    @property
    def note(self) -> str:
        """What people must be told before it is asked; empty if nothing."""
        return ""

    def users(self, judge: Judge) -> "Population | None":
        """The people that the judge knows; None if it takes any."""
        return None

    def asked(self, judge: Judge) -> int:
        """How often the judge is asked each question."""
        raise NotImplementedError

    def examined(self, kept: bool) -> bool:
        """Whether it is examined before its table is asked; ``kept``: in a run directory."""
        return False

    def examining(self) -> dict[str, Any]:
        """How it is examined: fields of :class:`rlli_jax.judges.examination.examine.Setting`."""
        raise InputError(
            "judge.kind: recorded scores are not asked, so they cannot be examined; rlli run shows "
            "their reliability."
        )

    @property
    def people(self) -> int:
        """Of a questionnaire, who are told by half of their answers in the examination."""
        return 0

    @contextmanager
    def asker(
        self, judge: Judge, console: "Console", left: "Budget | None" = None
    ) -> "Iterator[Asker]":
        """What asks the judge, with its store and its budget if it has them; ``left`` of it."""
        from rlli_jax.oracle import Asker

        yield Asker(judge)

    @field_validator("scale", mode="before")
    @classmethod
    def _texts(cls, scale: Any) -> Any:
        if isinstance(scale, str):
            return scale
        if not isinstance(scale, list | tuple):
            raise ValueError("write a name, two ends such as 1-7, or a list of labels")
        for label in scale:
            if isinstance(label, bool) or not isinstance(label, str | int | float):
                raise ValueError(
                    f"the label {str(label).lower()} is no text; put it into quotes "
                    "(YAML reads yes, no, on and off as true and false)"
                )
        return tuple(str(label) for label in scale)

    @field_validator("scale")
    @classmethod
    def _known(cls, scale: str | tuple[str, ...]) -> str | tuple[str, ...]:
        try:
            return scale_of(scale).name if isinstance(scale, str) else scale_of(scale).labels
        except InputError as error:
            raise ValueError(str(error)) from None
