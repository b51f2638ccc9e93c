"""Text out of a causal model: greedy or sampled, with a key/value cache, in one compiled program.

>>> import jax
>>> import jaxcompress as jc
>>> model = jc.load("builtin:student")
>>> jc.generate.sample(model, jax.numpy.ones((1, 4), int), count=3).tokens.shape
(1, 7)
"""

from jaxcompress.generate.cached import Generated
from jaxcompress.generate.sampler import sample
from jaxcompress.generate.truncation import truncated

__all__ = ["Generated", "sample", "truncated"]
