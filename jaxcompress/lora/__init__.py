"""Low-rank adapters: LoRA, rsLoRA, DoRA and PiSSA under the paths of the base, and their routes."""

from jaxcompress.lora.adapters import (
    Adapter,
    Spec,
    init,
    merge,
    trainable,
    unmerge,
    with_trained,
)
from jaxcompress.lora.directions import strongest, transplant, turned
from jaxcompress.lora.paths import Carriers, HeadChanges, carriers, head_changes
from jaxcompress.lora.several import combine, stack
from jaxcompress.lora.spectra import Intruders, intruders
from jaxcompress.lora.trace import Route, trace
from jaxcompress.matrices import Layout, layout_of

__all__ = [
    "Adapter",
    "Carriers",
    "HeadChanges",
    "Intruders",
    "Layout",
    "Route",
    "Spec",
    "carriers",
    "combine",
    "head_changes",
    "init",
    "intruders",
    "layout_of",
    "merge",
    "stack",
    "strongest",
    "trace",
    "trainable",
    "transplant",
    "turned",
    "unmerge",
    "with_trained",
]
