"""Linear functions in context: the answer is on the line through the examples, and only there."""

import re

import jax
import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.tasks import linear_function

EXAMPLE = re.compile(r"Input: (\d+), output: (\d+)\.")
ASKED = re.compile(r".*Input: (\d+), output:")


def parts(text):
    return np.array(EXAMPLE.findall(text), int).T, int(ASKED.fullmatch(text)[1])


@pytest.mark.parametrize("shown", [2, 5, 11])
def test_answers_are_on_the_line(shown):
    pairs = linear_function.pairs(64, np.random.default_rng(0), shown=shown)
    assert len({pair.clean for pair in pairs}) == 64
    for pair in pairs:
        told = {"correct": pair.clean, "wrong": pair.corrupted}
        for side, text in told.items():
            (x, y), asked = parts(text)
            assert len({*x, asked}) == shown + 1  # the answer stands nowhere
            line = np.polynomial.Polynomial.fit(x, y, 1)
            np.testing.assert_allclose(line(x), y, atol=1e-9)
            assert getattr(pair, side) == (f" {round(line(asked))}",)
        (x, _), asked = parts(pair.clean)
        other, same = parts(pair.corrupted)
        assert asked == same
        np.testing.assert_array_equal(x, other[0])
        assert pair.correct != pair.wrong


def test_all_functions_occur():
    slopes, offsets = [1, 3], [0, 4]
    drawn = linear_function.pairs(100, np.random.default_rng(0), slopes=slopes, offsets=offsets)
    found = set()
    for pair in drawn:
        (x, y), _ = parts(pair.clean)
        slope = (y[1] - y[0]) // (x[1] - x[0])
        found.add((int(slope), int(y[0] - slope * x[0])))
    assert found == {(1, 0), (1, 4), (3, 0), (3, 4)}


def test_gpt2_reads_the_numbers_whole(gpt2):
    prompts = tasks.get("linear_function", gpt2, 8, jax.random.key(0))
    for row in range(8):
        (x, y), asked = parts(gpt2.decode(np.asarray(prompts.tokens[row])))
        slope = (y[1] - y[0]) / (x[1] - x[0])
        said = gpt2.decode([int(prompts.correct[row, 0])])
        assert float(said) == y[0] + slope * (asked - x[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shown": 1}, r"shown: expected a whole number in \[2, 11\], got 1"),
        ({"shown": 12}, r"shown: expected a whole number in \[2, 11\], got 12"),
        ({"slopes": [0]}, r"slopes: expected a whole number >= 1, got 0"),
        ({"offsets": [-1]}, r"offsets: expected a whole number >= 0, got -1"),
        ({"slopes": [2], "offsets": [1, 1]}, r"those of at least two functions, got 1"),
        ({"slopes": []}, r"those of at least two functions, got 0"),
    ],
)
def test_errors(options, match):
    with pytest.raises(ValueError, match=match):
        linear_function.pairs(4, np.random.default_rng(0), **options)
