"""Checkpoints: whole or not at all, damage passed over with a warning, one error for bad disks."""

from __future__ import annotations

import resource
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.io import checkpoint


def state(value):
    return {
        "w": jnp.full((3, 2), value),
        "half": jnp.full(4, value, jnp.bfloat16),
        "step": jnp.asarray(int(value)),
        "rest": (jax.random.key(int(value)), {"mask": jnp.array([True, False])}, None),
    }


def assert_same(a, b):
    def numbers(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(numbers(left), numbers(right))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Checkpoints 4 and 8; tests work on copies."""
    folder = tmp_path_factory.mktemp("original")
    for step in (4, 8):
        checkpoint.save(folder, step, state(step))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "checkpoints")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(folder):
    assert checkpoint.latest(folder) == 8
    assert_same(checkpoint.restore(folder, state(0)), state(8))
    assert_same(checkpoint.restore(str(folder), state(0), step=4), state(4))


def test_the_last_are_kept(folder):
    checkpoint.save(folder, 12, state(12))
    assert names(folder) == ["12", "8"]
    checkpoint.save(folder, 10, state(10), keep=3)  # 12 belongs to a run that went another way
    assert names(folder) == ["10", "8"]
    checkpoint.save(folder, 10, state(11), keep=1)
    assert names(folder) == ["10"]
    assert_same(checkpoint.restore(folder, state(0)), state(11))


def files_of(folder):
    found = (path for path in (folder / "8").rglob("*") if path.is_file())
    return [path for path in found if path.stat().st_size]


@pytest.mark.parametrize("harm", ["remove", "truncate", "flip"])
def test_damage_to_any_file_is_seen(original, tmp_path, harm):
    """Whichever file is damaged, the checkpoint before it is used, with a warning."""
    for i, file in enumerate(files_of(original)):
        folder = shutil.copytree(original, tmp_path / str(i))
        damaged = folder / file.relative_to(original)
        content = bytearray(damaged.read_bytes())
        if harm == "remove":
            damaged.unlink()
        elif harm == "truncate":
            damaged.write_bytes(content[: len(content) // 2])
        elif file.name != "manifest.json":
            content[len(content) // 2] ^= 1
            damaged.write_bytes(content)
        else:
            continue
        with pytest.warns(UserWarning, match="/8: damaged checkpoint ignored"):
            assert checkpoint.latest(folder) == 4
        with pytest.raises(ValueError, match="/8: expected a whole checkpoint, got"):
            checkpoint.restore(folder, state(0), step=8)


def test_the_one_before_is_restored(folder):
    (folder / "8" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="damaged checkpoint ignored, its manifest.json"):
        restored = checkpoint.restore(folder, state(0))
    assert_same(restored, state(4))


@pytest.mark.parametrize("text", ["[]", "3", '{"files": []}', '{"files": [], "leaves": {}}'])
def test_manifests_of_another_kind(folder, text):
    (folder / "8" / "manifest.json").write_text(text)
    with pytest.warns(UserWarning, match="damaged checkpoint ignored, its manifest.json"):
        assert checkpoint.latest(folder) == 4


def test_half_written_folders(folder):
    """What a killed writer leaves is named on reading and removed by the next writing."""
    left = folder / ".12.0a1b2c3d"
    (left / "state").mkdir(parents=True)
    with pytest.warns(UserWarning, match="0a1b2c3d: half-written checkpoint ignored"):
        assert checkpoint.latest(folder) == 8
    checkpoint.save(folder, 12, state(12))
    assert names(folder) == ["12", "8"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.latest(folder) == 12


def test_what_others_wrote_stays(folder):
    """Folders that are called by a year or hidden, and the web's idea of a manifest."""
    theirs = ("2024/thesis.tex", ".2023.photos/a.jpg", "3/manifest.json", "12/notes.txt")
    for name in theirs:
        (folder / name).parent.mkdir()
        (folder / name).write_text('{"files": []}')
    with pytest.warns(UserWarning, match="12: not a whole checkpoint, renamed to 12."):
        checkpoint.save(folder, 12, state(12), keep=1)
    assert all((folder / name).is_file() for name in theirs[:3])
    assert [path.read_text() for path in folder.glob("12.*.kept/notes.txt")] == ['{"files": []}']
    assert {"12"} == set(names(folder)) & {"4", "8", "12"}
    with pytest.warns(UserWarning, match="2024: damaged checkpoint ignored"):
        assert checkpoint.latest(folder) == 12


def test_checkpoints_of_another_run(folder):
    ours = {"batch": 8, "recipe": {"loss": "jsd", "tasks": ("ioi",)}}
    checkpoint.save(folder, 12, state(12), about=ours)
    assert_same(checkpoint.restore(folder, state(0), about=ours), state(12))
    assert_same(checkpoint.restore(folder, state(0)), state(12))
    for other, names_ in (({**ours, "batch": 4}, "batch"), ({}, "batch, recipe")):
        match = f"/12: expected a checkpoint of this run, got one with another {names_}. Choose"
        with pytest.raises(ValueError, match=match):
            checkpoint.restore(folder, state(0), about=other)


def test_fingerprints_tell_values_apart(tmp_path):
    changes = [{}, {"w": jnp.zeros((2, 3))}, {"rest": ()}, {"step": jnp.asarray(1)}]
    found = [checkpoint.fingerprint({**state(0), **change}) for change in changes]
    assert len(set(found)) == len(found)
    rows = np.memmap(tmp_path / "rows", np.int32, "w+", shape=(1000, 2))
    before = checkpoint.fingerprint(rows)
    assert before == checkpoint.fingerprint(rows)
    rows[-1] = 1
    assert checkpoint.fingerprint(rows) != before


def test_nothing_whole(tmp_path):
    (tmp_path / "3").mkdir()
    with pytest.warns(UserWarning, match="/3: damaged checkpoint ignored"):
        assert checkpoint.latest(tmp_path) is None
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"expected a whole checkpoint, got \[3\]"),
    ):
        checkpoint.restore(tmp_path, state(0))


