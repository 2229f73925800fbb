"""Denoising steps that several pictures share, in any pipeline of diffusers.

The first n steps are run once, with the common prompt of a group; each picture goes on from there
with its own. That is the split of Du et al., "Exploring Collaborative Distributed Diffusion-Based
AI-Generated Content (AIGC) in Wireless Networks" (IEEE Network 2024): a base station denoises what
users with similar prompts have in common, and they finish on their own.

No pipeline is rewritten. A pipeline calls its scheduler once a step; what a scheduler is given and
gives back is all that a step changes. So the shared part is an ordinary call that ends after n
steps, and every own part is an ordinary call whose first n steps do nothing (the denoiser is not
run) and whose scheduler, noise and latents are then put where the shared part left them. With n = 0
the call is the ordinary one.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch


class Shared(NamedTuple):
    """Where the shared part ended."""

    latents: torch.Tensor
    scheduler: Mapping[str, Any]  # its attributes
    noise: torch.Tensor  # state of the generator
    steps: int


class StepClock:
    """Times the denoising steps that a call of a pipeline really runs."""

    def __init__(self) -> None:
        self.steps = 0
        self._started = self._ended = 0.0

    @property
    def seconds_per_step(self) -> float | None:
        """None if no step was run."""
        return (self._ended - self._started) / self.steps if self.steps else None

    @contextmanager
    def timing(self, pipeline: Any) -> Iterator[None]:
        """Time what is called meanwhile, from the denoiser's first run to the last step's end."""
        scheduler, model = pipeline.scheduler, denoiser(pipeline)
        step, forward = scheduler.step, model.forward

        @wraps(forward)
        def begun(*args: Any, **kwargs: Any) -> Any:
            if not self.steps:
                settle()
                self._started = self._started or time.monotonic()
            return forward(*args, **kwargs)

        @wraps(step)
        def counted(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            settle()
            self.steps, self._ended = self.steps + 1, time.monotonic()
            return result

        with _replaced(scheduler, "step", counted), _replaced(model, "forward", begun):
            yield


def settle() -> None:
    """Wait until a GPU has done what it was given, so that a clock tells the truth."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _EnoughError(Exception):
    def __init__(self, latents: torch.Tensor) -> None:
        super().__init__()
        self.latents = latents


def denoiser(pipeline: Any) -> torch.nn.Module:
    """What is run once a step: the transformer, or the U-Net."""
    found = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    assert isinstance(found, torch.nn.Module)  # a pipeline was checked when it was loaded
    return found


def share_steps(
    call: Callable[[torch.Generator], Any], pipeline: Any, generator: torch.Generator, steps: int
) -> Shared:
    """Run the first steps of a call of a pipeline.

    Args:
        call: of ``pipeline``, given the generator.
        generator: in its first state.
        steps: from 1 to fewer than the call has.
    """
    scheduler = pipeline.scheduler
    step, count = scheduler.step, 0

    @wraps(step)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        result = step(*args, **kwargs)
        count += 1
        if count == steps:
            raise _EnoughError(result[0])
        return result

    with _replaced(scheduler, "step", counted):
        try:
            call(generator)
        except _EnoughError as enough:
            latents = enough.latents
        else:
            raise AssertionError(f"the pipeline made fewer than {steps} steps")
    return Shared(latents, _state(scheduler), generator.get_state(), steps)


def finish(
    call: Callable[[torch.Generator], Any],
    pipeline: Any,
    generator: torch.Generator,
    shared: Shared,
) -> Any:
    """The result of a call of a pipeline whose first steps are those that were shared.

    Args:
        call: as the shared part's but for the prompt.
        pipeline: with a scheduler in its first state.
        generator: in its first state.
    """
    scheduler, model = pipeline.scheduler, denoiser(pipeline)
    step, forward = scheduler.step, model.forward
    signature, done = inspect.signature(step), 0

    @wraps(step)
    def resumed(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done >= shared.steps:
            return step(*args, **kwargs)
        done += 1
        given = signature.bind(*args, **kwargs).arguments
        latents = given["sample"]
        if done == shared.steps:
            vars(scheduler).update(copy.deepcopy(dict(shared.scheduler)))
            generator.set_state(shared.noise)
            latents = shared.latents.clone()
        # Some schedulers return a second tensor, which pipelines of text to picture do not use.
        return (latents, latents)

    @wraps(forward)
    def idle(*args: Any, **kwargs: Any) -> Any:
        if done >= shared.steps:
            return forward(*args, **kwargs)
        named = "hidden_states" if "hidden_states" in kwargs else "sample"
        return (torch.zeros_like(args[0] if args else kwargs[named]),)

    with _replaced(scheduler, "step", resumed), _replaced(model, "forward", idle):
        return call(generator)


def _state(scheduler: Any) -> dict[str, Any]:
    """The attributes of a scheduler, copied."""
    return copy.deepcopy({k: v for k, v in vars(scheduler).items() if k != "step"})


@contextmanager
def _replaced(thing: Any, name: str, value: Any) -> Iterator[None]:
    """A method of one object, replaced for a while."""
    before = vars(thing).get(name)
    vars(thing)[name] = value
    try:
        yield
    finally:
        if before is None:
            vars(thing).pop(name, None)
        else:
            vars(thing)[name] = before
