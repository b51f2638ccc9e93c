"""Files in and out: Hugging Face directories and the small published research models."""

from jaxcompress.io.huggingface import load, save
from jaxcompress.io.research import from_haiku, from_mingpt, from_transformer_lens

__all__ = ["from_haiku", "from_mingpt", "from_transformer_lens", "load", "save"]
