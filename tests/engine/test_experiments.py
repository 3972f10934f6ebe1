"""What every registered experiment must do. A new topic gets these tests by being in the folder."""

import functools
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from jax import export

from sims.engine.agreement import assess
from sims.engine.experiment import (
    STATUS,
    Bound,
    Order,
    Pathwise,
    by_sizes,
    compiled,
    configure,
    experiments,
    topics,
    traced,
)
from sims.engine.judgement import DISAGREES
from sims.engine.run import arguments, columns, groups, run, table
from sims.phase_diagram import study
from tests.engine.toy import EXPERIMENTS as TOYS

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = {f"{topic}/{name}": e for topic in topics() for name, e in experiments(topic).items()}
ALL = {**{e.name: e for e in TOYS}, **REGISTERED}
# By default each topic's main experiment is run, and what the engine promises is tested with the toys and one of them.
MAIN = [f"{topic}/{name}" for topic in topics() for name in list(experiments(topic))[:1]]
THOROUGH = {name: [pytest.mark.thorough] for name in REGISTERED if name not in MAIN}
MOSTLY_TOYS = {name: [pytest.mark.thorough] for name in REGISTERED if name != "transfer/phase_diagram"}


def over(table, **marks):
    return pytest.mark.parametrize(
        "name", [pytest.param(n, id=n, marks=[pytest.mark.xdist_group(n), *marks.get(n, [])]) for n in table]
    )


def tiny(name, **wish):
    """The smoke preset with at most two values an axis (the first and the last) and two replicates."""
    experiment = ALL[name]
    job = configure(experiment, "smoke")
    ends = {axis: job.values[axis][[0, -1]] for axis in experiment.axes if len(job.values[axis]) > 1}
    return configure(experiment, "smoke", {**ends, "replicates": 2, **wish})


