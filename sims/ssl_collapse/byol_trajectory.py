"""BYOL at every time: matrices trained on all data, and on minibatches, beside the equation of a mode."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, in_columns, whole
from sims.ssl_collapse.byol_training import (
    MODES,
    D,
    Rates,
    descend,
    encoder_modes,
    minibatches,
    modes,
    predictor_modes,
    rotation,
    start,
    step,
    whole_data,
)
from sims.ssl_collapse.setup import SOURCE, TIAN
from theory.ssl_collapse import byol_invariant, byol_trajectory

MOMENTS = 5
STEPS = 200  # of the mode equation, between two moments


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    steps: int


def sizes(settings) -> Sizes:
    return Sizes(settings["batch"], max(round(settings["time"] / settings["rate"] / MOMENTS), 1))


def mode_states(net, Q):
    """p, w^2 and tau of every mode. Shapes (d, cells)."""
    w = encoder_modes(net.W, Q)
    return predictor_modes(net, Q), w**2, encoder_modes(net.target, Q) / w


def simulate(key, cells, settings, sizes):
    cells = in_columns(cells)
    k_basis, k_data, k_batches = jax.random.split(key, 3)
    Q = rotation(k_basis, D)
    p, w = (jnp.broadcast_to(cells[name][None, :], (D, len(cells["start"]))) for name in ("start", "encoder"))
    rates = Rates(settings["rate"], cells["weight_decay"], cells["predictor_rate"], cells["ema_rate"])
    net = start(Q, p, w)

    def trained(draw, rates):
        how = (lambda net, seen: step(net, seen, rates)), MOMENTS, sizes.steps, lambda net: mode_states(net, Q)
        _, ends = descend(net, draw, *how)
        # (times, d, cells) -> (cells, times, d)
        return [jnp.transpose(x, (2, 0, 1)) for x in ends]

    everything = whole_data(k_data, *modes())
    p, w2, tau = trained(lambda k: everything, rates)
    mini, _, _ = trained(minibatches(k_batches, sizes.batch, *modes()), rates)
    other, _, _ = trained(lambda k: everything, rates._replace(ema=jnp.full_like(rates.ema, jnp.inf)))

    def distance(path):
        return jnp.sqrt(jnp.mean((mini - path) ** 2, axis=2))

    deviation = distance(p)
    return {
        "p": p,
        "w2": w2,
        "tau": tau,
        "invariant": w2 - p**2 / cells["predictor_rate"][:, None, None],
        "deviation": deviation,
        # A twin is what, taken from the output, leaves the distance to its own trajectory.
        "deviation_simsiam": deviation - distance(other),
    }


def times(settings):
    return settings["time"] / MOMENTS * jnp.arange(1, MOMENTS + 1).astype(settings["time"].dtype)


def in_rows(cells):
    """Parameters, shape (cells, 1), and variances of the modes, shape (1, d)."""
    columns = {name: v[:, None] for name, v in in_columns(cells).items()}
    return columns, [x[None, :] for x in modes()]


def paths(cells, settings, target: bool = True, **change):
    """(p, w^2, tau) of shape (cells, times, d), with the parameters changed."""
    columns, (a, c) = in_rows({**cells, **change})
    end = byol_trajectory(
        times(settings), columns["start"], columns["encoder"] ** 2, a=a, c=c, weight_decay=columns["weight_decay"],
        predictor_rate=columns["predictor_rate"], ema_rate=columns["ema_rate"] if target else None, steps=STEPS,
    )  # fmt: skip
    return [jnp.moveaxis(x, 0, 1) for x in end]


def invariant(cells, settings, sign=1.0, decay=1.0):
    columns, _ = in_rows(cells)
    p, w, eta, alpha = (columns[name][:, :, None] for name in ("start", "encoder", "weight_decay", "predictor_rate"))
    at = byol_invariant(times(settings)[None, :, None], p, w**2, decay * eta, alpha)
    return jnp.broadcast_to(sign * at, (len(p), MOMENTS, D))


def predict(cells, settings, sizes):
    p, w2, tau = paths(cells, settings)
    nothing = jnp.zeros(p.shape[:2], p.dtype)
    return {"p": p, "w2": w2, "tau": tau, "invariant": invariant(cells, settings), "deviation": nothing}


def without_target(k):
    """The target is the encoder itself."""
    return lambda cells, settings, sizes: paths(cells, settings, target=False)[k]


def equal_rates(k):
    """A predictor that learns as fast as the encoder."""

    def formula(cells, settings, sizes):
        return paths(cells, settings, predictor_rate=jnp.ones_like(cells["predictor_rate"]))[k]

    return formula


def whole_decay(k):
    """Weight decay without its half."""
    return lambda cells, settings, sizes: paths(cells, settings, weight_decay=2 * cells["weight_decay"])[k]


def twins(k):
    names = ("no target network", "equal rates", "decay without its half")
    return dict(zip(names, (f(k) for f in (without_target, equal_rates, whole_decay)), strict=True))


def clock(settings):
    return np.asarray([settings["time"] / MOMENTS * k for k in range(1, MOMENTS + 1)])


INNER = {"time": clock} | MODES
# No noise hides the third order in the step, by which a straight line misses the limit.
LADDER = {
    "setting": "rate", "values": (0.08, 0.04, 0.02, 0.01), "order": 1, "replicates": 4, "settings": {"batch": 2},
    "floor": 1e-7,
}  # fmt: skip

trajectory = Experiment(
    name="byol_trajectory",
    title="BYOL in time: matrices beside the equation of a mode",
    sources=(TIAN, SOURCE),
    axes={
        "start": Parameter([0.1, 0.3, 0.6], r"predictor at the start $p(0)$", domain=POSITIVE),
        "encoder": Parameter([0.2, 0.5], r"encoder at the start $w(0)$", domain=POSITIVE),
    },
    fixed={
        "weight_decay": Parameter(0.045, r"weight decay $\eta$", domain=POSITIVE),
        "predictor_rate": Parameter(1.5, r"rate of the predictor $\alpha_p$", domain=POSITIVE),
        "ema_rate": Parameter(0.5, r"rate of the target network $\beta$", domain=POSITIVE),
    },
    settings={
        "rate": Setting(0.02, "learning rate", domain=POSITIVE),
        "time": Setting(20.0, "length of training: steps times the learning rate", domain=POSITIVE),
        "batch": Setting(128, "pairs in a minibatch", domain=whole(1)),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "p": Output("predictor eigenvalue $p$", dims=INNER),
        "w2": Output("encoder strength $w^2$", dims=INNER),
        "tau": Output(r"target over encoder $\tau$", dims=INNER),
        "invariant": Output(r"$w^2 - p^2/\alpha_p$", dims=INNER),
        "deviation": Output("distance of minibatch training from all data", dims={"time": clock}),
    },
    claims=(
        Order(
            "p", "the predictor follows the equation of a mode to first order in the step", **LADDER,
            twins=twins(0),
        ),
        Order(
            "w2", "so does the encoder", **LADDER,
            twins=twins(1),
        ),
        Order("tau", "so does the target network", **LADDER, twins={"no target network": without_target(2)}),
        Order(
            "invariant", "the distance from the parabola decays at twice the decay, to first order", **LADDER,
            twins={
                "at the decay": lambda cells, settings, sizes: invariant(cells, settings, decay=0.5),
                "the other sign": lambda cells, settings, sizes: invariant(cells, settings, sign=-1.0),
            },
        ),
        Order(
            "deviation", "minibatches deviate as one over the root of their size", setting="batch",
            values=(32.0, 64.0, 128.0, 256.0, 512.0), order=-0.5, replicates=40,
            axes={"start": [0.3], "encoder": [0.5]}, settings={"rate": 0.04},
            twins={"no target network": "deviation_simsiam"},
        ),
    ),
    presets={
        "smoke": {"start": [0.1, 0.6], "batch": 16, "rate": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "start": np.linspace(0.05, 0.8, 16), "encoder": np.linspace(0.1, 0.9, 9), "rate": 0.005, "batch": 1024,
            "replicates": 50,
        },
    },
)  # fmt: skip
