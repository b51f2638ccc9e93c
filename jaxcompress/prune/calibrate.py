"""One pass over calibration batches collects what every criterion is a function of.

A batch is any pytree with `tokens` and `attention_mask`, both (batch, position): a
`tasks.Prompts`, or a `Text`. Sums are kept in float32, whatever the type of the model, and padded
positions add nothing to them; a row of nothing else is no example. All but `gradients/*/batch` are
sums over tokens or examples, so it does not matter how the examples are split into batches.

| name | what is summed |
|---|---|
| `gradients/{heads,neurons,attns,mlps,width}/token` | abs. of d loss / d gate of one token |
| `.../example` | abs. of the sum over an example's tokens |
| `.../batch` | abs. of the sum over a batch |
| `.../square` | square of the sum over an example's tokens |
| `activations/{heads,neurons,width}` | square of an example's mean size over tokens |
| `influence` (L,) | cosine of the streams before and after a layer |
| `angles` (L + 1, L + 1) | angle / pi between streams, at the last token |
| `inputs/{attn,heads,mlp,neurons}` (L, in) | squares of what goes into a matrix |
| `moments/{attn,heads,mlp,neurons}` (L, in, in) | outer products of it |
| `parameters/{sum,abs,square}` | gradient; abs. of a batch's; square of an example's |
| `counts/{tokens,examples,batches}` | what to divide by |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tqdm

from jaxcompress import check
from jaxcompress.models.config import ModelConfig
from jaxcompress.models.gates import Gates
from jaxcompress.prune import inputs
from jaxcompress.types import Model, Output

__all__ = [
    "WANTED",
    "Loss",
    "Masked",
    "Text",
    "answer",
    "calibrate",
    "embedding",
    "masked_token",
    "next_token",
    "speaking",
    "targets",
]

WANTED = ("gradients", "activations", "inputs", "moments", "parameters")
"""What `calibrate` can collect."""

_TAPS = inputs.TAPS

Loss = Callable[[Output, Any], jax.Array]
"""`loss(output, batch)`: nats of every token or example, 0 where there is nothing to predict."""


class Text(NamedTuple):
    """Rows of text: `tokens` and `attention_mask`, (batch, position) integers."""

    tokens: Any
    attention_mask: Any


class Masked(NamedTuple):
    """Rows of text with tokens hidden: as `Text`, and `labels`, -1 where nothing is asked."""

    tokens: Any
    attention_mask: Any
    labels: Any


def next_token(out: Output, batch: Any) -> jax.Array:
    """Nats with which each token but the first surprises: (batch, position - 1), 0 on padding.

    Example:
      >>> text = Text(jnp.array([[0, 1]]), jnp.ones((1, 2), int))
      >>> next_token(Output(jnp.zeros((1, 2, 4)), {}), text)
      Array([[1.3862944]], dtype=float32)
    """
    logs = jax.nn.log_softmax(_logits(out)[:, :-1])
    labels, real = batch.tokens[:, 1:], jnp.asarray(batch.attention_mask)
    nats = -jnp.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]
    return jnp.where((real[:, 1:] > 0) & (real[:, :-1] > 0), nats, 0.0)


def masked_token(out: Output, batch: Any) -> jax.Array:
    """Nats with which each hidden token surprises: (batch, position), 0 where none is asked.

    Example:
      >>> one = jnp.ones((1, 2), int)
      >>> masked_token(Output(jnp.zeros((1, 2, 4)), {}), Masked(one, one, jnp.array([[3, -1]])))
      Array([[1.3862944, 0.       ]], dtype=float32)

    Reference: Devlin et al. 2018 (arXiv 1810.04805), section 3.1.
    """
    logs, labels = jax.nn.log_softmax(_logits(out)), jnp.asarray(batch.labels)
    picked = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(labels >= 0, -picked, 0.0)


def embedding(out: Output, batch: Any) -> jax.Array:
    """A random projection of each row's mean-pooled, normalised last stream: (batch,).

    For encoders without a head: the mean square of its gradient over rows is, in expectation, that
    of the whole embedding's Jacobian (Hutchinson's estimate), so `fisher` ranks components by how
    far they move the embedding. Its own value means nothing. The signs of a row come from its
    tokens alone: neither the batch that it is in nor padding changes them.

    Example:
      >>> ones = jnp.ones((1, 3), int)
      >>> out = Output(None, {"resid": jnp.ones((2, 1, 3, 4))})
      >>> embedding(out, Text(ones, ones)).shape
      (1,)
    """
    resid, real = out.taps["resid"][-1], (jnp.asarray(batch.attention_mask) > 0)[..., None]
    mean = (resid * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
    square = (mean * mean).sum(axis=-1, keepdims=True)
    unit = mean / jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return (unit * jax.vmap(_signs)(batch.tokens, real[..., 0], unit)).sum(axis=-1)


def _signs(tokens: jax.Array, real: jax.Array, like: jax.Array) -> jax.Array:
    """Random signs that belong to a text: drawn with a hash of its real tokens."""
    place = jnp.cumsum(real.astype(jnp.uint32))
    # A polynomial modulo 2^32 in Knuth's multiplier.
    powers = jnp.cumprod(jnp.full(1 + len(tokens), 2654435761, jnp.uint32))[place]
    word = (jnp.where(real, tokens + 1, 0).astype(jnp.uint32) * powers).sum(dtype=jnp.uint32)
    key = jax.random.fold_in(jax.random.key(0), word)
    return jax.random.rademacher(key, like.shape, like.dtype)


def answer(out: Output, batch: Any) -> jax.Array:
    """Nats with which the right answers of prompts surprise: (batch,), 0 for rows of padding.

    Example:
      >>> from jaxcompress.tasks import Prompts
      >>> one, out = jnp.ones((1, 1), int), Output(jnp.zeros((1, 2, 4)), {})
      >>> answer(out, Prompts(one, one, one, one[0], one, one))
      Array([1.3862944], dtype=float32)
    """
    rows = jnp.asarray(batch.answer_position)[:, None, None]
    logs = jax.nn.log_softmax(jnp.take_along_axis(_logits(out), rows, axis=1)[:, 0])
    correct = jnp.asarray(batch.correct)
    right = jnp.take_along_axis(logs, jnp.maximum(correct, 0), axis=-1)
    nats = -jax.nn.logsumexp(jnp.where(correct >= 0, right, -jnp.inf), axis=-1)
    if batch.attention_mask is None:
        return nats
    return jnp.where((jnp.asarray(batch.attention_mask) > 0).any(axis=1), nats, 0.0)


def targets(batch: Any) -> tuple[jax.Array, jax.Array]:
    """(batch, position) labels of the logits, and which of them count.

    Example:
      >>> text = Text(jnp.array([[7, 8, 9]]), jnp.array([[1, 1, 0]]))
      >>> [x.tolist() for x in targets(text)]
      [[[8, 9, 0]], [[True, False, False]]]
    """
    real = jnp.asarray(batch.attention_mask) > 0
    if hasattr(batch, "correct"):
        places = jnp.arange(real.shape[1])[None]
        at = jnp.asarray(batch.answer_position)[:, None]
        return jnp.broadcast_to(batch.correct[:, :1], real.shape), places == at
    if hasattr(batch, "labels"):
        labels = jnp.asarray(batch.labels)
        return jnp.maximum(labels, 0), labels >= 0
    labels = jnp.pad(batch.tokens[:, 1:], ((0, 0), (0, 1)))
    return labels, jnp.pad(real[:, 1:] & real[:, :-1], ((0, 0), (0, 1)))


def speaking(model: Any) -> Any:
    """The model, if it says anything that it can be trained to say otherwise.

    Raises:
      ValueError: for an encoder without a language-model head.

    Example:
      >>> from jaxcompress.io import load
      >>> speaking(load("builtin:student")).config.head
      'linear'
    """
    if model.config.head == "none":
        expected = "one with a language-model head, whose words can be trained"
        raise check.fail(model.name or "model", expected, "an encoder without one")
    return model


def calibrate(
    model: Model,
    batches: Iterable[Any],
    loss: Loss = next_token,
    *,
    wanted: Sequence[str] = ("gradients", "activations"),
    progress: bool = True,
) -> dict[str, Any]:
    """Collects statistics of a model over batches.

    Gradients of all gates come from one backward pass: every token has gates of its own, and what
    is differentiated is the sum of the losses (`reference`: Michel et al. 2019, section 4).

    Args:
      model: with `config`, `params` and `apply`.
      batches: all padded to few different shapes, since each is compiled for.
      loss: see `next_token` and `answer`.
      wanted: names from `WANTED`. `moments` hold (L, in, in); `parameters` thrice the parameters,
        and take one backward pass for every example.
      progress: whether to show a progress bar.

    Returns:
      Nested dict of sums, see the module's table.

    Raises:
      ValueError: if there are no batches, or for unknown names.

    Example:
      >>> from jaxcompress.io import load
      >>> text = Text(jnp.ones((2, 5), int), jnp.ones((2, 5), int))
      >>> sums = calibrate(load("builtin:teacher"), [text], progress=False)
      >>> sums["gradients"]["heads"]["token"].shape
      (4, 8)
    """
    for name in wanted:
        check.known("wanted", name, WANTED)
    config = model.config  # pyright: ignore[reportAttributeAccessIssue]
    step = functools.partial(_sums, model.apply, config, loss, tuple(wanted))
    total: Any = None
    for batch in tqdm.tqdm(batches, desc="calibrate", disable=not progress):
        batch = jax.tree.map(jnp.asarray, batch)
        check.shape("batch.attention_mask", batch.attention_mask, [batch.tokens.shape])
        found = step(model.params, batch)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    if total is None:
        raise check.fail("batches", "at least one", "none")
    return total


def _logits(out: Output) -> jax.Array:
    if out.logits is None:
        raise check.fail("loss", "one that needs no logits for an encoder", "one that needs them")
    return out.logits


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sums(
    apply: Any, config: ModelConfig, loss: Loss, wanted: tuple[str, ...], params: Any, batch: Any
) -> dict[str, Any]:
    real = (jnp.asarray(batch.attention_mask) > 0).astype(jnp.float32)
    examples = real.any(axis=1).sum().astype(jnp.float32)
    counts = {"tokens": real.sum(), "examples": examples, "batches": 1.0}
    found: dict[str, Any] = {"counts": jax.tree.map(jnp.asarray, counts)}

    def run(params: Any, gates: Any, batch: Any) -> tuple[jax.Array, Any]:
        out = apply(
            params, batch.tokens, attention_mask=batch.attention_mask, gates=gates, taps=_TAPS
        )
        return loss(out, batch).sum(), out.taps

    if "gradients" in wanted:
        every = jax.tree.map(lambda one: jnp.ones((*real.shape, *one.shape)), Gates.ones(config))
        gradients, taps = jax.grad(run, argnums=1, has_aux=True)(params, every, batch)
        found["gradients"] = {
            name: _reductions(getattr(gradients, name), real)
            for name in ("heads", "neurons", "attns", "mlps", "width")
        }
    else:
        _, taps = run(params, None, batch)
    if {"activations", "inputs", "moments"} & set(wanted):
        entering = inputs.entering(config, params, taps)
        found |= _activations(taps, entering, real, wanted)
    if "parameters" in wanted:
        found["parameters"] = _parameters(
            lambda params, batch: run(params, None, batch)[0], params, batch
        )
    return found


def _reductions(gradient: jax.Array, real: jax.Array) -> dict[str, jax.Array]:
    """The published reductions of (batch, position, ...) gate gradients."""
    tokens = gradient * real.reshape(real.shape + (1,) * (gradient.ndim - 2))
    examples = tokens.sum(axis=1)
    return {
        "token": jnp.abs(tokens).sum(axis=(0, 1)),
        "example": jnp.abs(examples).sum(axis=0),
        "batch": jnp.abs(examples.sum(axis=0)),
        "square": (examples**2).sum(axis=0),
    }


def _activations(
    taps: Any, entering: Any, real: jax.Array, wanted: Sequence[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "activations" in wanted:
        norms = jnp.linalg.norm(taps["heads"].astype(jnp.float32), axis=-1)
        streams = jnp.concatenate([entering["attn"], entering["mlp"]])
        found["activations"] = {
            "heads": _mean_size(norms, real),
            "neurons": _mean_size(entering["neurons"], real),
            "width": _mean_size(streams, real),
        }
        found |= _depth(taps["resid"].astype(jnp.float32), real)
    spread = {name: x * real[None, :, :, None] for name, x in entering.items()}
    if "inputs" in wanted:
        found["inputs"] = {name: (x * x).sum(axis=(1, 2)) for name, x in spread.items()}
    if "moments" in wanted:
        product = functools.partial(
            jnp.einsum, "lbti,lbtj->lij", precision=jax.lax.Precision.HIGHEST
        )
        found["moments"] = {name: product(x, x) for name, x in spread.items()}
    return found


def _mean_size(x: jax.Array, real: jax.Array) -> jax.Array:
    """Squares of an example's mean |x|, (layer, batch, position, c) -> (layer, c)."""
    tokens = jnp.maximum(real.sum(axis=1), 1)
    mean = jnp.einsum("lbtc,bt->lbc", jnp.abs(x), real) / tokens[None, :, None]
    return (mean**2).sum(axis=1)


