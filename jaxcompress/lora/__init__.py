"""Low-rank adapters: LoRA, rsLoRA, DoRA and PiSSA as trees with the paths of the base."""

from jaxcompress.lora.adapters import (
    Adapter,
    Spec,
    init,
    merge,
    trainable,
    unmerge,
    with_trained,
)
from jaxcompress.lora.several import combine, stack
from jaxcompress.matrices import Layout, layout_of

__all__ = [
    "Adapter",
    "Layout",
    "Spec",
    "combine",
    "init",
    "layout_of",
    "merge",
    "stack",
    "trainable",
    "unmerge",
    "with_trained",
]
