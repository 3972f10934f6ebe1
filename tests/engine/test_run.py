"""The sweep and the store, on a toy: identity, reuse, resume, damage, bad input."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from sims.engine.devices import scatter
from sims.engine.experiment import Parameter, configure, topics
from sims.engine.run import run, write
from tests.engine.toy import host_toy, one, per_cell, toy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[toy, host_toy], ids=lambda e: e.name)
def experiment(request):
    return request.param


def job(experiment=toy, **wish):
    return configure(experiment, "smoke", {"replicates": 4, **wish})


def numbers(dataset):
    return {name: v.values.tobytes() for name, v in dataset.data_vars.items()}


def parts(folder):
    return sorted(Path(folder).glob("parts/*/*.npz"))


def test_layout_labels_and_provenance(tmp_path, experiment):
    dataset, summary = run(job(experiment), tmp_path)
    assert dataset["average"].dims == ("mu", "scale", "replicate")
    assert dataset["moments"].dims == ("mu", "scale", "replicate", "power")
    assert dataset["moments_theory"].dims == ("mu", "scale", "power")
    assert dataset["mu"].attrs["label"] == r"mean $\mu$"
    assert dataset["offset"].dims == ()
    assert summary.computed == 24
    write(dataset, tmp_path / "dataset.nc")
    again = xr.load_dataset(tmp_path / "dataset.nc", engine="h5netcdf")
    assert numbers(again) == numbers(dataset)
    for key in ("commit", "packages", "backend", "precision", "seed", "preset", "settings", "command"):
        assert key in again.attrs


def test_second_run_computes_nothing_and_repeats_every_bit(tmp_path, experiment):
    first, _ = run(job(experiment), tmp_path)
    second, summary = run(job(experiment), tmp_path)
    assert (summary.computed, summary.reused) == (0, 24)
    assert numbers(first) == numbers(second)


def test_refined_grid_and_added_replicates_equal_a_fresh_run(tmp_path, experiment):
    run(job(experiment), tmp_path / "grown")
    wish = {"replicates": 6, "mu": [1.0, 1.5, 2.0, 3.0], "scale": [0.5, 1.0, 2.0]}
    grown, summary = run(job(experiment, **wish), tmp_path / "grown")
    fresh, _ = run(job(experiment, **wish), tmp_path / "fresh")
    assert numbers(grown) == numbers(fresh)
    assert (summary.reused, summary.computed) == (24, 72 - 24)


def test_a_truncated_part_is_counted_and_redone(tmp_path, experiment):
    first, _ = run(job(experiment), tmp_path)
    part = parts(tmp_path)[0]
    part.write_bytes(part.read_bytes()[:200])
    second, summary = run(job(experiment), tmp_path)
    assert summary.unreadable == 1
    assert summary.computed > 0
    assert numbers(first) == numbers(second)
    assert "set aside and redone: 1" in " ".join(summary.sentences())


@pytest.mark.parametrize("change", [{"seed": 1}, {"precision": 32}, {"settings": 17}])
def test_other_seed_precision_or_setting_is_left_alone(tmp_path, change):
    run(job(), tmp_path)
    before = {path: path.read_bytes() for path in parts(tmp_path)}
    wish = {"count": change.pop("settings")} if "settings" in change else {}
    other = configure(toy, "smoke", {"replicates": 4, **wish}, **change)
    _, summary = run(other, tmp_path)
    assert summary.reused == 0
    assert summary.foreign == len(before)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_changed_simulation_is_redone_and_a_comment_is_not(tmp_path):
    run(job(), tmp_path)

    def commented(key, cell, settings, sizes):
        # The same operations in another function.
        return one(key, cell, settings, sizes)

    def changed(key, cell, settings, sizes):
        return {**one(key, cell, settings, sizes), "average": cell["mu"]}

    table = np.array([1.0, 2.0])

    def capturing(key, cell, settings, sizes):
        out = one(key, cell, settings, sizes)
        return {**out, "average": out["average"] * jax.numpy.asarray(table)[0]}

    for simulate, reused in [(commented, 24), (changed, 0), (capturing, 0)]:
        variant = dataclasses.replace(toy, simulate=per_cell(simulate))
        _, summary = run(job(variant), tmp_path)
        assert summary.reused == reused
    table[0] = 3.0
    variant = dataclasses.replace(toy, simulate=per_cell(lambda *a: capturing(*a)))
    assert run(job(variant), tmp_path)[1].reused == 0


def test_block_size_changes_no_bit(tmp_path):
    wish = {"mu": np.linspace(1, 3, 9)}
    datasets = [run(job(**wish), tmp_path / str(block), block=block)[0] for block in (2, 7, 64)]
    assert numbers(datasets[0]) == numbers(datasets[1]) == numbers(datasets[2])


def test_fresh_computes_again(tmp_path):
    run(job(), tmp_path)
    _, summary = run(job(), tmp_path, fresh=True)
    assert summary.computed == 24


def test_failed_cells_have_a_status_and_nan(tmp_path):
    dataset, _ = run(job(mu=[1.0, 99.0]), tmp_path)
    lost = dataset.sel(mu=99.0)
    assert (lost["status"] == 1).all()
    assert np.isnan(lost["average"]).all()
    assert (dataset.sel(mu=1.0)["status"] == 0).all()


def test_values_that_leave_the_finite_numbers_are_marked_diverged(tmp_path):
    def diverging(key, cell, settings, sizes):
        out = one(key, cell, settings, sizes)
        return {**out, "average": jax.numpy.where(cell["mu"] > 2, jax.numpy.inf, out["average"])}

    dataset, _ = run(job(dataclasses.replace(toy, simulate=per_cell(diverging))), tmp_path)
    assert (dataset["status"].sel(mu=3.0) == 2).all()
    assert (dataset["status"].sel(mu=1.0) == 0).all()


def test_static_axis_compiles_once_per_value_and_swept_fixed_becomes_a_dimension(tmp_path):
    variant = dataclasses.replace(
        toy,
        axes={**toy.axes, "count": Parameter([4.0, 8.0], "count", role="static")},
        settings={"bias": toy.settings["bias"]},
        sizes=lambda settings: (int(settings["count"]),),
    )
    dataset, _ = run(job(variant, offset=[0.0, 1.0]), tmp_path)
    assert dict(dataset["average"].sizes) == {"mu": 3, "scale": 2, "count": 2, "offset": 2, "replicate": 4}
    spread = dataset["average"].std("replicate").mean(("mu", "scale", "offset"))
    assert spread[0] > spread[1]


def test_work_that_fails_is_raised_after_what_finished_is_kept(tmp_path):
    calls = []

    def failing(key, cell, settings, sizes):
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("out of luck")
        return dict(host_toy.simulate(key, cell, settings, sizes).items())

    variant = dataclasses.replace(host_toy, simulate=failing)
    with pytest.raises(RuntimeError, match="out of luck"):
        run(job(variant), tmp_path)
    assert sum(len(np.load(path)["cells"]) for path in parts(tmp_path)) == 5


def test_scatter_gives_every_item_once():
    devices = jax.devices() * 3
    out = dict(scatter(range(50), lambda i: i * i, devices))
    assert out == {i: i * i for i in range(50)}


def test_topics_are_what_theory_and_sims_share():
    assert "transfer" in topics()
    assert "engine" not in topics()


SLOW_TOY = """
import sys, time
sys.path.insert(0, {root!r})
import dataclasses, numpy as np
from sims.engine import run as module
from sims.engine.experiment import configure
from tests.engine.toy import host_toy
module.FLUSH_SECONDS = 0.05
def slow(*args):
    time.sleep(0.02)
    return host_toy.simulate(*args)
