"""The sweep: a job's (cell, replicate) pairs, those that the store lacks computed, all of them in one dataset."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

from sims.engine.devices import scatter
from sims.engine.experiment import STATUS, Job, Order, by_sizes, compiled, configure, evaluate, traced
from sims.engine.store import Store, identity, jaxpr_version, source_version

FLUSH_SECONDS = 2.0


@dataclass
class Summary:
    """What a run did, in numbers; `sentences` says it in words."""

    computed: int = 0
    reused: int = 0
    unreadable: int = 0
    foreign: int = 0

    def sentences(self) -> list[str]:
        out = [f"{self.computed} (cell, replicate) pairs computed, {self.reused} found in the store."]
        if self.unreadable:
            out.append(f"Damaged parts set aside and redone: {self.unreadable}.")
        if self.foreign:
            out.append(f"Parts of another seed, setting or code version, left alone: {self.foreign}.")
        return out


@dataclass(frozen=True)
class _Group:
    """The cells that share one set of static sizes, one compilation and one identity."""

    sizes: Hashable
    settings: Mapping[str, Any]
    rows: np.ndarray
    identity: str


def table(job: Job) -> np.ndarray:
    """Every cell of a job, one row each, one column per parameter: shape (cells, parameters)."""
    return np.array(list(itertools.product(*job.values.values())), float)


def columns(job: Job) -> dict[str, np.ndarray]:
    """Every cell of a job: {parameter: (cells,)}."""
    return dict(zip(job.values, table(job).T, strict=True))


def arguments(job: Job, rows: np.ndarray) -> dict[str, jax.Array]:
    """A block's parameters as the simulation gets them: one value per cell, shared ones as scalars."""
    return {
        name: jnp.asarray(rows[:, i] if job.experiment.role(name) == "cell" else rows[0, i], float)
        for i, name in enumerate(job.values)
    }


def groups(job: Job) -> list[_Group]:
    """The job's cells by the static sizes they need."""
    cells, out = table(job), []
    for rows, settings, sizes in by_sizes(job.experiment, columns(job), job.settings):
        if job.experiment.batched:
            block = cells[rows[:1]].repeat(2, axis=0)
            args = (jax.random.key(0), arguments(job, block), traced(settings))
            code = jaxpr_version(compiled(job.experiment.simulate).trace(*args, sizes).jaxpr)
        else:
            code = source_version(job.experiment.simulate) + repr(sizes)
        name = identity(code, job.settings, job.seed, job.precision)
        out.append(_Group(sizes, settings, rows, name))
    return out


