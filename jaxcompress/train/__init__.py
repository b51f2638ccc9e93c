"""A training loop: a loss goes in, a state comes out; resumable to the bit."""

from jaxcompress.train.dictionaries import Dictionary, fit_dictionaries
from jaxcompress.train.loggers import tensorboard, wandb
from jaxcompress.train.loop import fit
from jaxcompress.train.lora_plus import lora_plus
from jaxcompress.train.optimizer import OptimizerConfig, optimizer
from jaxcompress.train.parts import by_part, counted, counter
from jaxcompress.train.sharding import make_mesh, shardings
from jaxcompress.train.state import State, create
from jaxcompress.train.step import Step, make_step, mixed_precision

__all__ = [
    "Dictionary",
    "OptimizerConfig",
    "State",
    "Step",
    "by_part",
    "counted",
    "counter",
    "create",
    "fit",
    "fit_dictionaries",
    "lora_plus",
    "make_mesh",
    "make_step",
    "mixed_precision",
    "optimizer",
    "shardings",
    "tensorboard",
    "wandb",
]
