"""Fixed points of BYOL and SimSiam over the weight decay: matrices trained on minibatches."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    in_columns,
    whole,
)
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
)
from sims.ssl_collapse.setup import SOURCE, TIAN
from theory.ssl_collapse import byol_fixed_points

SPANS = 8  # the last of them is averaged


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    steps: int


def sizes(settings) -> Sizes:
    return Sizes(settings["batch"], max(round(settings["time"] / settings["rate"] / SPANS), 1))


def with_and_without(cells):
    """(decay, start, ema) of twice the cells: the target first the encoder itself, then its moving average."""
    decay, at, ema = cells["weight_decay"], cells["start"], cells["ema_rate"]
    return jnp.tile(decay, 2), jnp.tile(at, 2), jnp.concatenate([jnp.full_like(ema, jnp.inf), ema])


def trained(key, decay, p, w, ema, settings, shape: Sizes):
    """Predictor eigenvalues averaged over the last span, and (p, w^2) at the end of every span, from starts (p, w).

    Shapes (cells, d), and (cells, spans, d) twice.
    """
    k_basis, k_data = jax.random.split(key)
    Q = rotation(k_basis, D)
    p, w = (jnp.broadcast_to(x[None, :], (D, len(decay))) for x in (p, w))
    rates = Rates(settings["rate"], decay, jnp.ones_like(decay), ema)
    means, ends = descend(
        start(Q, p, w), minibatches(k_data, shape.batch, *modes()), lambda net, seen: step(net, seen, rates),
        SPANS, shape.steps, lambda net: (predictor_modes(net, Q), encoder_modes(net.W, Q) ** 2),
    )  # fmt: skip
    return means[0][-1].T, tuple(jnp.transpose(x, (2, 0, 1)) for x in ends)


def simulate(key, cells, settings, sizes):
    decay, at, ema = with_and_without(in_columns(cells))
    plain, averaged = jnp.split(trained(key, decay, at, at, ema, settings, sizes)[0], 2)
    return {"predictor": plain, "predictor_ema": averaged}


def in_rows(cells, *names):
    """Parameters with one row a cell and one column a mode."""
    return tuple(jnp.broadcast_to(v[:, None], (len(v), D)) for v in (in_columns(cells)[n] for n in names))


def settled(cells, settings):
    """Where training reaches a fixed point: 12 times its slow time, without a target network and with."""
    a, c = (x[None, :] for x in modes())
    eta, at, beta = in_rows(cells, "weight_decay", "start", "ema_rate")
    stable, saddle = byol_fixed_points(a, c, eta)
    periods = settings["time"] * (a + c) * stable * (stable - saddle)
    reached = at > saddle
    return reached & (periods > 12), reached & (periods > 12 * (1 + stable * a / beta))


def predict(cells, settings, sizes):
    stable = of_decay(cells, settings, sizes)
    return dict(zip(outputs, (jnp.where(where, stable, jnp.nan) for where in settled(cells, settings)), strict=True))


def of_decay(cells, settings, sizes, a=1.0, c=1.0, decay=1.0, tau=1.0):
    """p_+ with the clean and augmentation variances, the decay and the target's ratio changed by these factors."""
    (eta,) = in_rows(cells, "weight_decay")
    here = modes()
    return byol_fixed_points((a * here[0])[None, :], (c * here[1])[None, :], decay * eta, tau).stable


def in_rho(cells, settings, sizes):
    """With rho for a rho: the modes as if all clean variances were 1."""
    return of_decay(cells, settings, sizes, 1 / modes()[0], 1 / modes()[0])


def whole_decay(cells, settings, sizes):
    """Weight decay without its 1/2."""
    return of_decay(cells, settings, sizes, decay=2.0)


def lagging_target(cells, settings, sizes):
    """A target that lags behind at the fixed point."""
    return of_decay(cells, settings, sizes, tau=0.95)


def contrastive(cells, settings, sizes):
    """The spectral contrastive loss: singular values of an embedding with the same decay."""
    (eta,) = in_rows(cells, "weight_decay")
    a, c = (x[None, :] for x in modes())
    return jnp.sqrt(jnp.maximum(a - eta / 4, 0.0) / (a + c))


outputs = {
    "predictor": Output(r"predictor eigenvalue $p$, SimSiam", dims=MODES),
    "predictor_ema": Output(r"predictor eigenvalue $p$, BYOL", dims=MODES),
}
TWINS = {
    "rho for a rho": in_rho,
    "decay without its half": whole_decay,
    "contrastive": contrastive,
    "a lagging target": lagging_target,
}
SETTINGS = {
    "batch": Setting(128, "pairs in a minibatch", domain=whole(1)),
    "rate": Setting(0.02, "learning rate", domain=POSITIVE),
    "time": Setting(120.0, "length of training: steps times the learning rate", domain=POSITIVE),
}
EMA = Parameter(0.3, r"rate of the target network $\beta$", domain=POSITIVE)

byol = Experiment(
    name="byol",
    title="Fixed points of BYOL and SimSiam over weight decay",
    sources=(TIAN, SOURCE),
    axes={
        "weight_decay": Parameter(
            [0.02, 0.045, 0.08, 0.12, 0.19, 0.25], r"weight decay $\eta$", domain=NONNEGATIVE
        )
    },
    fixed={"start": Parameter(0.6, r"start $p(0) = w(0)$", domain=POSITIVE), "ema_rate": EMA},
    settings=SETTINGS,
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    outputs=outputs,
    claims=(
        Mean("predictor", "living modes of SimSiam rest at p+", twins=TWINS),
        Mean("predictor_ema", "a moving average moves no fixed point: BYOL rests at p+ too", twins=TWINS),
    ),
    presets={
        "smoke": {"weight_decay": [0.02, 0.08], "time": 60.0, "rate": 0.05, "replicates": 5},
        "laptop": {"replicates": 20},
        "paper": {
            "weight_decay": [round(0.01 * k, 2) for k in range(1, 28)], "batch": 1024, "rate": 0.005, "time": 240.0,
            "replicates": 50,
        },
    },
)  # fmt: skip
