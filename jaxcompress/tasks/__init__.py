"""What is measured: clean and corrupted prompts with right and wrong answers, and metrics.

Add a family: a module with a pure `pairs(count, rng, *, ...) -> tuple[TextPair, ...]`, a line in
`registry.py`, a test. Tokenising, filtering and padding are done for all families in `encoding.py`.
A family of random tokens has no text: its `prompts` stands on `encoding.different`.
"""

from jaxcompress.tasks import (
    addition,
    associative_recall,
    facts,
    greater_than,
    induction,
    ioi,
    linear_function,
    programs,
    sequences,
    words,
)
from jaxcompress.tasks.encoding import encode
from jaxcompress.tasks.metrics import (
    METRICS,
    Metric,
    accuracy,
    get_metric,
    kl,
    logit_difference,
    probability,
    probability_difference,
)
from jaxcompress.tasks.pairs import TextPair
from jaxcompress.tasks.prompts import Prompts, alike
from jaxcompress.tasks.registry import NAMES, TEXTS, get, shifted, texts
from jaxcompress.tasks.shifts import SHIFTS
from jaxcompress.tasks.tokens import Tokenizer

__all__ = [
    "METRICS",
    "NAMES",
    "SHIFTS",
    "TEXTS",
    "Metric",
    "Prompts",
    "TextPair",
    "Tokenizer",
    "accuracy",
    "addition",
    "alike",
    "associative_recall",
    "encode",
    "facts",
    "get",
    "get_metric",
    "greater_than",
    "induction",
    "ioi",
    "kl",
    "linear_function",
    "logit_difference",
    "probability",
    "probability_difference",
    "programs",
    "sequences",
    "shifted",
    "texts",
    "words",
]
