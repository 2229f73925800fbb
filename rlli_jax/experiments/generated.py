"""What a run keeps of how its pictures were generated."""

from collections import Counter
from pathlib import Path

import numpy as np

from rlli_jax.catalog import Catalog
from rlli_jax.run_files.generated import FILE, GeneratedPicture, GeneratedPictures


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


def spared_parts(made: GeneratedPictures | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The part of each picture's denoising steps that sharing spares its provider, in [0, 1).

    The shared steps of a group are run once for as many pictures as it has, as they were when these
    were made, and each picture bears its part of them: of N steps, n of which m pictures share, one
    takes N - n + n / m, and is spared (n / N)(1 - 1 / m) of them. So a group's pictures take
    m (N - n) + n steps together, which is how Du et al. count them (IEEE Network 2024; see
    :mod:`rlli_jax.generation.denoising`). A group of one is spared nothing.

    Args:
        made: how the pictures were made; None where they were given.
        shape: of the table, (R, L).

    Returns:
        Float [R, L]; None if nothing is spared.
    """
    sharing = [picture for picture in made.pictures if picture.shared_steps] if made else []
    sizes = Counter(picture.group for picture in sharing)
    parts = np.zeros(shape)
    for picture in sharing:
        part = picture.shared_steps / picture.all_steps
        parts[picture.request, picture.provider] = part * (1 - 1 / sizes[picture.group])
    return parts if parts.any() else None
