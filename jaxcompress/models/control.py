"""What a block is told besides its input: gates, edits and what it may see, laid out for it."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["LayerControl", "Sight"]


class LayerControl(NamedTuple):
    """What one block sees of gates and edits, or of all blocks with a leading layer axis.

    Gates are (1 or batch, 1 or position, ...), edits (1 or batch, 1 or position, ...), or `None`.
    """

    heads: Any = None
    attns: Any = None
    mlps: Any = None
    neurons: Any = None
    heads_edit: Any = None
    attns_edit: Any = None
    mlps_edit: Any = None
    neurons_edit: Any = None


class Sight(NamedTuple):
    """What the queries of a forward may see, and where they stand.

    Attributes:
      visible: (1 or batch, query, key) bool, or `None`: everything.
      query_angles: (1 or batch, query, head_dim / 2) rotary angles in radians, or `None`.
      key_angles: (1 or batch, key, head_dim / 2), or `None`.
    """

    visible: Any
    query_angles: Any
    key_angles: Any
