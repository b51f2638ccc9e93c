"""Circuits: which edges carry a task, how faithfully, and what each head does."""

from jaxcompress.circuits.agreement import rank_correlation
from jaxcompress.circuits.attribution import METHODS, attribute, both_ways
from jaxcompress.circuits.circuit import Circuit
from jaxcompress.circuits.faithfulness import (
    SHARES,
    Curve,
    able,
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
    "able",
    "acdc",
    "attribute",
    "both_ways",
    "completeness",
    "faithfulness",
    "find",
    "minimality",
    "path_patching",
    "prune_nodes",
    "rank_correlation",
    "roles",
    "smallest",
    "weight_roles",
]
