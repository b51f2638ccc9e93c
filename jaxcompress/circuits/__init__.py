"""Circuits: which edges carry a task, how faithfully, and what each head does."""

from jaxcompress.circuits.attribution import METHODS, attribute
from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.faithfulness import (
    SHARES,
    Curve,
    completeness,
    faithfulness,
    minimality,
    smallest,
)
from jaxcompress.circuits.graph import Graph
from jaxcompress.circuits.pruning import acdc, path_patching, prune_nodes
from jaxcompress.circuits.role_weights import weight_roles
from jaxcompress.circuits.roles import Roles, roles
from jaxcompress.circuits.scores import Scores
from jaxcompress.circuits.search import find

__all__ = [
    "METHODS",
    "SHARES",
    "Circuit",
    "Curve",
    "Graph",
    "Roles",
    "Scores",
    "acdc",
    "attribute",
    "completeness",
    "faithfulness",
    "find",
    "minimality",
    "path_patching",
    "prune_nodes",
    "roles",
    "smallest",
    "weight_roles",
]
