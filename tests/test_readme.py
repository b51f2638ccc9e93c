"""The Python of the README runs as it stands there, with fewer prompts and tasks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from jaxcompress.compare import CompareConfig
from tests.conftest import ROOT

CHEAPER = {
    "model.tokenizer, 64,": "model.tokenizer, 4,",
    'out="runs/pair"': '["months"], "runs/pair", config=CompareConfig(count=4, bootstrap=20)',
}


@pytest.mark.slow
def test_the_readme_runs(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^## Use\n\n```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    for whole, cheap in CHEAPER.items():
        assert block.count(whole) == 1
        block = block.replace(whole, cheap)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"CompareConfig": CompareConfig}
    exec(compile(block, "README.md", "exec"), names)
    written = "runs/pair/report.html", "runs/pair/comparison.json", "somewhere", "small", "adapter"
    assert all((tmp_path / path).exists() for path in written)
    model, small, gates = (names[name] for name in ("model", "small", "gates"))
    assert names["effects"].mean.shape == gates.heads.shape
    gated = model.apply(model.params, names["prompts"].tokens, gates=gates).logits
    shrunk = small.apply(small.params, names["prompts"].tokens).logits
    np.testing.assert_allclose(shrunk, gated, atol=1e-4)
