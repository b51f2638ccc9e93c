"""Ablation and patching: exact interventions, many at once."""

from jaxcompress.ablate.interventions import REPLACEMENTS, Components, components, replacements
from jaxcompress.ablate.patching import patch
from jaxcompress.ablate.sweep import Effects, sweep

__all__ = ["REPLACEMENTS", "Components", "Effects", "components", "patch", "replacements", "sweep"]
