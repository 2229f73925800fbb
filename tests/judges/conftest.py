"""What the tests of judges share: pictures, questions, a tiny model and a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import LocalServer, completion

from rlli_jax.catalog import Picture
from rlli_jax.judges import Question, named_scale
from rlli_jax.personas import Persona


def make_picture(seed: int = 0, height: int = 24, width: int = 32) -> Picture:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(f"picture {seed}", lambda: pixels)


PICTURES = [make_picture(seed) for seed in range(3)]


def make_question(
    persona: int = 0, picture: int | None = 0, scale: str = "adjectives", sample: int = 0
) -> Question:
    rng = np.random.default_rng(persona)
    traits = tuple(float(t) for t in rng.uniform(1, 5, 5))
    return Question(
        Persona(f"user {persona}", traits),  # type: ignore[arg-type]
        "a cat on a roof",
        "p0",
        None if picture is None else PICTURES[picture],
        named_scale(scale),
        sample,
    )


@pytest.fixture(scope="session")
def question() -> Callable[..., Question]:
    return make_question


@pytest.fixture(scope="session")
def chat_completion() -> Callable[..., dict[str, Any]]:
    return completion


@pytest.fixture
def server() -> Iterator[LocalServer]:
    server = LocalServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random LLaVA."""
    import tiny_llava

    return tiny_llava.build(tmp_path_factory.mktemp("models") / "tiny-random-llava")
