"""What a run keeps of how its pictures were generated."""

from pathlib import Path

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.run_files.generated import GeneratedPicture, GeneratedPictures

FILE = "generated.json"


def generated(catalog: Catalog) -> GeneratedPictures | None:
    """How the pictures of a catalog were made; None where they were given."""
    if not catalog.made:
        return None
    pictures = [
        GeneratedPicture(request=r, provider=p, **catalog.made[request, provider])
        for r, request in enumerate(catalog.requests)
        for p, provider in enumerate(catalog.providers)
        if (request, provider) in catalog.made
    ]
    return GeneratedPictures(pictures=pictures)


def write_generated(catalog: Catalog, path: Path) -> None:
    """Keep it in a run directory; nothing where pictures were given."""
    made = generated(catalog)
    if made is not None:
        made.write(path / FILE)


def read_generated(path: Path) -> GeneratedPictures | None:
    """What a run directory keeps of it; None where pictures were given."""
    return GeneratedPictures.read(path / FILE) if (path / FILE).exists() else None


def shared_parts(made: GeneratedPictures | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The part of each picture's denoising steps that its group shares, in [0, 1].

    Args:
        made: how the pictures were made; None where they were given.
        shape: of the table, (R, L).

    Returns:
        Float [R, L]; None if no steps are shared.
    """
    parts = np.zeros(shape)
    for picture in made.pictures if made is not None else ():
        whole = picture.shared_steps + (picture.steps or 0)
        parts[picture.request, picture.provider] = picture.shared_steps / whole if whole else 0.0
    return parts if parts.any() else None