# A wrapper would be another simulation: keep the identity of the original.
module.source_version = lambda function: "toy"
job = configure(dataclasses.replace(host_toy, simulate=slow), "smoke", {{"replicates": 12}})
dataset, summary = module.run(job, {folder!r})
print(summary.reused, summary.computed)
print(sorted((name, v.values.tobytes().hex()) for name, v in dataset.data_vars.items()))
"""


def test_a_killed_run_resumes_bit_identical(tmp_path):
    def start(folder):
        script = SLOW_TOY.format(root=str(ROOT), folder=str(folder))
        return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)

    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 60
    while len(parts(tmp_path / "killed")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert len(parts(tmp_path / "killed")) >= 2
    resumed, whole = (start(tmp_path / name).communicate(timeout=90)[0].splitlines() for name in ("killed", "whole"))
    reused, computed = map(int, resumed[0].split())
    assert reused > 0
    assert reused + computed == 72
    assert whole[0] == "0 72"
    assert resumed[1] == whole[1]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"mu": [-1.0, 2.0]}, "`mu` must be positive, but got -1."),
        ({"mu": []}, "`mu` must have at least one value, but got none."),
        ({"count": 2.5}, "`count` must be a whole number, 1 or more, but got 2.5."),
        ({"replicates": 0}, "`replicates` must be a whole number, 1 or more, but got 0."),
        ({"nu": 1.0}, "`nu` is no parameter or setting of toy."),
        ({"bias": float("nan")}, "`bias` must be finite, but got nan."),
    ],
)
def test_bad_input_is_one_sentence(wish, sentence):
    with pytest.raises(ValueError, match=r"must|is no") as caught:
        configure(toy, "smoke", wish)
    assert str(caught.value) == sentence


def test_settings_travel_as_json(tmp_path):
    dataset, _ = run(job(), tmp_path)
    assert json.loads(dataset.attrs["settings"]) == {"count": 16, "bias": 0.1}


def test_importing_the_topics_leaves_devices_and_precision_to_be_chosen():
    script = (
        "import jax; from sims.engine.experiment import experiments, topics; list(map(experiments, topics())); "
        "jax.config.update('jax_num_cpu_devices', 2); print(jax.device_count())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
