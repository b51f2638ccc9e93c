"""jaxcompress: shrink a model and show what became of its mechanism.

>>> import jaxcompress as jc
>>> model = jc.load("builtin:teacher")
>>> model.config.layers
4
"""

from jaxcompress import (
    ablate,
    align,
    circuits,
    distill,
    generate,
    io,
    lora,
    measure,
    models,
    prune,
    report,
    sae,
    tasks,
    train,
)
from jaxcompress.compare import compare
from jaxcompress.io import load, save
from jaxcompress.models import Edits, Gates, Model, ModelConfig, create

__version__ = "0.1.0"

__all__ = [
    "Edits",
    "Gates",
    "Model",
    "ModelConfig",
    "ablate",
    "align",
    "circuits",
    "compare",
    "create",
    "distill",
    "generate",
    "io",
    "load",
    "lora",
    "measure",
    "models",
    "prune",
    "report",
    "sae",
    "save",
    "tasks",
    "train",
]
