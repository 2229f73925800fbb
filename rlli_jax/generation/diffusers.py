"""A provider that is a pipeline of diffusers in this process, with steps that a group shares.

Torch is imported when a picture is made, or prompts are grouped by their embeddings; plans need
none of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rlli_jax.errors import InputError
from rlli_jax.generation.base import Made, NotMade, Outcome, Refused
from rlli_jax.generation.grouping import Group, nearby
from rlli_jax.generation.meters import NOTHING, Meter, Spent
from rlli_jax.generation.sampling import Lora, Sampling, Weights, commit_of, content_of

if TYPE_CHECKING:
    from rlli_jax.generation.pipelines import Pipeline

LIBRARIES = ("diffusers", "torch", "transformers")


class DiffusersProvider:
    """Denoises in this process; nothing is loaded before a picture is made.

    A picture is denoised alone, never in a batch with others, so that it does not depend on them.

    Args:
        name: of the provider.
        weights: which model.
        sampling: how.
        lora: low-rank weights on top, or none.
        shared_steps: so many first steps are run once for a group, with its common prompt and
            without ``lora``: on the base that providers share.
        groups: of prompts, stated.
        distance: groups those of ``prompts`` that are in no stated group and whose text embeddings
            are at most so far apart; see :func:`rlli_jax.generation.grouping.nearby`.
        prompts: all that there are.

    Raises:
        InputError: diffusers is not installed, or there are fewer steps than are to be shared.
    """

    price: float | None = 0.0

    def __init__(
        self,
        name: str,
        weights: Weights,
        sampling: Sampling,
        *,
        lora: Lora | None = None,
        shared_steps: int = 0,
        groups: Sequence[Group] = (),
        distance: float | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        if not 0 <= shared_steps <= sampling.steps:
            raise InputError(
                f"provider {name}: shared_steps is {shared_steps}, but there are {sampling.steps} "
                "steps in all; share at most these."
            )
        self.name, self._weights, self._sampling, self._lora = name, weights, sampling, lora
        self._shared_steps, self._stated = shared_steps, tuple(groups)
        self._distance, self._prompts = distance, tuple(prompts)

    @cached_property
    def _common(self) -> dict[str, str]:
        """Prompt -> the common prompt of its group."""
        if not self._shared_steps:
            return {}
        stated = {member: group.prompt for group in self._stated for member in group.members}
        rest = [prompt for prompt in self._prompts if prompt not in stated]
        if self._distance is None or len(rest) < 2:
            return stated
        found = nearby(rest, self._pipeline.embedded(rest), self._distance)
        return stated | {member: group.prompt for group in found for member in group.members}

    @cached_property
    def _identity(self) -> Mapping[str, Any]:
        weights, lora = self._weights, self._lora
        return {
            "model": weights.model,
            "model_content": content_of(weights.model),
            "dtype": weights.dtype,
            "lora": None if lora is None else lora.model,
            "lora_content": None if lora is None else content_of(lora.model),
            "lora_scale": None if lora is None else lora.scale,
            "versions": {name: version(name).partition(".")[0] for name in LIBRARIES},
        }

    @property
    def _revisions(self) -> Mapping[str, str | None]:
        """Commits of what has a name on Hugging Face, as far as it is on this machine. Not cached,
        for making a picture may download it, or a newer one."""
        weights, lora = self._weights, self._lora
        found = {"revision": commit_of(weights.model, weights.revision) or weights.revision}
        if lora is not None and (commit := commit_of(lora.model, None)) is not None:
            found["lora_revision"] = commit
        return found

    @property
    def _pipeline(self) -> Pipeline:
        from rlli_jax.generation.pipelines import load

        return load(self._weights)

    def settings(self, prompt: str) -> Mapping[str, Any]:
        """Model, sampling, and the shared part; folders and files count by their content, names on
        Hugging Face by the commit that is on this machine."""
        common = self._common.get(prompt)
        return {
            "kind": "diffusers",
            **self._identity,
            **self._revisions,
            **self._sampling._asdict(),
            "shared_steps": 0 if common is None else self._shared_steps,
            "common": common,
            "prompt": prompt,
        }

    def batches(self, prompts: Sequence[str]) -> list[list[str]]:
        """The groups; a prompt that is in none is alone."""
        found: dict[tuple[bool, str], list[str]] = {}
        for prompt in prompts:
            common = self._common.get(prompt)
            key = (False, prompt) if common is None else (True, common)
            found.setdefault(key, []).append(prompt)
        return list(found.values())

    def steps(self, prompts: Sequence[str]) -> tuple[int, int]:
        """Denoising steps that making these takes, and how many more it would take without
        sharing."""
        shared = [len(batch) - 1 for batch in self.batches(prompts) if batch[0] in self._common]
        saved = self._shared_steps * sum(shared)
        return self._sampling.steps * len(prompts) - saved, saved

    def make(self, prompts: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
        """Denoise each; the first steps of a group once.

        Raises:
            InputError: the model cannot be loaded or does not take the settings.
        """
        pipeline, sampling, n = self._pipeline, self._sampling, self._shared_steps
        for batch in self.batches(prompts):
            common = self._common.get(batch[0])
            if common is None:
                call = partial(pipeline.call, batch[0], sampling, lora=self._lora)
                yield batch[0], _outcome(call, steps=sampling.steps)
            elif n == sampling.steps:
                call = partial(pipeline.call, common, sampling)
                outcome = _outcome(call, steps=0, shared_steps=n, sharers=len(batch))
                yield from ((prompt, outcome) for prompt in batch)
            else:
                yield from self._group(pipeline, common, batch)

    def denoise(self, prompt: str, steps: int) -> None:
        """Make the picture of a prompt in so many steps, sharing none, and keep nothing.

        Raises:
            InputError: the model cannot be loaded or does not take the settings.
        """
        self._pipeline.call(prompt, self._sampling._replace(steps=steps), lora=self._lora)

    def _group(
        self, pipeline: Pipeline, common: str, batch: Sequence[str]
    ) -> Iterator[tuple[str, Outcome]]:
        n = self._shared_steps
        try:
            shared, spent = pipeline.shared(common, self._sampling, n)
        except InputError:
            raise
        except Exception as error:  # of many kinds: memory, sizes that do not fit
            outcome = NotMade(_short(error), hopeless=True)
            yield from ((prompt, outcome) for prompt in batch)
            return
        for prompt in batch:
            call = partial(pipeline.call, prompt, self._sampling, lora=self._lora, shared=shared)
            yield (
                prompt,
                _outcome(
                    call,
                    steps=self._sampling.steps - n,
                    shared_steps=n,
                    before=spent.part(len(batch)),
                ),
            )


def require_diffusers() -> None:
    """Raises InputError if the packages are not installed."""
    for package in LIBRARIES:
        if find_spec(package) is None:
            raise InputError(
                f"kind diffusers: the package {package} is missing; pip install "
                "'rlli_jax[diffusers]'."
            )


def _outcome(
    call: Callable[..., Any],
    *,
    steps: int,
    shared_steps: int = 0,
    sharers: int = 1,
    before: Spent = NOTHING,
) -> Outcome:
    """The picture of a call, as a PNG; ``before``: what counts towards it already."""
    from rlli_jax.generation.denoising import StepClock
    from rlli_jax.generation.pipelines import RefusedError

    meter, clock = Meter(), StepClock()
    try:
        image = call(clock=clock)
    except InputError:
        raise
    except RefusedError as error:
        return Refused(str(error), 0.0)
    except Exception as error:  # of many kinds: memory, sizes that do not fit
        return NotMade(_short(error), hopeless=True)
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    spent = before.plus(meter.read().part(sharers))
    return Made(
        file.getvalue(), spent.seconds, spent.joules, 0.0, steps, shared_steps,
        clock.seconds_per_step,
    )  # fmt: skip


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