@functools.cache
def smoke(name):
    """One smoke run of each experiment, shared by the tests that only look at it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return run(configure(ALL[name], "smoke"), Path(folder), progress=False)[0]


def numbers(dataset):
    return {name: v.values.tobytes() for name, v in dataset.data_vars.items()}


def compilations(action, name):
    """How many times `action` compiled the jitted simulation of that name."""
    seen = []

    def listen(event, duration, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(facts.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    action()
    jax.monitoring.unregister_event_duration_listener(listen)
    return sum(each in (f"jit({name})", name) for each in seen)


@over(REGISTERED, **THOROUGH)
def test_smoke_run_has_dims_labels_units_and_statuses(name):
    experiment, dataset = ALL[name], smoke(name)
    for key, output in experiment.outputs.items():
        assert dataset[key].dims == (*experiment.axes, "replicate", *output.dims)
        assert f"{key}_theory" in dataset, f"no theory for {key}"
        assert dataset[key].attrs["label"] == output.label != ""
        assert dataset[key].attrs["units"]
        assert np.isfinite(dataset[key]).any()
    for key in experiment.parameters:
        assert dataset[key].attrs["label"]
        assert dataset[key].attrs["units"]
    assert set(np.unique(dataset["status"])) <= set(STATUS)
    assert (dataset["status"] == 0).mean() > 0.5


@over(REGISTERED)
def test_presets_claims_and_sources_are_complete(name):
    experiment = ALL[name]
    assert {"smoke", "laptop", "paper"} <= set(experiment.presets)
    assert configure(experiment, "laptop").replicates >= 20
    assert all(source.lstrip().startswith("@") for source in experiment.sources)
    assert experiment.claims
    assert all(claim.twins or isinstance(claim, Order) for claim in experiment.claims)


@over(REGISTERED, **THOROUGH)
def test_no_claim_disagrees_at_smoke_size_and_exact_ones_reject_their_twins(name):
    for judgement, claim in zip(
        assess(smoke(name), ALL[name]).judgements,
        [c for c in ALL[name].claims if not isinstance(c, Order)],
        strict=True,
    ):
        assert judgement.outcome != DISAGREES, f"{judgement.sentence}: {judgement.reason}"
        if isinstance(claim, Pathwise | Bound) and judgement.cells:
            assert all(judgement.twins.values()), judgement.twins


@pytest.mark.slow
@over(REGISTERED)
def test_every_claim_agrees_and_every_twin_is_rejected_at_laptop_size(name, tmp_path):
    _, verdict, _ = study(configure(ALL[name], "laptop"), tmp_path, ladders=True, progress=False)
    # A formula must agree; an order that theory only suggests may be left open, and must not disagree.
    assert {j.outcome for j in verdict.judgements if j.kind != "rank"} <= {"agrees"}, verdict.table()
    assert not verdict.disagrees, verdict.table()


@over(ALL, **MOSTLY_TOYS)
def test_compiles_once_per_size_and_never_again(name, tmp_path):
    if not ALL[name].batched:
        pytest.skip("a host loop compiles what it likes")
    jax.clear_caches()
    job, simulate = tiny(name), ALL[name].simulate.__name__
    assert compilations(lambda: run(job, tmp_path / "first", progress=False), simulate) == len(groups(job))
    assert compilations(lambda: run(job, tmp_path / "second", progress=False), simulate) == 0


@over(ALL, **MOSTLY_TOYS)
def test_a_cell_does_not_depend_on_its_block(name, tmp_path):
    job = tiny(name)
    whole, _ = run(job, tmp_path / "whole", progress=False)
    for block in (2, 7, 64):
        assert numbers(run(job, tmp_path / str(block), block=block, progress=False)[0]) == numbers(whole)
    last = {axis: job.values[axis][-1:] for axis in ALL[name].axes}
    alone, _ = run(tiny(name, **last), tmp_path / "alone", progress=False)
    corner = whole.isel({axis: [-1] for axis in ALL[name].axes})
    for key in whole.data_vars:
        assert alone[key].values.tobytes() == corner[key].values.tobytes(), key


@over(ALL, **MOSTLY_TOYS)
def test_growing_a_run_equals_a_fresh_one_and_a_damaged_part_is_redone(name, tmp_path):
    job = tiny(name, replicates=3)
    small = tiny(name, replicates=2, **{axis: job.values[axis][:1] for axis in list(ALL[name].axes)[:1]})
    fresh, _ = run(job, tmp_path / "fresh", progress=False)
    _, first = run(small, tmp_path / "grown", progress=False)
    grown, second = run(job, tmp_path / "grown", progress=False)
    assert numbers(grown) == numbers(fresh)
    assert second.reused == first.computed > 0

    part = sorted((tmp_path / "grown").glob("parts/*/*.npz"))[0]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    mended, third = run(job, tmp_path / "grown", progress=False)
    assert (third.unreadable, third.computed > 0) == (1, True)
    assert numbers(mended) == numbers(fresh)


@over({name: e for name, e in ALL.items() if e.batched}, **THOROUGH)
def test_lowers_in_float32_for_every_platform(name):
    with jax.enable_x64(False):
        job = tiny(name)
        for rows, settings, sizes in by_sizes(job.experiment, columns(job), job.settings):
            block = table(job)[rows[:1]].repeat(2, axis=0)
            arrays = arguments(job, block)
            assert {a.dtype for a in arrays.values()} == {np.dtype("float32")}
            for platform in ("cpu", "cuda", "tpu"):
                lowered = export.export(compiled(job.experiment.simulate), platforms=[platform])(
                    jax.random.key(0), arrays, traced(settings), sizes
                )
                assert "f64" not in lowered.mlir_module()


SLOW_TO_KILL = {name: [pytest.mark.slow] for name in REGISTERED if name != "transfer/phase_diagram"}


SCRIPT = """
import sys
from pathlib import Path
from sims.engine.devices import configure_jax, prepare_environment
prepare_environment()
precision, devices = configure_jax()
from sims.engine import run as engine
from sims.engine.experiment import configure
from sims.phase_diagram import choose
engine.FLUSH_SECONDS = 0.1
job = configure(choose(sys.argv[1])[1], "smoke", {"replicates": 6})
dataset, summary = engine.run(job, Path(sys.argv[2]), devices=devices)
engine.write(dataset, Path(sys.argv[2]) / "dataset.nc")
print(summary.reused, summary.computed)
"""


@over(REGISTERED, **SLOW_TO_KILL)
def test_killed_in_the_middle_and_resumed_the_numbers_are_the_same_bits(name, tmp_path):
    def start(out):
        command = [sys.executable, "-c", SCRIPT, name, str(tmp_path / out)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    process = start("killed")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/parts/*/*.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait(20)
    whole = start("whole").communicate(timeout=240)[0].split()
    resumed = start("killed").communicate(timeout=240)[0].split()
    assert whole[0] == "0"
    assert int(resumed[0]) > 0
    assert int(resumed[0]) + int(resumed[1]) == int(whole[1])
    datasets = [xr.load_dataset(tmp_path / out / "dataset.nc", engine="h5netcdf") for out in ("killed", "whole")]
    assert numbers(datasets[0]) == numbers(datasets[1])
