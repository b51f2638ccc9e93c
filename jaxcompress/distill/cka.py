"""Linear CKA as a teacher-student loss: 1 minus `linear_cka`."""

from __future__ import annotations

from jaxcompress.cka import linear_cka

__all__ = ["linear_cka"]
