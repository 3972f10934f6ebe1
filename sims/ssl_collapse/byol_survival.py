"""Which modes of BYOL and SimSiam survive: maps over weight decay and start, and over starts off the parabola."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import ANY, POSITIVE, Experiment, Output, Parameter, Phase, Setting, in_columns
from sims.ssl_collapse.byol import EMA, SETTINGS, SPANS, in_rows, sizes, trained, with_and_without
from sims.ssl_collapse.byol_training import MODES, modes
from sims.ssl_collapse.setup import SOURCE, TIAN
from theory.ssl_collapse import (
    byol_critical_decay,
    byol_critical_start,
    byol_fixed_points,
    byol_survives,
    byol_trajectory,
)

STEPS = 1500  # of the mode equation


def living(decay):
    """p+ of every mode, or the p at which it vanished."""
    a, c = (x[None, :] for x in modes())
    stable = byol_fixed_points(a, c, decay).stable
    return jnp.where(jnp.isnan(stable), a / (2 * (a + c)), stable)


def margin(p, decay):
    """p over the living one, less a half: positive for survivors."""
    return p / living(decay) - 0.5


def decided(fate, p, w, decay, ema, settings):
    """Where the mode equation has decided by half of the time, the start 10 % larger or smaller too."""
    a, c = (x[None, :] for x in modes())
    same = jnp.ones_like(fate)
    for factor in (1 - settings["band"], 1.0, 1 + settings["band"]):
        half = jnp.stack([settings["time"] / 2])
        size = jnp.where(p > 0, factor, 2 - factor)
        end = byol_trajectory(
            half, size * p, (factor * w) ** 2, a=a, c=c, weight_decay=decay, ema_rate=ema, steps=STEPS
        ).p[0]
        same &= (margin(end, decay) > 0) == fate
    return same


def sides(alive):
    """The margin of survivors and of the others."""
    return jnp.where(alive, 0.5, -0.5)


def simulate_survival(key, cells, settings, sizes):
    cells = in_columns(cells)
    decay, at, ema = with_and_without(cells)
    found = jnp.split(margin(trained(key, decay, at, at, ema, settings, sizes)[0], decay[:, None]), 2)
    return dict(zip(("survival", "survival_ema"), found, strict=True))


def predict_survival(cells, settings, sizes):
    a, c = (x[None, :] for x in modes())
    decay, at, beta = in_rows(cells, "weight_decay", "start", "ema_rate")
    fate = byol_survives(at, a, c, decay)
    return {
        name: jnp.where(decided(fate, at, at, decay, ema, settings), sides(fate), jnp.nan)
        for name, ema in (("survival", None), ("survival_ema", beta))
    }


def boundary(a=1.0, c=1.0, decay=1.0, tau=1.0):
    """The map with variances, decay and ratio of the target changed by these factors."""

    def formula(cells, settings, sizes):
        eta, at = in_rows(cells, "weight_decay", "start")
        here = modes()
        points = byol_fixed_points((a * here[0])[None, :], (c * here[1])[None, :], decay * eta, tau)
        return sides(at > points.saddle)

    return formula


def in_rho(cells, settings, sizes):
    """With rho for a rho."""
    return boundary(1 / modes()[0], 1 / modes()[0])(cells, settings, sizes)


def without_a_basin(cells, settings, sizes):
    """Below the critical decay a mode survives from any start."""
    a, c = (x[None, :] for x in modes())
    return sides(in_rows(cells, "weight_decay")[0] < byol_critical_decay(a, c))


def contrastive(cells, settings, sizes):
    """The spectral contrastive loss, with the same decay."""
    return sides(in_rows(cells, "weight_decay")[0] < 4 * modes()[0][None, :])


TWINS = {
    "rho for a rho": in_rho,
    "decay without its half": boundary(decay=2.0),
    "no basin": without_a_basin,
    "contrastive": contrastive,
    "a lagging target": boundary(tau=0.8),
}
BAND = {"band": Setting(0.1, "relative distance from the boundary that is left out", domain=POSITIVE)}
START = Parameter(np.linspace(0.05, 0.6, 12), r"start $p(0) = w(0)$", domain=POSITIVE)

byol_survival = Experiment(
    name="byol_survival",
    title="Which modes of BYOL and SimSiam survive, over weight decay and start",
    sources=(TIAN, SOURCE),
    axes={
        "weight_decay": Parameter(np.linspace(0.02, 0.295, 12), r"weight decay $\eta$", domain=POSITIVE),
        "start": START,
    },
    fixed={"ema_rate": EMA},
    settings=SETTINGS | BAND,
    sizes=sizes,
    simulate=simulate_survival,
    predict=predict_survival,
    outputs={
        "survival": Output(r"$p/p_+ - 1/2$, SimSiam", dims=MODES),
        "survival_ema": Output(r"$p/p_+ - 1/2$, BYOL", dims=MODES),
    },
    claims=(
        Phase("survival", "SimSiam's modes survive below their critical decay, from p > p-", share=1.0, twins=TWINS),
        Phase("survival_ema", "a moving average moves no boundary: BYOL's survive there too", share=1.0, twins=TWINS),
    ),
    presets={
        "smoke": {
            "weight_decay": [0.02, 0.045, 0.12, 0.295], "start": [0.05, 0.2, 0.6], "rate": 0.05, "time": 80.0,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "weight_decay": np.linspace(0.01, 0.3, 59), "start": np.linspace(0.02, 0.6, 59), "rate": 0.01,
            "time": 240.0, "batch": 512, "replicates": 20,
        },
    },
    block=4096,
)  # fmt: skip


def simulate_basin(key, cells, settings, sizes):
    cells = in_columns(cells)
    at, w, decay = (cells[name] for name in ("start", "encoder", "weight_decay"))
    end, (p, w2) = trained(key, decay, at, w, jnp.full_like(at, jnp.inf), settings, sizes)
    return {"survival": margin(end, decay[:, None]), "p": p, "w2": w2}


def predict_basin(cells, settings, sizes):
    a, c = (x[None, :] for x in modes())
    at, w, decay = in_rows(cells, "start", "encoder", "weight_decay")
    fate = at > byol_critical_start(w**2 - at**2, a, c, decay)
    ends = settings["time"] / SPANS * jnp.arange(1, SPANS + 1).astype(at.dtype)
    path = byol_trajectory(ends, at, w**2, a=a, c=c, weight_decay=decay, steps=STEPS // SPANS)
    return {
        "survival": jnp.where(decided(fate, at, w, decay, None, settings), sides(fate), jnp.nan),
        "p": jnp.moveaxis(path.p, 0, 1),
        "w2": jnp.moveaxis(path.w2, 0, 1),
    }


def of_the_predictor(cells, settings, sizes):
    """p > p-, whatever the encoder."""
    a, c = (x[None, :] for x in modes())
    at, decay = in_rows(cells, "start", "weight_decay")
    return sides(byol_survives(at, a, c, decay))


def of_the_encoder(cells, settings, sizes):
    """w > w-, whatever the predictor."""
    a, c = (x[None, :] for x in modes())
    w, decay = in_rows(cells, "encoder", "weight_decay")
    return sides(byol_survives(w, a, c, decay))


def other_sign(cells, settings, sizes):
    """The distance from the parabola with the other sign."""
    a, c = (x[None, :] for x in modes())
    at, w, decay = in_rows(cells, "start", "encoder", "weight_decay")
    return sides(at > byol_critical_start(at**2 - w**2, a, c, decay))


CLOCK = {"time": lambda settings: np.arange(1, SPANS + 1) * settings["time"] / SPANS}

byol_basin = Experiment(
    name="byol_basin",
    title="Which starts of predictor and encoder survive",
    sources=(TIAN, SOURCE),
    axes={
        "start": Parameter(np.linspace(-0.2, 0.6, 9), r"predictor at the start $p(0)$", domain=ANY),
        "encoder": Parameter(
            np.geomspace(0.01, 1.0, 9), r"encoder at the start $w(0)$", scale="log", domain=POSITIVE
        ),
    },
    fixed={"weight_decay": Parameter(0.045, r"weight decay $\eta$", domain=POSITIVE)},
    settings=SETTINGS | BAND,
    sizes=sizes,
    simulate=simulate_basin,
    predict=predict_basin,
    outputs={
        "survival": Output(r"$p/p_+ - 1/2$", dims=MODES),
        "p": Output("predictor eigenvalue $p$", dims=CLOCK | MODES),
        "w2": Output("encoder strength $w^2$", dims=CLOCK | MODES),
    },
    claims=(
        Phase(
            "survival", "off the parabola modes survive from above the saddle's stable manifold", share=1.0,
            twins={
                "the predictor alone decides": of_the_predictor,
                "the encoder alone decides": of_the_encoder,
                "the other sign of the invariant": other_sign,
            },
        ),
    ),
    presets={
        "smoke": {
            "start": [-0.2, 0.0, 0.2, 0.6], "encoder": [0.01, 0.1, 1.0], "rate": 0.05, "time": 80.0, "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "start": np.linspace(-0.4, 0.8, 49), "encoder": np.geomspace(0.005, 1.0, 49), "rate": 0.01, "time": 240.0,
            "batch": 512, "replicates": 20,
        },
    },
    block=4096,
)  # fmt: skip
