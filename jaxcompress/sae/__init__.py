"""Dictionary learning: losses, quality, geometry of features, and steering with them."""

from jaxcompress.sae import (
    activations,
    entanglement,
    geometry,
    losses,
    quality,
    reading,
    recovery,
    steering,
)

__all__ = [
    "activations",
    "entanglement",
    "geometry",
    "losses",
    "quality",
    "reading",
    "recovery",
    "steering",
]