def run(
    job: Job,
    folder: Path,
    *,
    devices: list | None = None,
    block: int | None = None,
    fresh: bool = False,
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
    command: str = "",
) -> tuple[xr.Dataset, Summary]:
    """The dataset of a job: what `folder` already holds is read, the rest is simulated.

    Args:
        job: What to run.
        folder: Where the experiment's parts are kept.
        devices: The JAX devices to work on; the default device if None.
        block: Cells per call; the experiment's own bound if None. It changes no number.
        fresh: Forget this job's stored parts first.
        share: (index, count): of several processes this one computes every count-th item; all see all parts.
        progress: Show a bar if the run takes longer than two seconds and this is a terminal.
        command: The command line, for the provenance.

    Returns: the dataset (axes, replicate, inner dims) with theory, status and provenance; and what was done.
    """
    experiment, store, summary = job.experiment, Store(folder), Summary()
    cells, parts = table(job), groups(job)
    if fresh:
        for group in parts:
            store.discard(group.identity)
    results: dict[str, np.ndarray] = {}
    have = np.zeros((len(cells), job.replicates), bool)

    def keep(rows, replicates, values):
        for name, value in values.items():
            if name not in results:
                dtype = np.int8 if name == "status" else np.asarray(value).dtype
                fill = -1 if name == "status" else np.nan
                results[name] = np.full((len(cells), job.replicates, *value.shape[1:]), fill, dtype)
            results[name][rows, replicates] = value
        have[rows, replicates] = True

    def read():
        row_of = {cell.tobytes(): i for i, cell in enumerate(cells)}
        for group in parts:
            for part in store.load(group.identity):
                rows = np.array([row_of.get(cell.tobytes(), -1) for cell in part.pop("cells")])
                replicates = part.pop("replicates")
                known = (rows >= 0) & (replicates < job.replicates)
                keep(rows[known], replicates[known], {name: v[known] for name, v in part.items()})

    read()
    summary.reused, summary.unreadable = int(have.sum()), store.unreadable
    summary.foreign = store.foreign({group.identity for group in parts})

    items = [item for group in parts for item in _items(job, group, cells, have, block or experiment.block)]
    items = items[share[0] :: share[1]]
    waiting: dict[str, list] = {}
    written = time.monotonic()

    def flush():
        for name, finished in waiting.items():
            store.save(name, {key: np.concatenate([f[key] for f in finished]) for key in finished[0]})
        waiting.clear()

    total = sum(len(rows) for _, _, rows, _ in items)
    quiet = None if progress else True
    with tqdm(total=total, unit="pair", disable=quiet, delay=2, smoothing=0.05, desc=experiment.name) as bar:
        try:
            for (group, replicate, rows, _), values in scatter(items, functools.partial(_work, job), devices or [None]):
                replicates = np.full(len(rows), replicate)
                keep(rows, replicates, values)
                waiting.setdefault(group.identity, []).append(
                    {"cells": cells[rows], "replicates": replicates, **values}
                )
                summary.computed += len(rows)
                bar.update(len(rows))
                if time.monotonic() - written > FLUSH_SECONDS:
                    flush()
                    written = time.monotonic()
        finally:
            flush()
    if share[1] > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices("all parts written")
        read()
    return _dataset(job, results, command), summary


def _items(job, group, cells, have, limit):
    """Work items (group, replicate, rows, padded size): blocks of missing cells that agree in what is shared."""
    shared = [i for i, name in enumerate(job.values) if job.experiment.role(name) == "shared"]
    if not job.experiment.batched:
        limit, shared = 1, []
    kinds, kind_of = np.unique(cells[group.rows][:, shared], axis=0, return_inverse=True)
    members = [group.rows[kind_of.ravel() == k] for k in range(len(kinds))]
    size = min(limit, max(len(rows) for rows in members))
    for replicate in range(job.replicates):
        for rows in members:
            missing = rows[~have[rows, replicate]]
            for start in range(0, len(missing), size):
                yield group, replicate, missing[start : start + size], size


def _work(job: Job, item) -> dict[str, np.ndarray]:
    """One replicate over one block, as numpy arrays; the padding is dropped here."""
    group, replicate, rows, size = item
    cells = table(job)[rows]
    key = jax.random.fold_in(jax.random.key(job.seed, impl="threefry2x32"), replicate)
    if job.experiment.batched:
        # A block of one takes another dot product in XLA, whose last bit differs: two cells at least.
        padded = np.resize(np.arange(len(rows)), max(size, 2))
        simulate = compiled(job.experiment.simulate)
        values = simulate(key, arguments(job, cells[padded]), traced(group.settings), group.sizes)
        values = {name: np.asarray(v)[: len(rows)] for name, v in values.items()}
    else:
        scalars = dict(zip(job.values, cells[0], strict=True))
        one = job.experiment.simulate(key, scalars, group.settings, group.sizes)
        values = {name: np.asarray(v)[None] for name, v in one.items()}
    values["status"] = np.asarray(values.get("status", np.zeros(len(rows))), np.int8)
    return values


