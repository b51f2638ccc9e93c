"""Narrow skills: what a network learns, when it learns it, and where it keeps it."""

__all__: list[str] = []
