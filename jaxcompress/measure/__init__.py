"""What a model costs on this device: size, FLOPs, time and energy, measured and never guessed."""

from jaxcompress.measure.cost import Cost, cost, flops, nonembedding
from jaxcompress.measure.energy import Counter, Energy, find_counter, measure_energy

__all__ = [
    "Cost",
    "Counter",
    "Energy",
    "cost",
    "find_counter",
    "flops",
    "measure_energy",
    "nonembedding",
]
