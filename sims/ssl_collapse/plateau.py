"""Training that first holds the wrong mode: more useful modes than dimensions, and orders of b and beta that differ.

A mode of small b and large beta belongs into the encoder, but one of larger b is there before it. The encoder stands
on a saddle, until what little it has of the missing mode has grown.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Domain,
    Experiment,
    Order,
    Output,
    Parameter,
    Pathwise,
    Setting,
    in_columns,
    per_cell,
)
from sims.ssl_collapse.population import orthogonal, spectral, squares, with_spectrum
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import final_ranking, plateau_escape_rate

M = 2
A = (1.2, 0.8, None, 0.2)
HELD, OUT = 1, 2  # the mode that has to go, and the one that takes its place
RHO = (0.8, 0.4, None, 0.3)
MOMENTS = 200


def modes(a_out, rho_out):
    """Variances of clean inputs and of views, each of shape (d,)."""
    a, rho = (
        jnp.stack([free if value is None else jnp.full_like(free, value) for value in values])
        for free, values in ((a_out, A), (rho_out, RHO))
    )
    return a, a / rho


def one(key, cell, settings, sizes):
    rate, level = settings["rate"], settings["level"]
    a, sigma = modes(cell["a_out"], cell["rho_out"])
    keys = jax.random.split(key, 2)
    V = orthogonal(keys[0], len(A), len(A))
    A0, Sigma = with_spectrum(V, a), with_spectrum(V, sigma)
    W = settings["start"] * jax.random.normal(keys[1], (M, len(A)))

    def step(carry, _):
        W, seen, read, held = carry
        after = W - rate * jax.grad(spectral)(W, A0, Sigma, 0.0)
        y, y_after = squares(W, V), squares(after, V)
        now = ~seen & (y_after[OUT] >= level**2)
        read = jnp.where(now, jnp.log(y_after[OUT] / y[OUT]) / (2 * rate), read)
        held = jnp.where(now, sigma * y_after, held)
        return (after, seen | now, read, held), sigma * y_after

    start = (W, jnp.array(False), jnp.zeros(()), jnp.zeros_like(sigma))
    (W, seen, read, held), path = jax.lax.scan(step, start, length=sizes)
    return {
        "escape_rate": read,
        "held": held,
        "end": sigma * squares(W, V),
        "path": path[moments(sizes) - 1],
        "status": jnp.where(seen, 0, 1),
    }


def moments(steps: int):
    """Steps after which the strengths are kept."""
    return np.unique(np.round(np.linspace(1, steps, min(MOMENTS, steps))).astype(int))


def at_minimum(kept, b, sigma):
    """Strengths where an encoder of the spectral loss has these modes, beta / 2."""
    return jnp.where(jnp.isin(jnp.arange(b.size), kept), b / sigma / 2, 0.0)


def predict(cells, settings, sizes):
    def cell(a_out, rho_out):
        a, sigma = modes(a_out, rho_out)
        b = 2 * a
        held, end = (at_minimum(kept[:M], b, sigma) for kept in (jnp.argsort(-b), final_ranking(b, sigma)))
        rate = plateau_escape_rate(b[HELD], sigma[HELD], b[OUT], sigma[OUT])
        return {
            "escape_rate": rate,
            "held": held,
            "end": end,
            # Between the two plateaus there is no closed form.
            "path": jnp.full((len(moments(sizes)), len(A)), jnp.nan),
        }

    return jax.vmap(cell)(*columns(cells))


def columns(cells):
    columns = in_columns(cells)
    return columns["a_out"], columns["rho_out"]


def predicted(output):
    return lambda cells, settings, sizes: predict(cells, settings, sizes)[output]


def rate_of(formula):
    """The rate by another formula in the variances and the betas of both modes."""

    def twin(cells, settings, sizes):
        a, sigma = jax.vmap(modes)(*columns(cells))
        beta = 2 * a / sigma
        return formula(sigma[:, HELD], sigma[:, OUT], beta[:, HELD], beta[:, OUT])

    return twin


MODES = np.arange(1, len(A) + 1)

plateau = Experiment(
    name="plateau",
    title="A self-supervised encoder that holds the wrong mode, and how it leaves the saddle",
    sources=(SOURCE,),
    axes={
        "rho_out": Parameter(
            np.linspace(0.5, 0.75, 6), r"correlation $\rho$ of the mode that is missing",
            domain=Domain("between those of the modes that are held, 0.4 and 0.8", lambda x: (x > 0.4) & (x < 0.8)),
        )
    },
    fixed={
        "a_out": Parameter(
            0.4, "variance of its clean inputs", domain=Domain("above 0 and below 0.8", lambda x: (x > 0) & (x < 0.8))
        )
    },
    settings={
        "rate": Setting(0.02, "learning rate", domain=POSITIVE),
        "time": Setting(100.0, "length of the run, steps times learning rate", domain=POSITIVE),
        "start": Setting(1e-10, "typical weight at the start", domain=POSITIVE),
        "level": Setting(1e-3, "weight of the missing mode at which its growth is read", domain=POSITIVE),
    },
    sizes=lambda settings: int(np.ceil(settings["time"] / settings["rate"])),
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "escape_rate": Output(r"escape rate $d\ln|w_{\rm out}|/dt$"),
        "held": Output("strength on the plateau", dims={"mode": MODES}),
        "end": Output("strength at the end", dims={"mode": MODES}),
        "path": Output(
            "strength",
            dims={
                "time": lambda settings: moments(int(np.ceil(settings["time"] / settings["rate"]))) * settings["rate"],
                "mode": MODES,
            },
        ),
    },
    claims=(
        Order(
            "escape_rate", "the missing mode grows at the predicted rate, to first order in the step",
            setting="rate", values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=20, settings={"time": 60.0},
            axes={"rho_out": [0.5, 0.6, 0.7]}, floor=1e-6,
            twins={
                "Sigma left out": rate_of(lambda s_in, s_out, b_in, b_out: 2 * (b_out - b_in)),
                "Sigma of the mode that is held": rate_of(lambda s_in, s_out, b_in, b_out: 2 * s_in * (b_out - b_in)),
                "as if nothing were held": rate_of(lambda s_in, s_out, b_in, b_out: 2 * s_out * b_out),
                "the rate of the strength": rate_of(lambda s_in, s_out, b_in, b_out: 4 * s_out * (b_out - b_in)),
            },
        ),
        Pathwise(
            "held", "the plateau is the saddle of the modes with the largest b", tolerance=1e-4,
            twins={"the minimum": predicted("end")},
        ),
        Pathwise(
            "end", "the end is the minimum, the modes with the largest beta", tolerance=1e-4,
            twins={"the saddle of the largest b": predicted("held")},
        ),
    ),
    presets={
        "smoke": {"rho_out": [0.5, 0.7], "rate": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"rho_out": np.linspace(0.44, 0.78, 18), "rate": 0.005, "time": 400.0, "replicates": 100},
    },
)  # fmt: skip
