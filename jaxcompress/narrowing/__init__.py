"""A narrow model out of a general one: prune and recover, tune and prune, distil, or start anew.

All ways get equally many tokens of code and, at each size, the same shapes; networks of one shape
are trained together. Every training run is kept in `work` and found again, so that a run that was
stopped goes on, and that another question can be asked of the same models.

Where this departs from the authors' code: random pruning draws without replacement, so that as much
goes as is stated; students have the pruned models' shapes and tied embeddings; text is packed, so
that tokens are counted as they are; losses have one context length; scores are `taylor_batch`,
their "activation attribution", also after the lasso; learning rates of relearning are chosen on a
validation split, from one sweep for all rows. AdamW has beta2 .98 and a rate that falls to .01 of
its height, where the authors have .999 and 0; the lasso is trained with the rate of the recovery
(5e-5 in the configuration of the paper's sizes), where they have 2e-6; and calibration takes rows
by `batch / parts` (4 there), where they have 8.

Reference: Michaud et al. 2025 (arXiv 2505.15811), sections 4 and 5, and the code of "narrow".
"""

from jaxcompress.narrowing.relearning import relearn
from jaxcompress.narrowing.settings import METHODS, Narrowing, Network, Texts
from jaxcompress.narrowing.texts import read
from jaxcompress.narrowing.training import fit, nats
from jaxcompress.narrowing.ways import narrow

__all__ = ["METHODS", "Narrowing", "Network", "Texts", "fit", "narrow", "nats", "read", "relearn"]
