"""How generated pictures were made, as the gallery tells it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlli_jax.report.labels import duration
from rlli_jax.run_files.generated import GeneratedPicture, GeneratedPictures

# Said elsewhere, digests, or what every picture of a study has.
UNSAID = ("kind", "prompt", "files", "versions", "common", "shared_steps", "model_content",
          "lora_content")  # fmt: skip


@dataclass(frozen=True)
class Told:
    """How one picture was made, or why there is none."""

    settings: str
    shared: str
    reason: str


@dataclass(frozen=True)
class Generated:
    """How the pictures of a run were made."""

    told: Mapping[tuple[int, int], Told]
    """By (request, provider)."""
    saved: str
    """How many denoising steps sharing saved; empty if none were shared."""


def load(path: Path) -> Generated | None:
    """Of a run directory; None for pictures that were given. InputError if it is damaged."""
    file = path / "generated.json"
    if not file.exists():
        return None
    pictures = GeneratedPictures.read(file).pictures
    told = {(each.request, each.provider): _told(each) for each in pictures}
    return Generated(told, _saved(pictures))


def _told(made: GeneratedPicture) -> Told:
    words = [f"{name} {value}" for name, value in _flat(made.settings)]
    if made.seconds is not None:
        words.append(f"made in {duration(made.seconds)}")
    shared = ""
    if made.shared_steps:
        total = made.shared_steps + (made.steps or 0)
        common = made.settings.get("common")
        shared = f"{made.shared_steps} of {total} steps shared, with the prompt “{common}”"
    return Told(", ".join(words), shared, made.reason)


def _saved(pictures: Sequence[GeneratedPicture]) -> str:
    groups: dict[tuple[int, Any], list[int]] = defaultdict(list)
    for made in pictures:
        if made.shared_steps:
            groups[made.provider, made.settings.get("common")].append(made.shared_steps)
    saved = sum(steps[0] * (len(steps) - 1) for steps in groups.values())
    if not saved:
        return ""
    whole = sum(made.shared_steps + (made.steps or 0) for made in pictures)
    return f"Sharing the first steps of groups of prompts saved {saved:,} of {whole:,} steps."


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if name in UNSAID or value is None or value in ("", [], {}):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif isinstance(value, list):
            yield name.replace("_", " "), " ".join(map(str, value))
        else:
            yield name.replace("_", " "), str(value)
