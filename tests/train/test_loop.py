"""The loop: it learns, logs, stops at nonsense, and goes on after an interruption bit for bit."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcompress import runs, train
from jaxcompress.data.curriculum import curriculum
from jaxcompress.io import checkpoint
from jaxcompress.train.optimizer import decayed, schedule

CONFIG = train.OptimizerConfig(rate=0.05, warmup=2, weight_decay=0.01)
STEPS = 12


def loss(params, batch, key):
    """Least squares with noise on the inputs, so that the key of each step matters."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = x @ params["kernel"] + params["bias"][None] - batch["y"]
    return (error**2).mean(), {"error": jnp.abs(error).mean()}


@pytest.fixture
def data(key):
    x = jax.random.normal(key, (40, 3))
    return {"x": x, "y": x @ jnp.array([[1.0], [-2.0], [0.5]]) + 1}


@pytest.fixture
def start(key):
    params = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    return train.create(params, adam(), key)


def adam():
    return train.optimizer(CONFIG, STEPS)


STEP = train.make_step(loss, adam())


def fit(state, data, steps=STEPS, **options):
    return train.fit(
        state, STEP, data, steps, **({"batch": 8, "chunk": 4, "progress": False} | options)
    )


def raw(tree):
    """Leaves as arrays of numbers, keys too."""
    return [
        np.asarray(
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for leaf in jax.tree.leaves(tree)
    ]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(raw(a), raw(b), strict=True):
        np.testing.assert_array_equal(left, right)


def test_it_learns(data, key):
    optimizer = train.optimizer(train.OptimizerConfig(rate=0.1, warmup=5, weight_decay=0.0), 200)
    quiet = lambda params, batch, key: loss(params, {**batch, "x": batch["x"]}, key)  # noqa: E731
    params = {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    state = train.create(params, optimizer, key)
    state = train.fit(state, train.make_step(quiet, optimizer), data, 200, batch=16, progress=False)
    np.testing.assert_allclose(state.params["kernel"].ravel(), [1, -2, 0.5], atol=0.1)
    np.testing.assert_allclose(state.params["bias"], 1, atol=0.1)


@pytest.mark.parametrize("stop", [4, 8])
def test_resumed_is_uninterrupted(data, start, tmp_path, stop):
    """Stopped at a checkpoint and called again: the same parameters, moments, step and key."""
    whole = fit(start, data)
    part = fit(start, data, stop, checkpoints=tmp_path)
    assert int(part.step) == checkpoint.latest(tmp_path) == stop
    resumed = fit(start, data, checkpoints=tmp_path)
    assert int(resumed.step) == STEPS
    assert_same(resumed, whole)


def test_killed_between_checkpoints(data, start, tmp_path, monkeypatch):
    """What was done after the last checkpoint is done again, and comes out the same."""
    run = runs.start(tmp_path / "run", CONFIG, seed=0)
    log, seen = runs.log, []

    def die(run, **row):
        seen.append(row["step"])
        log(run, **row)
        if row["step"] == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "log", die)
    folder = tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        fit(start, data, checkpoints=folder, every=8, run=run)
    assert checkpoint.latest(folder) == 8
    monkeypatch.setattr(runs, "log", log)
    assert_same(fit(start, data, checkpoints=folder, every=8), fit(start, data))
    assert seen == [4, 8, 12]


def test_finished_runs_are_not_trained_on(data, start, tmp_path):
    first = fit(start, data, checkpoints=tmp_path)
    assert_same(fit(start, data, checkpoints=tmp_path), first)


def test_the_caller_keeps_its_state(data, start):
    before = jax.tree.map(jnp.copy, start)
    fit(start, data)
    assert_same(start, before)


def test_the_key_decides(data, start, key):
    other = train.create(start.params, adam(), jax.random.key(1))
    assert not np.array_equal(fit(start, data).params["kernel"], fit(other, data).params["kernel"])


def test_chunks_do_not_matter(data, start):
    a, b = fit(start, data, chunk=4), fit(start, data, chunk=5)
    np.testing.assert_allclose(a.params["kernel"], b.params["kernel"], rtol=1e-5)


def test_one_compilation_for_all_chunks(data, start):
    traces = []

    def counted(state, batch):
        traces.append(None)
        return STEP(state, batch)

    train.fit(start, counted, data, 12, batch=8, chunk=3, progress=False)
    assert len(traces) == 1


def test_a_curriculum_decides_which_rows_are_drawn():
    """Two tasks of 40 rows: the second, harder one is not seen before half of the steps."""
    seen = []
    step = train.make_step(lambda w, x, key: (0.0 * w["w"].sum(), {"rows": x.mean()}), adam())
    start = train.create({"w": jnp.ones(2)}, adam(), jax.random.key(3))
    data = np.repeat([0.0, 1.0], 40).astype(np.float32)
    order = curriculum("easy_first", [1, 2], steps=40, frequencies=[1, 3])
    train.fit(
        start, step, data, 40, batch=64, chunk=1, curriculum=order, progress=False,
        loggers=[lambda name, step, row: seen.append(row["rows"])],
    )  # fmt: skip
    assert max(seen[:20]) == 0
    np.testing.assert_allclose(np.mean(seen[20:]), 0.75, atol=0.03)
    with pytest.raises(ValueError, match="data: expected as many rows of 2 tasks, got 79 rows"):
        train.fit(start, step, data[1:], 40, batch=4, curriculum=order)


def test_tasks_of_a_curriculum_need_not_have_as_many_rows():
    """3, 50 and 27 rows in shares 1 : 3 : 0: every row of a task as often as the others of it."""
    seen = []
    bounds = {"first": (0, 3), "row 0": (0, 1), "second": (3, 53), "row 52": (52, 53)}

    def counted(params, rows, key):
        found = {k: ((rows >= a) & (rows < b)).mean() for k, (a, b) in bounds.items()}
        return 0.0 * params["w"].sum(), found

    start = train.create({"w": jnp.ones(2)}, adam(), jax.random.key(3))
    order = curriculum("mixed", [1, 1, 1], steps=0, frequencies=[1, 3, 1]).only([1, 1, 0])
    options = {"batch": 256, "chunk": 200, "curriculum": order, "progress": False}
    options["loggers"] = [lambda name, step, row: seen.append(row)]
    step, rows = train.make_step(counted, adam()), np.arange(80)
    train.fit(start, step, rows, 200, sizes=[3, 50, 27], **options)
    expected = {"first": 0.25, "row 0": 0.25 / 3, "second": 0.75, "row 52": 0.75 / 50}
    assert {k: seen[0][k] for k in expected} == pytest.approx(expected, abs=5e-3)
    assert seen[0]["first"] + seen[0]["second"] == pytest.approx(1)
    for sizes in ([3, 50], [3, 50, 28], [0, 53, 27]):
        with pytest.raises(ValueError, match="sizes: expected for each of 3 tasks a number of row"):
            train.fit(start, step, rows, 200, sizes=sizes, **options)
    with pytest.raises(ValueError, match="sizes: expected nothing without a curriculum"):
        train.fit(start, step, rows, 200, sizes=[40, 40], **options | {"curriculum": None})


def test_nothing_is_kept_of_a_step_after_the_call(data, start):
    """A process that trains many models would run out of memory maps for compiled programs."""
    step = train.make_step(loss, adam())
    train.fit(start, step, data, 4, batch=8, chunk=4, progress=False)
    left = weakref.ref(step)
    del step
    gc.collect()
    assert left() is None


def test_metrics_are_logged(data, start, tmp_path):
    run = runs.start(tmp_path / "run", CONFIG, seed=0)
    fit(start, data, run=run, name="teacher")
    rows = runs.rows(run.directory)
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert set(rows[0]) == {"name", "step", "loss", "grad_norm", "error"}
    assert rows[0]["name"] == "teacher" and rows[-1]["loss"] < rows[0]["loss"]


def test_resumed_runs_log_no_row_twice(data, start, tmp_path):
    """Stopped at 8 of 12 with a checkpoint at 4: rows 4, 8, then 8 and 12 again."""

    def stop(name, step, row):
        if step == 8:
            raise KeyboardInterrupt

    run, folder = runs.start(tmp_path / "run", CONFIG, seed=0), tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        fit(start, data, run=run, checkpoints=folder, loggers=[stop])
    runs.log(run, name="other", step=99)
    fit(start, data, run=run, checkpoints=folder)
    rows = [(row["name"], row["step"]) for row in runs.rows(run.directory)]
    assert rows == [("train", 4), ("other", 99), ("train", 8), ("train", 12)]


def test_two_checkpoints_are_kept(data, start, tmp_path):
    fit(start, data, checkpoints=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["12", "8"]


def at_step(values):
    """A step whose loss, update and gradient norm are given, by number of the step."""

    def step(state, batch):
        metrics = {name: jnp.asarray(value)[state.step] for name, value in values.items()}
        return dataclasses.replace(state, step=state.step + 1), metrics

    return step


def chosen(state, step, batch, rows):
    """The rows of a step, as the documentation says: by the key of the run and the step."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), step)
    return jax.random.randint(key, (batch,), 0, rows).tolist()


@pytest.mark.parametrize("metric", ["loss", "grad_norm"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_bad_step_is_named(data, start, tmp_path, metric, bad):
    """Step 7 of chunks of four: its rows, and the checkpoint of step 4, which is still good."""
    values = {"loss": np.ones(12, np.float32), "grad_norm": np.ones(12, np.float32)}
    values[metric][6:] = bad
    with pytest.raises(ValueError, match=f"{metric} of train: expected finite at step 7") as error:
        train.fit(
            start,
            at_step(values),
            data,
            12,
            batch=5,
            chunk=4,
            checkpoints=tmp_path,
            progress=False,
        )
    assert f"got {bad}. Its batch was rows {chosen(start, 6, 5, 40)};" in str(error.value)
    assert f"the last good checkpoint is {tmp_path / '4'}." in str(error.value)
    assert checkpoint.latest(tmp_path) == 4


def test_losses_that_diverge_are_stopped(data, start):
    """The real thing: 0 / 0 in the first step."""
    wild = train.make_step(
        lambda params, batch, key: (params["bias"].sum() / 0.0, {}), optax.sgd(1.0)
    )
    state = train.create(start.params, optax.sgd(1.0), start.key)
    expected = "loss of train: expected finite at step 1, got nan.*last good checkpoint is none"
    with pytest.raises(ValueError, match=expected):
        train.fit(state, wild, data, 4, batch=2, chunk=2, progress=False)


def test_parameters_that_diverge_are_not_saved(data, start, tmp_path):
    """Loss and gradient of the last step are fine: they are those before its update."""
    wild = train.make_step(loss, optax.sgd(1e38))
    state = train.create(start.params, optax.sgd(1e38), start.key)
    expected = "parameters of train: expected finite after step 1, .*The last good checkpoint is no"
    with pytest.raises(ValueError, match=expected):
        train.fit(state, wild, data, 1, batch=8, checkpoints=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_another_run_are_refused(data, start, tmp_path):
    """Whatever it is that differs: its result would pass for that of this run."""
    fit(start, data, checkpoints=tmp_path, about={"loss": "squares"})
    other = train.create({**start.params, "bias": jnp.ones(1)}, adam(), start.key)
    for state, rows, options, what in (
        (other, data, {}, "start"),
        (start, {**data, "y": data["y"] + 1}, {}, "data"),
        (start, data, {"batch": 4}, "batch"),
        (start, data, {"about": {"loss": "kl"}}, "loss"),
    ):
        options = {"about": {"loss": "squares"}, "checkpoints": tmp_path} | options
        with pytest.raises(
            ValueError, match=f"12: expected a checkpoint of this run.*another {what}"
        ):
            fit(state, rows, **options)
    with pytest.raises(ValueError, match="steps: expected at least 12, those of .*12, got 4"):
        fit(start, data, 4, checkpoints=tmp_path, about={"loss": "squares"})


def test_rows_are_those_of_the_step(data, start):
    """Every step sees the rows that its number and the key say, however chunks are cut."""
    numbers = {"row": jnp.arange(40)}

    def step(state, batch):
        metrics = {"loss": (batch["row"] * 41 ** jnp.arange(3)).sum()}
        return dataclasses.replace(state, step=state.step + 1), metrics

    seen = []
    train.fit(
        start,
        step,
        numbers,
        5,
        batch=3,
        chunk=1,
        loggers=[lambda name, step, row: seen.append(row["loss"])],
        progress=False,
    )
    expected = [np.dot(chosen(start, i, 3, 40), [1, 41, 1681]) for i in range(5)]
    assert seen == expected


def test_loggers_get_what_is_logged(data, start, tmp_path):
    run, seen = runs.start(tmp_path / "run", CONFIG, seed=0), []
    fit(start, data, run=run, loggers=[lambda *row: seen.append(row)], name="student")
    rows = runs.rows(run.directory)
    assert [{"name": n, "step": s, **row} for n, s, row in seen] == rows


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": -1}, "steps: expected a whole number >= 0"),
        ({"batch": 0}, "batch: expected a whole number >= 1"),
        ({"every": 6}, r"every: expected a multiple of chunk \(4\), got 6"),
    ],
)
def test_wrong_arguments(data, start, options, expected):
    with pytest.raises(ValueError, match=expected):
        fit(start, data, **options)


def test_rows_must_agree(data, start):
    with pytest.raises(ValueError, match="data: expected arrays with one common number of rows"):
        fit(start, {**data, "y": data["y"][:3]})


def test_checkpoints_of_something_else(data, start, tmp_path):
    checkpoint.save(tmp_path, 4, {"other": jnp.ones(3)})
    with pytest.raises(ValueError, match="expected a checkpoint of this run, got one with another"):
        fit(start, data, checkpoints=tmp_path)


def test_keys_are_typed(start):
    with pytest.raises(ValueError, match="key: expected one typed PRNG key, got uint32"):
        train.create(start.params, optax.sgd(1.0), jax.random.PRNGKey(0))


def test_biases_and_norms_are_not_decayed(start):
    assert decayed(start.params) == {"bias": False, "kernel": True}
    zero = jax.tree.map(jnp.zeros_like, start.params)
    ones = jax.tree.map(jnp.ones_like, start.params)
    optimizer = train.optimizer(train.OptimizerConfig(rate=1.0, warmup=0), 10)
    updates, _ = optimizer.update(zero, optimizer.init(ones), ones)
    assert (updates["kernel"] < 0).all() and not updates["bias"].any()


def test_gradients_are_clipped():
    optimizer = train.optimizer(train.OptimizerConfig(rate=1.0, warmup=0, weight_decay=0.0), 10)
    params = {"kernel": jnp.zeros(2)}
    first, second = (
        optimizer.update({"kernel": g * jnp.ones(2)}, optimizer.init(params), params)[1]
        for g in (1e3, 1e6)
    )
    np.testing.assert_allclose(raw(first)[1], raw(second)[1], rtol=1e-5)


def test_schedule_rises_and_falls():
    rate = schedule(train.OptimizerConfig(rate=2.0, warmup=4, final=0.1), 20)
    values = np.array([rate(i) for i in range(21)])
    assert values[0] == 0 and values[4] == values.max() == 2 and np.isclose(values[-1], 0.2)
    assert (np.diff(values[:5]) > 0).all() and (np.diff(values[4:]) < 0).all()
    with pytest.raises(
        ValueError, match="optimizer.warmup: expected a whole number of at least 0 and below steps"
    ):
        schedule(train.OptimizerConfig(warmup=20), 20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rate", -1.0), ("rate", np.nan), ("final", 2.0), ("weight_decay", -0.1), ("clip", 0.0)),
        *(("beta1", 2.0), ("beta2", 1.0)),
    ],
)
def test_values_that_cannot_train(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a number .*, got {value}"):
        train.optimizer(train.OptimizerConfig(**{"warmup": 0, name: value}), 20)
