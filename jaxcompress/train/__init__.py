"""A training loop: a loss goes in, a state comes out; resumable to the bit."""

from jaxcompress.train.loop import fit
from jaxcompress.train.optimizer import OptimizerConfig, optimizer
from jaxcompress.train.state import State, create
from jaxcompress.train.step import Step, make_step

__all__ = ["OptimizerConfig", "State", "Step", "create", "fit", "make_step", "optimizer"]
