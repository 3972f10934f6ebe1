"""Positions and velocities of SGD around a minimum whose Hessian is not diagonal: stationary law, current, memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.ensemble import Sizes, early_steps, one, start_of, units
from sims.sgd_limit.heavy_ball import power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import autocorrelation, circulation, phase_space_covariance, transient


def given(cells, settings, sizes):
    """(spectrum, eta, beta, batch, weight decay), of shape (cells, modes), (cells, 1), ..."""
    spectrum = jax.vmap(lambda alpha: power_law(sizes.d, alpha))(cells["alpha"])
    eta, beta, decay = (cells[name][:, None] for name in ("eta", "beta", "weight_decay"))
    return spectrum, eta, beta, settings["batch"].astype(eta.dtype), decay


def scales(cells, settings):
    """Units of position and step."""
    unit = units(cells, settings)
    return jnp.sqrt(unit.position), cells["eta"] * jnp.sqrt(unit.motion)


def stationary(cells, settings, sizes, time="discrete"):
    """(position, cross, step) variances of the modes in these units."""
    found = phase_space_covariance(*given(cells, settings, sizes), time=time)
    x, w = (s[:, None] for s in scales(cells, settings))
    pace = 1.0 if time == "discrete" else cells["eta"][:, None]
    return found.position / x**2, found.cross * pace / (x * w), found.motion * pace**2 / w**2


def way_of(cells, settings, sizes, time="discrete", steps=None):
    """Mean and covariance on the way from the start, in these units."""
    steps = jnp.asarray(early_steps(sizes.early) if steps is None else steps, cells["eta"].dtype)[None, :, None]
    spectrum, eta, beta, batch, decay = given(cells, settings, sizes)
    start = jax.vmap(lambda cell: start_of(cell, settings, sizes))(cells)
    found = transient(
        steps, start[:, None], spectrum[:, None], eta[:, None], beta[:, None], batch, decay[:, None], time=time
    )
    x, w = scales(cells, settings)
    pace = jnp.ones_like(w) if time == "discrete" else cells["eta"]
    unit = jnp.stack([1 / x, pace / w], -1)[:, None, None]
    mean, spread = found.mean * unit, found.covariance * unit[..., :, None] * unit[..., None, :]
    return jnp.moveaxis(mean, 3, 2), jnp.moveaxis(spread, 2, 4)


def predict(cells, settings, sizes):
    x, _, w = stationary(cells, settings, sizes)
    spectrum, eta, beta, batch, decay = given(cells, settings, sizes)
    turned = circulation(eta, beta, spectrum + decay, spectrum / batch) / (scales(cells, settings)[1] ** 2)[:, None]
    mean, spread = way_of(cells, settings, sizes)
    run, _ = way_of(cells, settings, sizes, steps=np.arange(1, sizes.early + 1))
    diagonal = jnp.eye(sizes.d, dtype=x.dtype)[None]
    return {
        "position": x[:, None, :] * diagonal,
        "velocity": w[:, None, :] * diagonal,
        "midpoint": jnp.zeros_like(x),
        "circulation": turned,
        "memory": x[:, None, :] * memory(cells, settings, sizes),
        "mean": mean,
        "spread": spread,
        "run": run,
        "cloud": jnp.zeros((len(x), sizes.steps, 2, sizes.d), x.dtype),
    }


def memory(cells, settings, sizes, time="discrete"):
    spectrum, eta, beta, _, decay = given(cells, settings, sizes)
    lags = jnp.arange(sizes.early, dtype=eta.dtype)[None, :, None]
    return autocorrelation(lags, eta[:, None], beta[:, None], (spectrum + decay)[:, None], time)


def of_the_equation(output):
    """The same of the Langevin equation."""

    def formula(cells, settings, sizes):
        x, _, w = stationary(cells, settings, sizes, "ou")
        if output in ("mean", "spread"):
            return way_of(cells, settings, sizes, "ou")[output == "spread"]
        if output == "memory":
            return x[:, None, :] * memory(cells, settings, sizes, "ou")
        if output == "circulation":
            return -2 * w
        return {"position": x, "velocity": w}[output][:, None, :] * jnp.eye(sizes.d, dtype=x.dtype)[None]

    return formula


def thermal(output):
    """Positions as of a gas in the loss itself, velocities the same in all directions."""

    def formula(cells, settings, sizes):
        exact = predict(cells, settings, sizes)[output]
        spectrum = given(cells, settings, sizes)[0]
        return exact / (spectrum if output == "velocity" else spectrum / jnp.mean(spectrum, 1, keepdims=True))[:, None]

    return formula


def backward(cells, settings, sizes):
    """Covariance of the step with the position it led to, in place of the midpoint."""
    return stationary(cells, settings, sizes)[1]


def reversed_current(cells, settings, sizes):
    """The circulation of the optimizer's buffer, which points against the velocity."""
    return -predict(cells, settings, sizes)["circulation"]


