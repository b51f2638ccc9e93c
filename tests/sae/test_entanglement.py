"""Jobs of features: one group, all alike, and a share of known entropy, whatever the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.models import create_autoencoder
from jaxcompress.sae.entanglement import groups_per_feature


def _coordinates(width):
    """A dictionary whose features are the coordinates, where they are positive."""
    one, eye = create_autoencoder(width, width, jax.random.key(0)), jnp.eye(width)
    return dataclasses.replace(one, encoder=eye, decoder=eye)


def test_effective_numbers_are_those_of_the_shares():
    first = np.array([[1, 1, 3, -1]] * 5, np.float32)
    second = np.array([[0, 1, 1, -1]] * 2, np.float32)  # other sizes of groups do not matter
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    for batch in (2, 100):
        found = groups_per_feature(_coordinates(4), [first, second], batch=batch)
        np.testing.assert_allclose(found, [1, 2, np.exp(entropy), np.nan], rtol=1e-6)


def test_one_group_and_empty_ones_are_refused():
    for groups in ([np.ones((2, 4))], [np.ones((2, 4)), np.ones((0, 4))]):
        with pytest.raises(ValueError, match="^groups: "):
            groups_per_feature(_coordinates(4), groups)
