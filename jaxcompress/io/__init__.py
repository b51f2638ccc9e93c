"""Files in and out: Hugging Face directories and the small published research models."""

from jaxcompress.io.dictionaries import load_dictionary, save_dictionary
from jaxcompress.io.export import padded, save
from jaxcompress.io.huggingface import load
from jaxcompress.io.peft import load_adapter, save_adapter
from jaxcompress.io.research import from_haiku, from_mingpt, from_transformer_lens, read_out

__all__ = [
    "from_haiku",
    "from_mingpt",
    "from_transformer_lens",
    "load",
    "load_adapter",
    "load_dictionary",
    "padded",
    "read_out",
    "save",
    "save_adapter",
    "save_dictionary",
]