def test_there_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "no") is None
    with pytest.raises(ValueError, match="expected a whole checkpoint, got none"):
        checkpoint.restore(tmp_path / "no", state(0))
    with pytest.raises(ValueError, match="expected a checkpoint 5, got none"):
        checkpoint.restore(tmp_path, state(0), step=5)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"w": jnp.ones((3, 2))}, r"half: shape \(4,\) for nothing"),
        ({**state(0), "w": jnp.ones((5, 5))}, r"w: shape \(3, 2\) for shape \(5, 5\)"),
        ({**state(0), "x": jnp.ones(1)}, r"x: nothing for shape \(1,\)"),
        ({**state(0), "rest": dict(zip("012", state(0)["rest"], strict=True))}, "User-provided"),
        ({**state(0), "step": jax.random.key(0)}, r"step: shape \(\) for key<fry> \(\)"),
    ],
)
def test_trees_of_another_kind(folder, other, problem):
    match = f"/8: expected a checkpoint of this kind of state, got {problem}"
    with pytest.raises(ValueError, match=match):
        checkpoint.restore(folder, other)


def test_other_types_are_converted(folder):
    """A state saved in half precision can be read into full precision."""
    found = checkpoint.restore(folder, {**state(0), "half": jnp.zeros(4, jnp.float32)})
    assert found["half"].dtype == jnp.float32
    np.testing.assert_array_equal(found["half"], 8.0)


def test_folders_that_cannot_be_written_to(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/a: expected a directory that can be written to"):
        checkpoint.save(tmp_path / "file" / "a", 1, state(1))
    with pytest.raises(ValueError, match="can be written to, with room for 0.0 MB"):
        checkpoint.prepare("/proc/checkpoints")
    assert capfd.readouterr().err == ""  # one error, and no pages of it from threads


@pytest.fixture
def limited():
    """No file may become larger than 64 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disks(folder, limited):
    large = {**state(12), "w": jnp.ones((200, 200))}
    with pytest.raises(ValueError, match="with room for 0.2 MB, got File too large"):
        checkpoint.save(folder, 12, large)
    assert names(folder) == ["4", "8"]


def test_arrays_without_an_element(tmp_path):
    """A network without hidden layers between the first and the last has such kernels."""
    full = state(1) | {"hidden": (jnp.zeros((0, 3, 3)), jnp.zeros((2, 0), jnp.bfloat16))}
    checkpoint.save(tmp_path, 1, full)
    assert_same(checkpoint.restore(tmp_path, full), full)
    with pytest.raises(ValueError, match=r"hidden/0: shape \(0, 3, 3\) for shape \(0, 4, 4\)"):
        checkpoint.restore(tmp_path, full | {"hidden": (jnp.zeros((0, 4, 4)), full["hidden"][1])})


def test_shardings_are_those_asked_for(folder):
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    where = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
    like = state(0) | {"w": jax.device_put(state(0)["w"], where)}
    restored = checkpoint.restore(folder, like)
    assert restored["w"].sharding == where
    np.testing.assert_array_equal(restored["w"], state(8)["w"])
