"""Who generates pictures, of which prompts: one block for each kind of provider, which makes it."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator
from rich.console import Console

from rlli_jax.catalog import Catalog, Picture
from rlli_jax.catalog.catalog import near_misses
from rlli_jax.errors import InputError, listed
from rlli_jax.experiments.yaml_blocks import Block, Positive, Whole, beside_file, each_once
from rlli_jax.generation import (
    Kept,
    PictureBudget,
    PictureStore,
    Provider,
    make_pictures,
    plan_pictures,
)
from rlli_jax.generation.grouping import Group
from rlli_jax.generation.making import PicturePlan

if TYPE_CHECKING:
    from rlli_jax.generation.diffusers import DiffusersProvider

Price = Annotated[float, Field(ge=0)]
UNMADE = {"kind", "watts"}  # keys of a block that its provider need not know


class Asked(NamedTuple):
    """What is asked of all providers."""

    prompts: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    distance: float | None = None


class ProviderBlock(Block):
    """What every provider that generates has."""

    name: Annotated[str, Field(min_length=1)]
    """Of the provider, in tables and reports; no part of a picture's key."""
    revision: str | None = None
    """Any text, such as the version of the model; another one makes new pictures."""
    watts: Annotated[float, Field(gt=0)] | None = None
    """Power while it makes a picture, for the energy in reports. If not given, what the processor's
    counters (RAPL) tell of pipelines in this process, where they can be read."""

    def make(self, asked: Asked) -> Provider:
        """The provider; nothing is loaded or connected before a picture is made."""
        raise NotImplementedError


class CommandProviderBlock(ProviderBlock):
    """A program that writes a picture for a prompt."""

    kind: Literal["command"]
    """Which form of this block it is."""
    command: str | tuple[str, ...]
    """The program and its words, with {prompt} and {output}, and maybe {seed} and {python}. Status
    3 says that it refuses the prompt; files among the words count by their content."""
    folder: Annotated[Path, Field(validate_default=True)] = Path(".")
    """In which it runs; the config's own if not given."""
    seed: Whole = 0
    """For {seed}."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a picture may take."""
    concurrency: Positive = 1
    """Programs that run side by side."""
    price: Price | None = 0.0
    """Of a picture; null: nobody knows."""

    _paths = field_validator("folder")(beside_file)

    @field_validator("command")
    @classmethod
    def _words(cls, command: str | tuple[str, ...]) -> tuple[str, ...]:
        from rlli_jax.generation.command import check_command

        try:
            words = tuple(shlex.split(command)) if isinstance(command, str) else command
            check_command(words)
        except ValueError as error:  # InputError is one
            raise ValueError(str(error)) from None
        return words

    def make(self, asked: Asked) -> Provider:
        """The provider."""
        from rlli_jax.generation.command import CommandProvider

        return CommandProvider(**self.model_dump(exclude=UNMADE))


class ImagesAPIBlock(ProviderBlock):
    """A model behind an OpenAI-compatible server; the key comes from the environment."""

    kind: Literal["images_api"]
    """Which form of this block it is."""
    model: str
    """As the server calls it."""
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d*x[1-9]\d*)$")] | None = None
    """Pixels, such as 1024x1024; a picture of another size is a hole. Not sent if not given."""
    quality: str | None = None
    """As the server calls it; not sent if not given."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request, such as response_format: b64_json."""
    base_url: str | None = None
    """Of the server, with /v1; OpenAI's own if not given."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    concurrency: Positive = 4
    """Pictures under way together."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """The most that the server allows."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds; a picture that comes later may be paid for and is asked for again."""
    retries: Annotated[int, Field(ge=0)] = 6
    """Further tries after a failure that may pass."""
    price: Price | None = None
    """Of a picture, for plans, budgets and reports."""

    def make(self, asked: Asked) -> Provider:
        """The provider."""
        from rlli_jax.generation.images_api import ImagesAPIProvider
        from rlli_jax.judges.server import Limits

        limiting = {field.name for field in fields(Limits)}
        limits = Limits(**self.model_dump(include=limiting))
        return ImagesAPIProvider(limits=limits, **self.model_dump(exclude={*UNMADE, *limiting}))


