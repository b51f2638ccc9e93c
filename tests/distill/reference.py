"""The losses on logits written out in float64 NumPy, and slopes by central differences."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

GOLDEN_TEACHER = [2.0, 1.0, 0.0, -1.0, 0.5]
GOLDEN_STUDENT = [0.5, 1.5, -0.5, 0.0, 0.25]


def waves(rows, columns, shift):
    """The matrix of the golden values: sin(0.7 (i * columns + j) + shift)."""
    return jnp.sin(0.7 * jnp.arange(rows * columns).reshape(rows, columns) + shift)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def kl(log_p, log_q):
    """KL(p || q); where p is 0 nothing is added."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    return np.where(np.exp(log_p) > 0, terms, 0.0).sum(axis=-1)


def forward_kl(student, teacher, temperature=1.0):
    logs = (
        log_softmax(np.divide(teacher, temperature)),
        log_softmax(np.divide(student, temperature)),
    )
    return temperature**2 * kl(*logs)


def reverse_kl(student, teacher, temperature=1.0):
    q, p = (
        log_softmax(np.divide(student, temperature)),
        log_softmax(np.divide(teacher, temperature)),
    )
    return temperature**2 * kl(q, np.where(np.isneginf(p), -1e4, p))


def jsd(student, teacher, beta=0.5):
    p, q = log_softmax(teacher), log_softmax(student)
    if beta in (0, 1):
        return kl(q, p) if beta else kl(p, q)
    with np.errstate(divide="ignore"):
        m = np.log(beta * np.exp(p) + (1 - beta) * np.exp(q))
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def total_variation(student, teacher):
    p, q = np.exp(log_softmax(teacher)), np.exp(log_softmax(student))
    return np.abs(p - q).sum(axis=-1) / 2


def top_k_kl(student, teacher, k, tail="bucket"):
    top = np.argsort(-np.asarray(teacher), axis=-1, kind="stable")[..., :k]
    logs = [log_softmax(teacher), log_softmax(student)]
    chosen = [np.take_along_axis(log, top, axis=-1) for log in logs]
    if tail == "renormalise":
        return kl(*(log_softmax(log) for log in chosen))
    rest = [log.copy() for log in logs]
    for log in rest:
        np.put_along_axis(log, top, -np.inf, axis=-1)
    with np.errstate(divide="ignore"):
        tails = [np.log(np.exp(log).sum(axis=-1, keepdims=True)) for log in rest]
    return kl(*(np.concatenate(both, axis=-1) for both in zip(chosen, tails, strict=True)))


def cross_entropy(student, labels):
    return -np.take_along_axis(log_softmax(student), np.asarray(labels)[..., None], -1)[..., 0]


def slope(function, x, step=1e-5):
    """The gradient of a scalar function of a float64 array, by central differences."""
    x = np.array(x, np.float64)
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        found[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found