def _depth(resid: jax.Array, real: jax.Array) -> dict[str, jax.Array]:
    """Cosines of neighbouring streams over tokens, angles of all pairs at the last token."""
    unit = resid / jnp.maximum(jnp.linalg.norm(resid, axis=-1, keepdims=True), 1e-12)
    cosine = jnp.einsum("lbtm,lbtm,bt->l", unit[:-1], unit[1:], real)
    last = real.shape[1] - 1 - jnp.argmax(real[:, ::-1], axis=1)
    ends = jnp.take_along_axis(unit, last[None, :, None, None], axis=2)[:, :, 0]
    ends = ends * real.any(axis=1)[None, :, None]  # of two vectors of zeros the angle is 0

    def angles(one: jax.Array) -> jax.Array:
        # By halves of a rhombus: the arc cosine of a float32 near 1 is off by up to 1e-3.
        apart, along = (jnp.linalg.norm(x, axis=-1) for x in (ends - one, ends + one))
        return (2 / jnp.pi * jnp.arctan2(apart, along)).sum(axis=-1)

    return {"influence": cosine, "angles": jax.lax.map(lambda one: angles(one[None]), ends)}


def _parameters(total: Callable[..., jax.Array], params: Any, batch: Any) -> dict[str, Any]:
    """Gradients of the parameters: their sum, its size, and the squares of each example's."""

    def one(square: Any, example: Any) -> tuple[Any, None]:
        own = jax.grad(total)(params, jax.tree.map(lambda leaf: leaf[None], example))
        own = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), own)
        summed, squares = square
        summed = jax.tree.map(jnp.add, summed, own)
        return (summed, jax.tree.map(lambda s, g: s + g * g, squares, own)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    (summed, squares), _ = jax.lax.scan(one, (zeros, zeros), batch)
    return {"sum": summed, "abs": jax.tree.map(jnp.abs, summed), "square": squares}
