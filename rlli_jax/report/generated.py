"""How generated pictures were made, as the gallery tells it; what making them took, and what
sharing denoising steps saved."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from rlli_jax.qoe import QoETable
from rlli_jax.report.labels import SPACE, conjunction, duration, number, percent, quantity
from rlli_jax.report.run import RunDirectory
from rlli_jax.report.section import of_file
from rlli_jax.run_files import read
from rlli_jax.run_files.generated import FILE, GeneratedPicture, GeneratedPictures

COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")  # ten digits tell one from another
# Said elsewhere, digests, or what every picture of a study has.
UNSAID = ("kind", "prompt", "files", "versions", "common", "shared_steps", "model_content",
          "lora_content", "lora_revision")  # fmt: skip


@dataclass(frozen=True)
class Told:
    """How one picture was made, or why there is none."""

    settings: str
    shared: str
    reason: str


def load(path: Path) -> Mapping[tuple[int, int], Told]:
    """How the pictures of a run were made, by (request, provider); none of those that were given.

    Raises:
        InputError: the file is damaged.
    """
    file = path / FILE
    pictures = GeneratedPictures.read(file).pictures if file.exists() else []
    return {(each.request, each.provider): _told(each) for each in pictures}


def _told(made: GeneratedPicture) -> Told:
    words = [f"{name} {value}" for name, value in _flat(made.settings)]
    if made.seconds is not None:
        words.append(f"made in {duration(made.seconds)}")
    shared = ""
    if made.shared_steps:
        common = made.settings.get("common")
        shared = f"{made.shared_steps} of {made.all_steps} steps shared, with the prompt “{common}”"
    return Told(", ".join(words), shared, made.reason)


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if name in UNSAID or value is None or value in ("", [], {}):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif isinstance(value, list):
            yield name.replace("_", " "), " ".join(map(str, value))
        else:
            yield name.replace("_", " "), COMMIT.sub(r"\1", str(value))


class Power(NamedTuple):
    """At what power a provider made pictures, and who says so."""

    watts: float
    stated: bool


@dataclass(frozen=True)
class Making:
    """What one provider took for its pictures, and what sharing denoising steps saved it."""

    pictures: int
    seconds: float | None
    """For a picture on average; None: not known."""
    cost: float
    steps: int
    """That were run, those of a group once; 0: not known."""
    saved: int
    """How many more they would have been without sharing."""
    seconds_per_step: float | None
    """Median over the pictures; None: not known."""
    power: Power | None
    """None: it was not measured, nor is it stated."""

    @property
    def saved_seconds(self) -> float | None:
        """The steps saved, each as long as the provider's steps were."""
        if not self.saved:
            return 0.0
        return None if self.seconds_per_step is None else self.saved * self.seconds_per_step

    def joules(self, seconds: float | None) -> float | None:
        """Energy of a time at the provider's power; None: not known."""
        return None if seconds is None or self.power is None else seconds * self.power.watts


def making(pictures: Sequence[GeneratedPicture]) -> Making:
    """What the pictures of one provider took, of those that are there."""
    made = [picture for picture in pictures if not picture.reason]
    groups: dict[Any, list[int]] = defaultdict(list)
    for picture in made:
        if picture.shared_steps:
            groups[picture.group].append(picture.shared_steps)
    own = sum(picture.steps or 0 for picture in made)
    seconds = [picture.seconds for picture in made if picture.seconds is not None]
    each = [picture.seconds_per_step for picture in made if picture.seconds_per_step is not None]
    return Making(
        pictures=len(made),
        seconds=fmean(seconds) if seconds else None,
        cost=sum(picture.cost or 0.0 for picture in made),
        steps=own + sum(steps[0] for steps in groups.values()),
        saved=sum(steps[0] * (len(steps) - 1) for steps in groups.values()),
        seconds_per_step=median(each) if each else None,
        power=_power(made),
    )


def _power(made: Sequence[GeneratedPicture]) -> Power | None:
    """As it is stated, else measured while pictures were made."""
    stated = [picture.watts for picture in made if picture.watts is not None]
    if stated:
        return Power(stated[0], True)
    measured = [p for p in made if p.joules is not None and p.seconds]
    if not measured:
        return None
    joules = sum(picture.joules or 0.0 for picture in measured)
    return Power(joules / sum(picture.seconds or 0.0 for picture in measured), False)


def _view(file: Path, run: RunDirectory) -> dict[str, Any]:
    """What the section says: a row for each provider, and how their energy is known."""
    names = read(run.path / "table.npz", QoETable.load).providers
    by_provider: dict[int, list[GeneratedPicture]] = defaultdict(list)
    for picture in GeneratedPictures.read(file).pictures:
        by_provider[picture.provider].append(picture)
    found = {names[index]: making(made) for index, made in sorted(by_provider.items())}
    return {
        "rows": [_row(name, of) for name, of in found.items()],
        "steps": any(of.steps for of in found.values()),
        "saved": any(of.saved for of in found.values()),
        "cost": any(of.cost for of in found.values()),
        "known": any(of.power for of in found.values()),
        "energy": _energy(found),
    }


def _row(name: str, of: Making) -> dict[str, str]:
    used = None if of.seconds is None else of.joules(of.seconds * of.pictures)
    part = f"{of.saved:,} ({percent(of.saved / (of.steps + of.saved))})" if of.saved else "–"
    return {
        "name": name,
        "pictures": f"{of.pictures:,}",
        "seconds": duration(of.seconds),
        "cost": number(of.cost, 2),
        "steps": f"{of.steps:,}" if of.steps else "–",
        "saved": part,
        "saved_seconds": duration(of.saved_seconds) if of.saved else "–",
        "energy": _joules(used),
        "saved_energy": _joules(of.joules(of.saved_seconds)) if of.saved else "–",
    }


def _joules(joules: float | None) -> str:
    if joules is None:
        return "–"
    return f"{joules:.3g}{SPACE}J" if joules < 1000 else f"{quantity(joules)}J"


def _energy(found: Mapping[str, Making]) -> str:
    """How the providers' energy is known, in sentences."""
    stated: list[str] = []
    measured: list[str] = []
    unknown: list[str] = []
    for name, of in found.items():
        if of.power is None:
            unknown.append(name)
        else:
            told = f"{name} {of.power.watts:.3g}{SPACE}W"
            (stated if of.power.stated else measured).append(told)
    whose = f"of {conjunction(unknown)} " if len(unknown) < len(found) else ""
    sentences = {
        f"Energy is time at the power that the config states: {conjunction(stated)}.": stated,
        "Energy was measured by the processor’s counters (RAPL), which count all that the machine "
        f"did meanwhile: {conjunction(measured)}.": measured,
        f"Energy {whose}was not measured, as no counter could be read; state watts of a provider "
        "to have it.": unknown,
    }
    return " ".join(sentence for sentence, known in sentences.items() if known)


SECTION = of_file("generated", FILE, _view)