def fits(values, settings):
    if settings["steps"] < settings["early"]:
        raise ValueError(f"`steps` must be at least `early`, {settings['early']}, but got {settings['steps']}.")


PLANE = {"component": np.arange(2)}
MODES = {"mode": lambda s: np.arange(1, s["d"] + 1)}
EARLY = {"at": lambda s: early_steps(s["early"])}
STEPS = {"step": lambda s: np.arange(1, s["early"] + 1)}

phase_space = Experiment(
    name="phase_space",
    title="Positions, velocities and their current around a minimum",
    sources=(SOURCE,),
    axes={
        "beta": Parameter([0.0, 0.6, 0.9], r"momentum $\beta$", domain=BELOW_ONE),
        "weight_decay": Parameter([0.0, 0.2], r"weight decay $\lambda$", domain=NONNEGATIVE),
    },
    fixed={
        "eta": Parameter(0.2, r"learning rate $\eta$", domain=POSITIVE),
        "alpha": Parameter(1.0, r"exponent of the spectrum $l^{-\alpha}$", domain=NONNEGATIVE),
    },
    settings={
        "d": Setting(3, "dimension", domain=whole(2)),
        "batch": Setting(4, "batch size, which scales the noise", domain=whole(1)),
        "paths": Setting(128, "chains in a replicate", domain=whole(2)),
        "early": Setting(60, "steps of the way, and lags of the memory", domain=whole(6)),
        "burn_in": Setting(300, "steps before the stationary law is measured", domain=whole(0)),
        "steps": Setting(200, "steps over which it is measured", domain=whole(2)),
    },
    sizes=lambda settings: Sizes(*(int(settings[name]) for name in Sizes._fields)),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    validate=fits,
    outputs={
        "position": Output("covariance of positions", dims=MODES | {"other": lambda s: np.arange(1, s["d"] + 1)}),
        "velocity": Output("covariance of steps", dims=MODES | {"other": lambda s: np.arange(1, s["d"] + 1)}),
        "midpoint": Output("covariance of midpoint and step", dims=MODES),
        "circulation": Output(r"circulation $\langle x_k w_{k+1} - x_{k+1} w_k\rangle$", dims=MODES),
        "memory": Output("autocovariance of positions", dims={"lag": lambda s: np.arange(s["early"])} | MODES),
        "mean": Output("mean from a fixed start", dims=EARLY | PLANE | MODES),
        "spread": Output("covariance from a fixed start", dims=EARLY | PLANE | {"with": np.arange(2)} | MODES),
        "run": Output("one run from a fixed start", dims=STEPS | PLANE | MODES),
        "cloud": Output("one stationary run", dims={"moment": lambda s: np.arange(s["steps"])} | PLANE | MODES),
    },
    claims=(
        Mean(
            "position", "positions spread the same in all directions but for the steps' size and the decay",
            twins={"of the Langevin equation": of_the_equation("position"), "as in the loss": thermal("position")},
        ),
        Mean(
            "velocity", "steps spread as the Hessian",
            twins={"of the Langevin equation": of_the_equation("velocity"), "isotropic": thermal("velocity")},
        ),
        Mean(
            "midpoint", "a step does not know its midpoint", twins={"but where it led to": backward},
        ),
        Mean(
            "circulation", "the current turns clockwise, by the same amount whatever the decay",
            twins={"of the buffer": reversed_current, "of the Langevin equation": of_the_equation("circulation")},
        ),
        Mean(
            "memory", "positions are forgotten as the roots' powers",
            twins={"of the Langevin equation": of_the_equation("memory")},
        ),
        Mean(
            "mean", "from a fixed start the mean follows the powers of the step",
            twins={"of the Langevin equation": of_the_equation("mean")},
        ),
        Mean(
            "spread", "and the covariance grows to the stationary one",
            twins={"of the Langevin equation": of_the_equation("spread")},
        ),
    ),
    presets={
        "smoke": {
            "beta": [0.0, 0.9], "weight_decay": [0.2], "paths": 32, "early": 12, "burn_in": 100, "steps": 40,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "beta": [0.0, 0.5, 0.9, 0.99], "weight_decay": [0.0, 0.01, 0.2], "d": 64, "eta": 0.1, "paths": 512,
            "early": 400, "burn_in": 20_000, "steps": 400, "replicates": 50,
        },
    },
)  # fmt: skip
