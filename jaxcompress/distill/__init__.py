"""Teacher-student losses: `(student, teacher, mask, ...) -> (mean, count)`."""

from jaxcompress.distill import chunked, cka, features, losses, mapping, mechanisms, relations

__all__ = ["chunked", "cka", "features", "losses", "mapping", "mechanisms", "relations"]
