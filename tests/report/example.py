"""A comparison made up with a seed, in the form that `jaxcompress.compare` returns; no model runs.

Sizes are GPT-2's and DistilGPT2's, the large effects those published for the numerals task. The
second task has what goes wrong: a student whose clean logit difference is 0, so that it has no
percentages, nulls that were not computed, and NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

TEACHER_HEADS = {
    (7, 11): -47.12, (10, 7): -15.01, (1, 5): -14.3, (8, 8): -13.32, (4, 4): -13.1,
    (8, 6): -10.9, (9, 1): -8.78, (6, 6): -7.16, (6, 10): -6.71, (8, 1): -5.76,
}  # fmt: skip
STUDENT_HEADS = {(2, 4): -103.89, (4, 1): -96.25, (0, 1): -91.52, (3, 11): -86.29, (3, 7): -26.89}
TEACHER_MLPS = [37.4, 90.7, 97.3, 97.3, 85.8, 87.4, 84.2, 88.1, 74.8, 28.7, 67.3, 78.8]
STUDENT_MLPS = [-31.4, 19.0, 20.4, 62.2, -14.1, 64.1]
HOSTILE = "<script>alert('x')</script>"


def comparison(
    *, teacher: str = "gpt2", student: str = "distilgpt2", heads: int = 12
) -> dict[str, Any]:
    """A whole comparison: two tasks, the second one with everything that can be missing.

    Args:
      teacher: name of the teacher.
      student: name of the student.
      heads: heads per layer of both.
    """
    random = np.random.default_rng(0)
    return {
        "teacher": _model(teacher, 12, heads, 124_439_808, 85_056_000, 250.0e6, 0.0452, 0.011),
        "student": _model(student, 6, heads, 81_912_576, 42_528_768, 163.6e6, 0.0251, None),
        "settings": {
            "count": 128,
            "seed": 0,
            "replacement": "mean",
            "tasks": ["numerals", "ioi"],
            "bootstrap": 10_000,
            "device": "cpu: AMD EPYC 7B13",
            "versions": {"jaxcompress": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6"},
            "command": f"jaxcompress compare {teacher} {student} --tasks numerals,ioi",
        },
        "tasks": [_numerals(random, heads), _broken(random, heads)],
        "summary": [
            f"On numerals, {student} gives the teacher's answer on 87.5 % of the prompts with 0.66 "
            "times the parameters.",
            "Two of the teacher's ten important heads are kept, three were merged into one, and "
            "three have no match.",
            "The student leans on single heads: removing head 2.4 costs it all of its score, where "
            "no head of the teacher is worth more than 47.1 %.",
            "The overlap of 0.38 is above chance (p = 0.044), far below the teacher with itself.",
        ],
    }


def _model(
    name: str, layers: int, heads: int, parameters: int, inner: int, flops: float, latency: float,
    joules: float | None,
) -> dict[str, Any]:  # fmt: skip
    missing = "unavailable: no RAPL domains in /sys/class/powercap"
    cost = {
        "parameters": parameters,
        "parameters_nonembedding": inner,
        "bytes": 4 * parameters,
        "flops_per_token": flops,
        "latency_seconds": latency,
        "latency_spread_seconds": latency / 30,
        "tokens_per_second": 64 / latency,
        "joules_per_token": joules,
        "joules_source": missing if joules is None else "RAPL package-0",
        "device": "cpu: AMD EPYC 7B13",
        "batch": 1,
        "length": 64,
        "repeats": 20,
    }
    size = {"layers": layers, "heads": heads, "width": 768, "neurons": 3072}
    return {"name": name, "family": "gpt2", **size, "cost": cost}


def _numerals(random: np.random.Generator, heads: int) -> dict[str, Any]:
    teacher = _side(random, 6.146, (12, heads), TEACHER_HEADS, TEACHER_MLPS)
    student = _side(random, 4.293, (6, heads), STUDENT_HEADS, STUDENT_MLPS)
    return {
        "name": "numerals",
        "count": 128,
        "behaviour": {
            "teacher": _answers(0.31, 0.953, 6.146, 0.74),
            "student": _answers(0.92, 0.867, 4.293, 0.47),
            "agreement": 0.875,
            "kl": 0.412,
        },
        "dependence": {"teacher": teacher, "student": student},
        "alignment": _alignment(_pairs(random, teacher, student)),
        "faithfulness": {
            "value": 0.44,
            "raw": 0.52,
            "null": 0.14,
            "refused": "",
            "circuit": ["head 7.11", "head 10.7", "mlp 0", "mlp 2"],
            "image": ["head 2.4", "mlp 1"],
        },
        "fate": _fate(),
        "jobs": _jobs(),
        "redundancy": {
            "teacher": [
                {"parts": ["mlp 2", "mlp 3"], "extra": 2.31},
                {"parts": ["head 7.11", "head 10.7"], "extra": -0.84},
            ],
            "student": [{"parts": ["head 2.4", "head 4.1"], "extra": 3.9}],
        },
        "shifted": _shifted(),
    }


def _jobs() -> list[dict[str, Any]]:
    costs = {"drop_teacher": 47.1, "drop_student": 103.9}
    return [
        {"teacher": "head 7.11", "students": ["head 2.4", "mlp 3"], "similarity": 0.62,
         "alone": 0.51, "floor": 0.25} | costs,
        {"teacher": "mlp 2", "students": ["mlp 1"], "similarity": 0.7, "alone": 0.7,
         "floor": 0.31} | costs,
    ]  # fmt: skip


def _shifted() -> list[dict[str, Any]]:
    told = {
        "teacher": _answers(0.31, 0.953, 6.146, 0.74),
        "student": _answers(0.92, 0.867, 4.293, 0.47),
    }
    worse = told | {"student": _answers(2.1, 0.41, 1.2, 0.2)}
    return [
        {"shift": "as asked", "models": told},
        {"shift": "other verbs", "models": worse},
        {"shift": "longer", "refused": "numerals: expected 128 prompts, got 12 of 40"},
    ]


def _broken(random: np.random.Generator, heads: int) -> dict[str, Any]:
    task = _numerals(random, heads) | {"name": "ioi"}
    student = task["dependence"]["student"]
    student["clean"] = 0.0
    student["heads_percent"] = [[None] * heads for _ in range(6)]
    student["mlps_percent"] = [None] * 6
    student["heads"][5][heads - 1] = math.nan
    in_percent = ("mean_drop", "interval", "severity", "worst5", "gini", "summed_drop",
                  "heads_mean", "mlps_mean")  # fmt: skip
    student["robustness"] |= dict.fromkeys(in_percent)
    task["behaviour"]["student"] = _answers(5.2, 0.0, 0.0, 0.004)
    task["behaviour"]["kl"] = math.nan
    alignment = task["alignment"]
    alignment["interval"] = None
    alignment["nulls"]["untrained_student"] = None
    alignment["nulls"]["random_matching"]["overlap"] = {"mean": None, "sd": None, "p": None}
    task["fate"] = {"kept": [], "merged": [], "discarded": [], "brittle": [], "rules": "None."}
    refused = {"value": None, "refused": "the student cannot do this task"}
    task |= {
        "faithfulness": refused,
        "jobs": [],
        "redundancy": {"teacher": [], "student": []},
        "shifted": [],
    }
    return task


def _answers(loss: float, accuracy: float, difference: float, probability: float) -> dict[str, Any]:
    return {
        "loss": loss,
        "accuracy": accuracy,
        "logit_difference": difference,
        "probability": probability,
    }


def _side(
    random: np.random.Generator, clean: float, size: tuple[int, int],
    large: dict[tuple[int, int], float], retained: list[float],
) -> dict[str, Any]:  # fmt: skip
    heads = random.normal(-0.3, 0.8, size)
    for (layer, head), value in large.items():
        heads[layer, head % size[1]] = value
    mlps = np.array(retained) - 100.0
    drops = np.clip(-np.concatenate([heads.ravel(), mlps]), 0, 100)
    worst = np.sort(drops)[-5:]
    robustness = {
        "mean_drop": drops.mean(),
        "interval": [drops.mean() * 0.7, drops.mean() * 1.4],
        "severity": np.mean(np.maximum(0, (drops - 20) / 80)),
        "worst5": worst.mean(),
        "gini": 0.81,
        "summed_drop": drops.sum(),
        "mean_drop_raw": drops.mean() * clean / 100,
        "worst5_raw": worst.mean() * clean / 100,
        "heads_mean": np.clip(-heads, 0, 100).mean(),
        "mlps_mean": np.clip(-mlps, 0, 100).mean(),
    }
    return {
        "clean": clean,
        "heads": (heads * clean / 100).tolist(),
        "mlps": (mlps * clean / 100).tolist(),
        "heads_percent": heads.tolist(),
        "mlps_percent": mlps.tolist(),
        "robustness": {key: np.asarray(value).tolist() for key, value in robustness.items()},
    }


def _pairs(random: np.random.Generator, teacher: Any, student: Any) -> list[dict[str, Any]]:
    """Each student part with a teacher part of its kind; influences add to 1 over the pairs."""
    pairs = []
    for layer, row in enumerate(student["heads_percent"]):
        for head, value in enumerate(row):
            match = (min(11, 2 * layer + int(random.integers(2))), int(random.integers(len(row))))
            if (layer, head) in STUDENT_HEADS:
                match = {(0, 1): (0, 1), (2, 4): (4, 4), (3, 11): (7, 11), (4, 1): (9, 1)}.get(
                    (layer, head), match
                )
            other = teacher["heads_percent"][match[0]][match[1] % len(row)]
            pairs.append((f"head {layer}.{head}", f"head {match[0]}.{match[1]}", value, other))
    for layer, value in enumerate(student["mlps_percent"]):
        pairs.append(
            (f"mlp {layer}", f"mlp {2 * layer}", value, teacher["mlps_percent"][2 * layer])
        )
    totals = [sum(abs(pair[i]) for pair in pairs) for i in (2, 3)]
    return [
        {
            "student": pair[0],
            "teacher": pair[1],
            "similarity": float(random.uniform(0.6, 1.0)),
            "influence_student": abs(pair[2]) / totals[0],
            "influence_teacher": abs(pair[3]) / totals[1],
        }
        for pair in pairs
    ]


def _alignment(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    def null(mean: float, sd: float, p: float) -> dict[str, float]:
        return {"mean": mean, "sd": sd, "p": p}

    def scores(
        published: float, similarity: float, weighted: float, overlap: float
    ) -> dict[str, float]:
        return {
            "published": published,
            "mean_similarity": similarity,
            "weighted": weighted,
            "overlap": overlap,
        }

    return {
        **scores(0.8954, 0.9038, 0.874, 0.380),
        "influence_part": 0.8954 - 0.9038,
        "interval": [0.331, 0.425],
        "nulls": {
            "permuted_influences": {
                "published": null(0.9041, 0.0010, 0.987),
                "weighted": null(0.861, 0.012, 0.14),
                "overlap": null(0.316, 0.036, 0.044),
            },
            "random_matching": {
                "published": null(0.693, 0.014, 0.0001),
                "weighted": null(0.68, 0.03, 0.0001),
                "overlap": null(0.12, 0.03, 0.0001),
            },
            "from_scratch": None,
            "untrained_student": scores(0.861, 0.87, 0.84, 0.21),
            "teacher_itself": scores(1.0, 1.0, 1.0, 1.0),
        },
        "pairs": pairs,
    }


def _fate() -> dict[str, Any]:
    discarded = [(7, 10, 15.01), (8, 8, 13.32), (8, 6, 10.9)]
    return {
        "kept": [
            {"teachers": ["head 7.11"], "student": "head 3.11", "drop_teacher": 47.12,
             "drop_student": 86.29, "similarity": 0.94, "floor": 0.25},
            {"teachers": ["head 9.1"], "student": "head 4.1", "drop_teacher": 8.78,
             "drop_student": 96.25, "similarity": 0.91, "floor": 0.3},
        ],
        "merged": [
            {"teachers": ["head 1.5", "head 4.4", "head 6.6"], "student": "head 2.4",
             "drop_teacher": 34.3, "drop_student": 100.0, "similarity": 0.7, "floor": 0.25},
        ],
        "discarded": [
            {"teachers": [f"head {layer}.{head}"], "student": "head 5.0", "drop_teacher": drop,
             "drop_student": 0.4, "similarity": 0.12, "floor": 0.25}
            for layer, head, drop in discarded
        ],
        "brittle": [
            {"student": f"head 0.{i}", "teachers": [f"head 0.{i}"], "drop_teacher": 1.2 + i / 10,
             "drop_student": 91.52 - i} for i in range(11)
        ],
        "rules": "A component matters if removing it costs at least 10 % of the clean logit "
        "difference.",
    }  # fmt: skip