def _dataset(job: Job, results: Mapping[str, np.ndarray], command: str) -> xr.Dataset:
    """Arrays over (cells, replicates) as one labelled dataset; parameters with one value become scalar coordinates."""
    experiment = job.experiment
    theory = evaluate(experiment, experiment.predict, columns(job), job.settings)
    results = _judge_status(dict(results), theory)
    grid = {name: v for name, v in job.values.items() if name in experiment.axes or len(v) > 1}
    shape, axes = tuple(len(v) for v in grid.values()), tuple(grid)

    coords: dict[str, Any] = {"replicate": np.arange(job.replicates)}
    for name, values in job.values.items():
        parameter = experiment.parameters[name]
        attrs = {"label": parameter.label, "units": parameter.unit, "scale": parameter.scale}
        coords[name] = ((name,), values, attrs) if name in grid else ((), values[0], attrs)
    variables: dict[str, Any] = {}
    for name, values in {**results, **{f"{k}_theory": v for k, v in theory.items()}}.items():
        output, attrs = _output_of(experiment, name), {}
        inner: tuple[str, ...] = ()
        if output is not None:
            attrs = {"label": output.label, "units": output.unit}
            inner = tuple(output.dims)
            for dim, points in output.dims.items():
                coords[dim] = np.asarray(points(job.settings) if callable(points) else points)
        per_draw = name in results
        dims = (*axes, *(("replicate",) if per_draw else ()), *inner)
        lead = (*shape, *((job.replicates,) if per_draw else ()))
        variables[name] = (dims, values.reshape(*lead, *values.shape[1 + per_draw :]), attrs)
    variables["status"][2].update(
        label="status", units="1", flag_values=list(STATUS), flag_meanings="; ".join(STATUS.values())
    )
    return xr.Dataset(variables, coords, _provenance(job, command))


def _output_of(experiment, name):
    """The declared output that an array belongs to: itself, its theory, or the output of the claim it is a twin of."""
    name = name.removesuffix("_theory")
    if name in experiment.outputs:
        return experiment.outputs[name]
    for claim in experiment.claims:
        if name in claim.twins.values():
            return experiment.outputs[claim.output]
    if name != "status":
        raise ValueError(f"`simulate` must return declared outputs, their theories and twins, but got {name}.")
    return None


def _judge_status(results, theory):
    """NaN where a cell failed; and a failure where a value is not finite but the theory is."""
    outputs = [name for name in results if name != "status"]
    status = results["status"]
    for name in outputs:
        inner = tuple(range(2, results[name].ndim))
        lost = ~np.isfinite(results[name])
        if name in theory:
            lost &= np.isfinite(theory[name])[:, None]
            status = np.where((status == 0) & lost.any(axis=inner), 2, status)
    for name in outputs:
        failed = (status > 0).reshape(status.shape + (1,) * (results[name].ndim - 2))
        results[name] = np.where(failed, np.nan, results[name])
    results["status"] = status.astype(np.int8)
    return results


def ladder(job: Job, claim: Order) -> list[Job]:
    """The small jobs of an order claim, one per rung."""
    fixed = {name: v for name, v in job.values.items() if name in job.experiment.fixed}
    rungs = []
    for value in claim.values:
        wish = {**job.settings, **fixed, **claim.axes, **claim.settings, claim.setting: value}
        base = replace(job.experiment, presets={"ladder": {}})
        rung = configure(
            base, "ladder", {**wish, "replicates": claim.replicates}, seed=job.seed, precision=job.precision
        )
        rungs.append(replace(rung, experiment=job.experiment, preset="ladder"))
    return rungs


def _provenance(job: Job, command: str) -> dict[str, Any]:
    packages = ("jax", "jaxlib", "numpy", "scipy", "xarray")
    where = Path(__file__).resolve().parents[2]
    commit = subprocess.run(
        ["git", "-C", str(where), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "title": job.experiment.title,
        "experiment": job.experiment.name,
        "sources": "\n".join(job.experiment.sources),
        "preset": job.preset,
        "seed": job.seed,
        "precision": job.precision,
        "settings": json.dumps(dict(job.settings)),
        "commit": commit or "unknown",
        "packages": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "backend": f"{jax.default_backend()} ({jax.devices()[0].device_kind})",
        "command": command,
    }


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        dataset.to_netcdf(temporary, engine="h5netcdf")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
