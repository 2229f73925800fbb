"""Pipelines of diffusers: loaded by name or folder, prepared and called."""

from __future__ import annotations

import copy
import difflib
import inspect
import json
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlli_jax.errors import InputError
from rlli_jax.generation.denoising import (
    Shared,
    StepClock,
    denoiser,
    finish,
    settle,
    share_steps,
)
from rlli_jax.generation.meters import Meter, Spent
from rlli_jax.generation.sampling import Lora, Sampling, Weights
from rlli_jax.generation.tiny_pipelines import TINY, tiny_pipeline

REMEMBERED = 256  # shared parts, whose latents are at most a few megabytes each


class RefusedError(Exception):
    """The model's safety checker refuses a picture."""


_NEWEST: dict[Weights, Pipeline] = {}


def load(weights: Weights) -> Pipeline:
    """A pipeline; the newest stays in memory, so that providers over one base share it.

    Raises:
        InputError: there is none, or it makes no pictures of prompts by denoising.
    """
    if weights not in _NEWEST:
        _NEWEST.clear()  # before the next one is loaded: memory is for one
        _NEWEST[weights] = Pipeline(weights)
    return _NEWEST[weights]


class Pipeline:
    """A pipeline of diffusers with its scheduler as it was loaded."""

    def __init__(self, weights: Weights) -> None:
        self.loaded = _loaded(weights)
        self.name = weights.model
        self.loaded.set_progress_bar_config(disable=True)
        self._parameters = inspect.signature(self.loaded.__call__).parameters
        if "prompt" not in self._parameters or not hasattr(self.loaded, "scheduler"):
            raise InputError(
                f"model {self.name}: a {type(self.loaded).__name__} makes no pictures of prompts "
                "by denoising; name a model that does."
            )
        self._scheduler = self.loaded.scheduler
        self._lora: Lora | None = None
        self._shared: OrderedDict[Any, Shared] = OrderedDict()

    def call(
        self,
        prompt: str,
        sampling: Sampling,
        *,
        lora: Lora | None = None,
        shared: Shared | None = None,
        clock: StepClock | None = None,
    ) -> Any:
        """The picture of a prompt (PIL, RGB): the ordinary pipeline's, or behind a shared part.

        ``clock``: times its steps, if given.

        Raises:
            InputError: the pipeline does not take the settings.
            RefusedError: its safety checker refuses the picture.
        """
        self._prepare(sampling, lora)
        generator = torch.Generator("cpu").manual_seed(sampling.seed)

        def run(generator: torch.Generator) -> Any:
            return self.loaded(generator=generator, **self._given(prompt, sampling))

        with nullcontext() if clock is None else clock.timing(self.loaded):
            if shared is not None:
                result = finish(run, self.loaded, generator, shared)
            else:
                result = run(generator)  # the ordinary pipeline's own call
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise RefusedError("the model's safety checker refused the picture")
        return result.images[0]

    def shared(self, prompt: str, sampling: Sampling, steps: int) -> tuple[Shared, Spent]:
        """The first steps of a prompt's picture, run once in a process, and what it took now."""
        key = prompt, sampling, steps
        meter = Meter()
        if key not in self._shared:
            self._prepare(sampling, None)
            generator = torch.Generator("cpu").manual_seed(sampling.seed)
            self._shared[key] = share_steps(
                lambda noise: self.loaded(generator=noise, **self._given(prompt, sampling)),
                self.loaded,
                generator,
                steps,
            )
            settle()
            if len(self._shared) > REMEMBERED:
                self._shared.popitem(last=False)
        return self._shared[key], meter.read()

    @torch.no_grad()
    def embedded(self, texts: Sequence[str]) -> np.ndarray:
        """What the pipeline's first text encoder makes of texts: [n, d], of unit length.

        Raises:
            InputError: it has none.
        """
        tokenizer = getattr(self.loaded, "tokenizer", None)
        encoder = getattr(self.loaded, "text_encoder", None)
        if tokenizer is None or encoder is None:
            raise InputError(
                f"model {self.name}: its pipeline has no text encoder by which prompts could be "
                "grouped; state the groups instead."
            )
        rows = []
        for text in texts:
            longest = min(tokenizer.model_max_length, 512)
            given = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            found = encoder(given.input_ids.to(encoder.device))
            pooled = getattr(found, "text_embeds", None)
            pooled = getattr(found, "pooler_output", None) if pooled is None else pooled
            pooled = found.last_hidden_state.mean(1) if pooled is None else pooled
            rows.append(pooled[0].float().cpu().numpy())
        made = np.stack(rows)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def _prepare(self, sampling: Sampling, lora: Lora | None) -> None:
        """A scheduler in its first state, and these low-rank weights or none."""
        self.loaded.scheduler = self._scheduler_of(sampling.scheduler)
        if lora == self._lora:
            return
        if self._lora is not None:
            self.loaded.unload_lora_weights()
            self._lora = None
        if lora is None:
            return
        try:
            self.loaded.load_lora_weights(lora.model, adapter_name="lora")
            self.loaded.set_adapters(["lora"], [lora.scale])
        except Exception as error:  # of many kinds, for files of many formats
            raise InputError(
                f"lora {lora.model}: it cannot be loaded onto {self.name} ({_short(error)}); give "
                "weights that are there and were trained on this model."
            ) from None
        self._lora = lora

    def _scheduler_of(self, name: str | None) -> Any:
        if name is None:
            return copy.deepcopy(self._scheduler)
        import diffusers

        kinds = [kind for kind in dir(diffusers) if kind.endswith("Scheduler")]
        if name not in kinds:
            close = difflib.get_close_matches(name, kinds, 3, 0.5)
            advice = f"did you mean {' or '.join(close)}?" if close else "see its documents."
            raise InputError(f"scheduler {name}: diffusers has no scheduler of this name; {advice}")
        fitting = {kind.__name__ for kind in getattr(self._scheduler, "compatibles", ())}
        own = type(self._scheduler).__name__
        flows = "FlowMatch" in name, "FlowMatch" in own
        if name not in fitting and flows[0] != flows[1]:
            listed = ", ".join(sorted(fitting | {own}))
            raise InputError(
                f"scheduler {name}: {self.name} was trained for another kind of noise; take one of "
                f"{listed}."
            )
        return getattr(diffusers, name).from_config(self._scheduler.config)

    def _given(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        given = {
            "guidance_scale": sampling.guidance,
            "width": sampling.width,
            "height": sampling.height,
            "negative_prompt": sampling.negative_prompt,
        }
        for name, value in given.items():
            if value is not None and name not in self._parameters:
                raise InputError(
                    f"model {self.name}: a {type(self.loaded).__name__} takes no "
                    f"{name.removesuffix('_scale')}; remove it."
                )
        some = {name: value for name, value in given.items() if value is not None}
        return {"prompt": prompt, "num_inference_steps": sampling.steps, **some}


def _loaded(weights: Weights) -> Any:
    """A pipeline of the class that the model names, on its device."""
    device = weights.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, weights.dtype)
    if weights.model.startswith("tiny:"):
        if weights.model not in TINY:
            raise InputError(f"model {weights.model}: the tiny models are {', '.join(TINY)}.")
        tiny = _placed(tiny_pipeline(weights.model), device)
        return tiny if dtype == torch.float32 else tiny.to(dtype)
    require_pipeline(weights.model)
    from diffusers import DiffusionPipeline

    try:
        pipeline = DiffusionPipeline.from_pretrained(
            weights.model, revision=weights.revision, dtype=dtype
        )
    except Exception as error:  # of many kinds: the hub's, the network's, the files'
        raise InputError(
            f"model {weights.model}: it cannot be loaded ({_short(error)}); give the folder or the "
            "name of a pipeline of diffusers."
        ) from None
    denoiser(pipeline)
    return _placed(pipeline, device)


def _placed(pipeline: Any, device: str) -> Any:
    """On a device."""
    try:
        return pipeline.to(device)
    except Exception as error:  # of many kinds: no such device, none that is there, no memory
        raise InputError(
            f"device {device}: the model cannot be put there ({_short(error)}); give auto, cpu or "
            "cuda, or a smaller model."
        ) from None


def require_pipeline(model: str) -> None:
    """Raises InputError for a folder that is no pipeline, or is not there."""
    path = Path(model).expanduser()
    if path.is_dir():
        try:
            index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
            sound = "_class_name" in index
        except (OSError, ValueError):
            sound = False
        if not sound:
            raise InputError(
                f"model {model}: this folder is no pipeline of diffusers, it has no "
                "model_index.json; give one that save_pretrained wrote."
            )
    elif model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise InputError(f"model {model}: there is no such folder; give one that is there.")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