class DiffusersBlock(ProviderBlock):
    """A pipeline of diffusers in this process; needs the extra ``diffusers``."""

    kind: Literal["diffusers"]
    """Which form of this block it is."""
    model: str
    """Name or folder of a pipeline, whose class is found automatically; or
    tiny:stable-diffusion, tiny:stable-diffusion-3: random weights, which need no file."""
    steps: Positive = 30
    """Of denoising."""
    guidance: Annotated[float, Field(ge=0)] | None = None
    """Scale of classifier-free guidance; the pipeline's own if not given."""
    seed: Whole = 0
    """Of the noise; all prompts begin with the same."""
    width: Positive | None = None
    """Pixels; the model's own if not given."""
    height: Positive | None = None
    """Pixels; the model's own if not given."""
    scheduler: str | None = None
    """A class of diffusers, such as DPMSolverMultistepScheduler; the model's own if not given."""
    negative_prompt: str | None = None
    """What is to be avoided."""
    lora: str | None = None
    """File, folder or name of low-rank weights on top of the model."""
    lora_scale: float = 1.0
    """Factor of these weights."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights."""
    device: str = "auto"
    """Where the model runs; auto: a GPU if there is one."""
    shared_steps: Annotated[Whole, Field(ge=0)] = 0
    """So many first steps are denoised once for a group of prompts, with its common prompt and
    without lora; then each prompt goes on by itself."""

    @field_validator("model", "lora")
    @classmethod
    def _file_beside(cls, model: str | None, info: ValidationInfo) -> str | None:
        """A file or folder beside the config; what is neither is a name."""
        if model is None:
            return None
        path = beside_file(Path(model).expanduser(), info)
        return str(path) if path is not None and path.exists() else model

    @model_validator(mode="after")
    def _not_more_than_all(self) -> "DiffusersBlock":
        if not 0 <= self.shared_steps <= self.steps:
            raise ValueError(
                f"shared_steps is {self.shared_steps}, but there are {self.steps} steps in all; "
                "share at most these"
            )
        return self

    def make(self, asked: Asked) -> Provider:
        """The provider."""
        from rlli_jax.generation.diffusers import DiffusersProvider, require_diffusers
        from rlli_jax.generation.sampling import Lora, Sampling, Weights

        require_diffusers()
        return DiffusersProvider(
            self.name,
            Weights(**self.model_dump(include=set(Weights._fields))),
            Sampling(**self.model_dump(include=set(Sampling._fields))),
            lora=None if self.lora is None else Lora(self.lora, self.lora_scale),
            shared_steps=self.shared_steps,
            **asked._asdict(),
        )


AnyProvider = Annotated[
    CommandProviderBlock | ImagesAPIBlock | DiffusersBlock, Field(discriminator="kind")
]


class GroupBlock(Block):
    """Prompts that share their first denoising steps."""

    prompt: Annotated[str, Field(min_length=1)]
    """What they have in common, with which the shared steps are denoised."""
    requests: Annotated[tuple[str, ...], Field(min_length=1)]
    """The prompts, as catalog.generate.requests has them."""


class PictureBudgetBlock(Block):
    """The most that one command may use up; what is left is made later."""

    pictures: Annotated[Whole, Field(ge=0)] | None = None
    """Pictures made."""
    money: Annotated[float, Field(ge=0)] | None = None
    """In the currency of the prices."""


