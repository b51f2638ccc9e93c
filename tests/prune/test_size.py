"""Sizes that are counted are those of the arrays and products that are there."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxcompress import tree
from jaxcompress.models import Gates
from jaxcompress.prune import flops_per_token, parameters, shrink
from tests import families


def patterns(count=8):
    """Random gates that leave something to write in every layer."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        heads = (rng.random((3, 4)) < 0.6).astype(np.float32)
        neurons = (rng.random((3, 6)) < 0.6).astype(np.float32)
        neurons[:, 0] = 1
        width = (rng.random(8) < 0.7).astype(np.float32)
        width[0] = 1
        yield Gates(heads=heads, neurons=neurons, width=width)


@pytest.mark.parametrize("name", families.NAMES)
def test_parameters_are_those_of_the_shrunk_model(name):
    model = families.model(name)
    assert parameters(model.config) == tree.count(model.params)
    for gates in patterns():
        small = shrink(model, gates)
        assert small.config.layers == 3
        assert parameters(model.config, gates) == tree.count(small.params)


def products(jaxpr) -> int:
    """FLOPs of the matrix products in a program."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            contracted = math.prod(shape[i] for i in contracted)
            total += 2 * contracted * math.prod(equation.outvars[0].aval.shape)
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += products(value.jaxpr) * equation.params.get("length", 1)
    return total


@pytest.mark.parametrize("name", families.NAMES)
def test_flops_are_those_of_the_program(name):
    model = families.model(name)
    tokens = families.tokens()
    for gates in [None, *patterns(3)]:
        small = model if gates is None else shrink(model, gates)
        small = small.replace(config=dataclasses.replace(small.config, scan=False))
        program = jax.make_jaxpr(small.apply)(small.params, tokens)
        counted = flops_per_token(model.config, gates, length=tokens.shape[1])
        assert counted * tokens.size == products(program.jaxpr)
