"""The command lines as a person meets them: what they write, what they say, and what they refuse."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sims import phase_diagram, validate
from sims.phase_diagram import values_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--gamma", "0.5", "1.5", "--theta", "0.5", "1.2", "--sigma", "0", "1", "--d", "24", "--replicates", "6"]


def command(*words, module="sims.phase_diagram", timeout=240, **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def numbers(path):
    dataset = xr.load_dataset(path, engine="h5netcdf")
    return {name: v.values.tobytes() for name, v in dataset.data_vars.items()}


@pytest.mark.xdist_group("main job")
def test_the_main_job_writes_its_four_files_and_reuses_them(tmp_path):
    first = command("--preset", "smoke", *SMALL, "--out", tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "transfer" / "phase_diagram"
    assert {"dataset.nc", "figure.pdf", "figure.png", "verdict.json"} <= {p.name for p in folder.iterdir()}
    assert "AGREES" in first.stdout
    assert "Traceback" not in first.stderr
    dataset = xr.load_dataset(folder / "dataset.nc", engine="h5netcdf")
    for name in ("scratch_risk", "linear_transfer_transferability", "fine_tuning_transferability"):
        assert dataset[name].dims == ("gamma", "theta", "sigma", "replicate")
        assert dataset[f"{name}_theory"].dims == ("gamma", "theta", "sigma")
    assert dataset["status"].dims == ("gamma", "theta", "sigma", "replicate")
    assert dataset.attrs["command"].startswith("python -m sims.phase_diagram")
    verdict = json.loads((folder / "verdict.json").read_text())
    assert {j["output"] for j in verdict["judgements"]} >= {"scratch_risk", "endpoint_error"}

    before = numbers(folder / "dataset.nc")
    again = command("--preset", "smoke", *SMALL, "--no-figures", "--out", tmp_path)
    assert "0 (cell, replicate) pairs computed, 48 found in the store." in again.stdout
    assert numbers(folder / "dataset.nc") == before
    other = command("--preset", "smoke", *SMALL, "--no-figures", "--seed", "1", "--out", tmp_path)
    assert "Parts of another seed, setting or code version, left alone:" in other.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gamma", "-1", "2", "5"], "`gamma` must be positive, but got -1."),
        (["--gamma", "0.5", "3.0"], "`gamma` must be at most gamma_max = 2, but got 3."),
        (["--gamma", "a"], "`gamma` must be given as numbers, but got a."),
        (["--theta", "4"], "`theta` must be an angle between 0 and pi (radians), but got 4."),
        (["--sigma", "-0.1"], "`sigma` must be non-negative, but got -0.1."),
        (["--sigma", "nan"], "`sigma` must be non-negative, but got nan."),
        (["--d", "1"], "`d` must be a whole number, 2 or more, but got 1."),
        (["--d", "ten"], "Argument --d: invalid float value: 'ten'."),
        (["--depth", "2.5"], "`depth` must be a whole number, 2 or more, but got 2.5."),
        (["--protocol", "magic"], "`protocol` must be one of whitened, gd, reduced_gd, reduced_flow, but got magic."),
        (["--preset", "huge"], "`preset` must be one of smoke, laptop, paper, but got huge."),
        (["--replicates", "0"], "`replicates` must be a whole number, 1 or more, but got 0."),
        (["--seed", "-1"], "`seed` must be a whole number, 0 or more, but got -1."),
        (["--nonsense", "3"], "Unrecognized arguments: --nonsense."),
        (["--preset", "smoke", "nowhere"], "`topic` must be one of"),
        (["nowhere"], "`topic` must be one of"),
        (["transfer/nowhere"], "`experiment` must be one of"),
        (["--out", "/dev/null/results"], "`out` must be a folder that can be written, but got /dev/null/results"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_two(words, sentence, capsys, tmp_path):
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    try:
        status = phase_diagram.main([*words, *out])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith(sentence)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_wrong_argument_from_the_shell_shows_no_traceback():
    done = command("--gamma", "-1", "2", "5")
    assert (done.returncode, done.stderr) == (2, "`gamma` must be positive, but got -1.\n")


def test_list_and_cite(capsys):
    assert phase_diagram.main(["--list"]) == 0
    assert "transfer/phase_diagram: Transferability of deep linear networks." in capsys.readouterr().out
    assert phase_diagram.main(["--cite"]) == 0
    assert "tahir2025features" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "scale", "values"),
    [
        (["0.5", "2", "4"], "linear", [0.5, 1.0, 1.5, 2.0]),
        (["1", "100", "3"], "log", [1.0, 10.0, 100.0]),
        (["0.5", "1.0", "2.0"], "linear", [0.5, 1.0, 2.0]),
        (["3", "2", "4"], "linear", [3.0, 2.0, 4.0]),
        (["0.7"], "linear", [0.7]),
        (["1", "2"], "linear", [1.0, 2.0]),
    ],
)
def test_axis_values(words, scale, values):
    np.testing.assert_allclose(values_of("x", words, scale), values)


@pytest.mark.thorough
@pytest.mark.xdist_group("devices")
def test_device_count_changes_no_draw(tmp_path):
    results = []
    for count in (1, 2, 4):
        out = tmp_path / str(count)
        done = command("--preset", "smoke", *SMALL, "--no-figures", "--devices", count, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"on {count} cpu device(s)" in done.stdout
        results.append(xr.load_dataset(out / "transfer/phase_diagram/dataset.nc", engine="h5netcdf"))
    for other in results[1:]:
        xr.testing.assert_allclose(results[0].drop_attrs(), other.drop_attrs(), rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.xdist_group("devices")
def test_single_precision_agrees_too(tmp_path):
    done = command(
        "--preset", "smoke", *SMALL, "--no-figures", "--precision", "32", "--replicates", "20", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "DISAGREES" not in done.stdout
    dataset = xr.load_dataset(tmp_path / "transfer/phase_diagram/dataset.nc", engine="h5netcdf")
    assert dataset["scratch_risk"].dtype == np.float32
    assert dataset.attrs["precision"] == 32


@pytest.mark.thorough
@pytest.mark.xdist_group("processes")
def test_two_processes_share_the_work(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = (
        "import sys, jax; from sims.engine.devices import prepare_environment; prepare_environment();"
        "import functools; jax.distributed.initialize = functools.partial("
        f"jax.distributed.initialize, '127.0.0.1:{port}', 2, int(sys.argv[1]));"
        "from sims.phase_diagram import main; sys.exit(main(sys.argv[2:]))"
    )
    words = [
        "--preset",
        "smoke",
        *SMALL,
        "--distributed",
        "--no-figures",
        "--devices",
        "1",
        "--out",
        str(tmp_path / "two"),
    ]
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(i), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    alone = command("--preset", "smoke", *SMALL, "--no-figures", "--devices", "1", "--out", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    paths = [tmp_path / name / "transfer/phase_diagram/dataset.nc" for name in ("one", "two")]
    assert numbers(paths[0]) == numbers(paths[1])


@pytest.mark.xdist_group("main job")
def test_validate_writes_the_report_and_its_status_is_the_verdict(tmp_path, monkeypatch, capsys):
    assert (
        validate.main(["transfer/phase_diagram", "--preset", "smoke", "--replicates", "8", "--out", str(tmp_path)]) == 0
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report) == {"transfer/phase_diagram"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "figure.png" in page
    assert (tmp_path / "report" / "../transfer/phase_diagram/figure.png").exists()
    monkeypatch.setattr("sims.engine.agreement.Verdict.disagrees", property(lambda self: True))
    assert (
        validate.main(["transfer/phase_diagram", "--preset", "smoke", "--replicates", "8", "--out", str(tmp_path)]) == 1
    )
    assert validate.main(["nowhere", "--out", str(tmp_path)]) == 2
    assert "`topic` must be one of" in capsys.readouterr().err
