"""The saddles of the spectral loss: Hessians on real data, what stays there, and how fast descent leaves.

The views are white, so that the encoder is the whitened one and its Hessian has closed eigenvalues.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_descent, gradient_step
from sims.engine.experiment import (
    POSITIVE,
    Bound,
    Domain,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    per_cell,
    whole,
)
from sims.ssl_collapse import finite_data
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import effective_landscape, hessian_spectrum, stationary_gram

RHO = np.array([0.8, 0.65, 0.5, 0.15])  # variances of the clean modes, of white views
DECAY = 0.6
BETA = 2 * RHO - DECAY  # 1, 0.7, 0.4 and -0.3
M, D = 2, 4
SETS = [s for k in range(M + 1) for s in itertools.combinations(range(3), k) if s != (0, 1)]
ROWS = np.zeros((len(SETS), M, D))  # rows that are the active modes, then rows of zeros
for _k, _set in enumerate(SETS):
    ROWS[_k, range(len(_set)), _set] = 1
STARTS = np.array([0.3, 0.6])  # singular values from which descent starts on an invariant subspace
HELD = 12.0  # time for which descent is followed on an invariant subspace: rounding has not left it yet
MOST = 60.0  # time after which an escape is given up


class Sizes(NamedTuple):
    """What a compilation depends on."""

    inputs: int
    noises: int


def escape(loss, start, saddle, rate):
    """Rate at which the distance from the saddle grows, between two small distances."""
    eps = jnp.finfo(saddle.dtype).eps
    low, high = eps**0.375, eps**0.25

    def distance(W):
        return jnp.log(jnp.linalg.norm(W - saddle))

    def going(carry):
        k, _, _, now, _ = carry
        return (now < jnp.log(high)) & (k < MOST / rate)

    def step(carry):
        k, W, _, now, since = carry
        W = gradient_step(loss, W, rate)
        after = distance(W)
        crossing = k + (jnp.log(low) - now) / (after - now)
        return k + 1, W, now, after, jnp.where((now < jnp.log(low)) & (after >= jnp.log(low)), crossing, since)

    first = distance(start)
    zero = jnp.zeros_like(rate)
    k, _, before, now, since = jax.lax.while_loop(going, step, (zero, start, first, first, zero))
    until = k - 1 + (jnp.log(high) - before) / (now - before)
    return jnp.log(high / low) / ((until - since) * rate), now < jnp.log(high)


def one(key, cell, settings, sizes):
    k_modes, k_data, k_turns, k_away = jax.random.split(key, 4)
    basis = jnp.linalg.qr(jax.random.normal(k_modes, (D, D)))[0]
    A0 = (basis * RHO[None, :]) @ basis.T
    A0 = (A0 + A0.T) / 2
    C = jnp.eye(D) - A0
    views = finite_data.draw(k_data, sizes.inputs, sizes.noises, A0, C)

    def loss(W):
        return finite_data.spectral_loss(W, views, DECAY)

    rows = jnp.asarray(ROWS, basis.dtype)[cell["saddle"].astype(int)]
    landscape = effective_landscape(A0, C, "spectral", weight_decay=DECAY)
    gram, best = stationary_gram(*landscape, jnp.sum(rows, 0) > 0), stationary_gram(*landscape, np.arange(D) < M)
    # Encoders whose rows lie in the span of the active modes: one of the class, and any other.
    inside = rows @ basis.T
    turn, left, right = jnp.linalg.qr(jax.random.normal(k_turns, (3, M, M)))[0]
    saddle = turn @ (jnp.sqrt(jnp.diag(inside @ gram @ inside.T))[:, None] * inside)
    other = (left * jnp.asarray(STARTS, basis.dtype)[None, :]) @ right @ inside
    held = gradient_descent(loss, other, settings["learning_rate"], jnp.ceil(HELD / settings["learning_rate"]))

    away = jax.random.normal(k_away, (M, D))
    start = saddle + jnp.finfo(saddle.dtype).eps ** 0.75 * away / jnp.linalg.norm(away)
    rate, stayed = escape(loss, start, saddle, settings["learning_rate"])
    spectrum = jnp.linalg.eigvalsh(jax.hessian(loss)(saddle).reshape(M * D, M * D))
    slope = jax.grad(loss)
    return {
        "slope": jnp.linalg.norm(slope(saddle)),
        "slope_theory": jnp.zeros_like(rate),
        "slope_of_infonce": jnp.linalg.norm(slope(saddle * (4 / 3) ** 0.5)),
        "spectrum": spectrum,
        "held": held.T @ held,
        "held_theory": gram,
        "held_at_minimum": best,
        "held_of_infonce": gram * 4 / 3,
        "escape": rate,
        "status": jnp.where(stayed, 1, 0),
    }


def spectra(factor=1.0):
    """Hessian eigenvalues of every saddle. Shape (saddles, M D)."""
    return jnp.stack([hessian_spectrum(np.diag(factor * BETA), np.eye(D), chosen, M) for chosen in SETS])


def at_saddle(values):
    """The prediction in every cell: that of its saddle."""
    return lambda cells, settings, sizes: values()[cells["saddle"].astype(int)]


def rates():
    """The most negative eigenvalue, with its sign turned."""
    return -spectra()[:, 0]


def best_outside():
    """2 beta of the best mode outside, whatever is inside."""
    return jnp.array([2 * max(BETA[j] for j in range(3) if j not in chosen) for chosen in SETS])


def as_at_origin():
    return jnp.broadcast_to(jnp.sort(jnp.repeat(-2 * jnp.asarray(BETA), M)), (len(SETS), M * D))


def predict(cells, settings, sizes):
    return {
        "spectrum": at_saddle(spectra)(cells, settings, sizes),
        "escape": at_saddle(rates)(cells, settings, sizes),
    }


ONE_OF_THEM = Domain(f"a whole number from 0 to {len(SETS) - 1}", lambda x: (x % 1 == 0) & (x >= 0) & (x < len(SETS)))

saddles = Experiment(
    name="saddles",
    title="Saddles of the spectral loss: Hessians, and how descent leaves them",
    sources=(SOURCE,),
    axes={"saddle": Parameter(np.arange(len(SETS)), "saddle", domain=ONE_OF_THEM)},
    settings={
        "inputs": Setting(7, "inputs", domain=whole(D + 1)),
        "noises": Setting(6, "noises of every input", domain=whole(D + 1)),
        "learning_rate": Setting(0.02, "learning rate", domain=POSITIVE),
    },
    sizes=lambda settings: Sizes(settings["inputs"], settings["noises"]),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "slope": Output("norm of the gradient at the saddle"),
        "spectrum": Output("eigenvalues of the Hessian", dims={"eigenvalue": np.arange(M * D)}),
        "held": Output(r"$W^\top W$ after descent in the subspace", dims={"row": np.arange(D), "column": np.arange(D)}),
        "escape": Output("rate of escape"),
    },
    claims=(
        Bound(
            "slope", "every class is stationary for the loss of real data", upper=0.0, rounding=200,
            twins={"InfoNCE's 3/4 for the spectral loss": "slope_of_infonce"},
        ),
        Pathwise(
            "spectrum", "the Hessian has the closed spectrum", tolerance=1e-10, rounding=500,
            twins={"as at the origin": at_saddle(as_at_origin), "of B / 2": at_saddle(lambda: spectra(0.5))},
        ),
        Pathwise(
            "held", "descent that starts on an invariant subspace ends at its saddle", tolerance=1e-6, rounding=2000,
            twins={
                "at the global minimum": "held_at_minimum", "InfoNCE's 3/4 for the spectral loss": "held_of_infonce",
            },
        ),
        Order(
            "escape", "descent leaves a saddle at the most negative eigenvalue, to first order in the step",
            setting="learning_rate", values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=6, floor=1e-4,
            twins={
                "the mode inside forgotten": at_saddle(best_outside),
                "half the eigenvalue": at_saddle(lambda: rates() / 2),
            },
        ),
    ),
    presets={
        "smoke": {"learning_rate": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"learning_rate": 0.005, "replicates": 200},
    },
)  # fmt: skip