class GenerateBlock(Block):
    """Pictures that providers generate. Each is made once and kept in a store; a prompt that a
    provider refuses is a hole."""

    requests: tuple[str, ...] | Path
    """The prompts, or a text file with one a line."""
    providers: Annotated[tuple[AnyProvider, ...], Field(min_length=1)]
    """Who makes a picture of each."""
    groups: tuple[GroupBlock, ...] = ()
    """Which prompts share denoising steps, for providers with shared_steps."""
    group_distance: Annotated[float, Field(ge=0, le=2)] | None = None
    """Groups prompts that are in no stated group by the cosine distance of their embeddings by the
    provider's text encoder: any two in a group are at most so far apart."""
    store: Path | None = None
    """A folder for the pictures; else the user's own."""
    budget: PictureBudgetBlock = PictureBudgetBlock()
    """The most that one command may use up."""

    _paths = field_validator("store")(beside_file)

    @field_validator("requests", mode="before")
    @classmethod
    def _file_or_list(cls, requests: Any, info: ValidationInfo) -> Any:
        if isinstance(requests, str | Path):
            return beside_file(Path(requests), info)
        if isinstance(requests, list | tuple):
            texts = []
            for request in requests:
                if not isinstance(request, str) or not request.strip():
                    raise ValueError(
                        f"the prompt {request!r} is empty or no text; write a sentence, in quotes "
                        "where YAML would read it as something else"
                    )
                texts.append(" ".join(request.split()))
            return each_once(texts)
        return requests

    @field_validator("providers")
    @classmethod
    def _names(cls, providers: tuple[ProviderBlock, ...]) -> tuple[ProviderBlock, ...]:
        each_once([provider.name for provider in providers])
        return providers

    @model_validator(mode="after")
    def _some(self) -> "GenerateBlock":
        if self.requests == ():
            raise ValueError("requests: there is no prompt; give at least one")
        return self

    def prompts(self) -> list[str]:
        """What is asked of every provider. Raises InputError for a mistake in the file."""
        requests = self.requests
        if isinstance(requests, Path):
            requests = _prompts_in(requests)
        return list(requests)

    def _made(self, prompts: Sequence[str]) -> list[Provider]:
        """The providers. Raises InputError for a group of prompts that are not asked for."""
        grouped: list[str] = []
        for i, group in enumerate(self.groups):
            for request in group.requests:
                if request not in prompts:
                    raise InputError(
                        f"catalog.generate.groups.{i}: {request!r} is none of the requests"
                        f"{near_misses(request, prompts)}"
                    )
                if request in grouped:
                    raise InputError(
                        f"catalog.generate.groups.{i}: {request!r} is in a group already; keep it "
                        "in one."
                    )
                grouped.append(request)
        groups = tuple(Group(group.prompt, group.requests) for group in self.groups)
        asked = Asked(tuple(prompts), groups, self.group_distance)
        return [block.make(asked) for block in self.providers]

    def measurable(self) -> tuple[list["DiffusersProvider"], str]:
        """The providers whose steps can be timed, and the first prompt.

        Raises:
            InputError: one of the providers is of another kind.
        """
        others = [block.name for block in self.providers if not isinstance(block, DiffusersBlock)]
        if others:
            raise InputError(
                f"catalog.generate.providers: the denoising steps of {listed(others)} cannot be "
                "set; measure providers of kind diffusers alone."
            )
        prompts = self.prompts()
        return cast("list[DiffusersProvider]", self._made(prompts)), prompts[0]

    def plan(self) -> PicturePlan:
        """What having the pictures made would mean now."""
        with closing(PictureStore(self.store)) as store:
            prompts = self.prompts()
            return plan_pictures(self._made(prompts), prompts, store)

    def load(self, console: Console | None = None) -> Catalog:
        """Have missing pictures made, and open all.

        Raises:
            InputError: as :func:`rlli_jax.generation.make_pictures`.
        """
        prompts = self.prompts()
        providers = self._made(prompts)
        budget = PictureBudget(**self.budget.model_dump())
        with closing(PictureStore(self.store)) as store:
            kept = make_pictures(providers, prompts, store, budget=budget, console=console)
            pictures = {
                pair: Picture.from_file(store.path(record))
                for pair, record in kept.items()
                if record.picture is not None
            }
        if not pictures:
            reasons = sorted({record.reason for record in kept.values()})
            raise InputError(
                f"catalog.generate: every prompt was refused ({reasons[0].rstrip('.')}); change "
                "the requests or the providers."
            )
        watts = {block.name: block.watts for block in self.providers}
        return Catalog(
            providers=tuple(provider.name for provider in providers),
            requests=tuple(prompts),
            pictures=pictures,
            made={pair: about(record, watts[pair[1]]) for pair, record in kept.items()},
        )


def about(kept: Kept, watts: float | None) -> Mapping[str, Any]:
    """How a picture was made, for reports; ``watts``: stated of its provider."""
    made = kept.model_dump(exclude={"picture", "made_at"}, exclude_none=True)
    return made if watts is None else made | {"watts": watts}


def _prompts_in(path: Path) -> tuple[str, ...]:
    """The prompts of a text file, one a line; blank lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(
            f"catalog.generate.requests: {path} cannot be read ({reason}); give a text file with "
            "one prompt a line, or a list."
        ) from None
    prompts = [" ".join(line.split()) for line in lines if line.strip()]
    if not prompts:
        raise InputError(f"catalog.generate.requests: {path} holds no prompt; write one a line.")
    try:
        return each_once(prompts)
    except ValueError as error:
        raise InputError(f"catalog.generate.requests: {path}: {error}.") from None
