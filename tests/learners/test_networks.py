"""The parts of networks that are ours."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from rlli_jax.learners.cpu import orthogonal


@pytest.mark.parametrize("shape", [(4, 64), (64, 64), (64, 3), (1, 5)])
def test_orthogonal_kernels_are_those_of_flax(shape):
    key = jax.random.key(3)
    made = orthogonal(1.5)(key, shape)
    assert made.shape == shape
    np.testing.assert_allclose(made, nn.initializers.orthogonal(1.5)(key, shape), atol=1e-5)
    square = made.T @ made if shape[0] >= shape[1] else made @ made.T
    np.testing.assert_allclose(square, 1.5**2 * np.eye(min(shape)), atol=1e-5)
