"""Models: one transformer for all families, declared in Flax Linen and run as a pure function.

Why Linen and not NNX: gradients and vmaps through a scanned body with per-layer gates, and surgery
on plain parameter trees, are what this project is made of. Measured on flax 0.12.8 (CPU): with
Linen 12 of 12 compositions of jit, vmap, grad, jvp and scan over the gates ran, with `nnx.scan`
7 of 12; compiled programs are the same, and Linen adds 60 to 160 ms of tracing per compilation.
Linen is a declaration layer only: `init` and `apply` of one block, no `sow`, no mutable
collections. If that changes, the module files here are replaced and nothing above them.
"""

from jaxcompress.models.autoencoder import Autoencoder, create_autoencoder
from jaxcompress.models.build import Model, create, shapes
from jaxcompress.models.config import LayerSize, ModelConfig, RopeScaling
from jaxcompress.models.gates import Edits, Gates
from jaxcompress.models.mlp import MLPConfig, MLPModel, create_mlp
from jaxcompress.models.transformer import TAPS, apply, init, resume

__all__ = [
    "TAPS",
    "Autoencoder",
    "Edits",
    "Gates",
    "LayerSize",
    "MLPConfig",
    "MLPModel",
    "Model",
    "ModelConfig",
    "RopeScaling",
    "apply",
    "create",
    "create_autoencoder",
    "create_mlp",
    "init",
    "resume",
    "shapes",
]
