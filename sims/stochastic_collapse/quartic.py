"""The quartic double well under multiplicative noise: exponent, collapsed share over time, and stationary moments."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.stochastic_collapse.quartic_steps import euler, exact, trajectory, wiener
from sims.stochastic_collapse.setup import SOURCE
from theory.roots import safe_sqrt
from theory.stochastic_collapse import (
    collapse_fraction,
    elog_abs_normal,
    quartic_moment,
    quartic_of_steps,
)

QUARTERS = 4
DEEP = -80.0  # start, in ln |theta|, of the paths that stay where the equation is linear
LEAST_EXPECTED = 5  # paths on either side of the level, below which a share has no normal law


class Sizes(NamedTuple):
    """What a compilation depends on."""

    paths: int
    quarter: int
    linear: int
    samples: int
    moments: int


def sizes(settings):
    steps = (max(round(settings[name] / settings["dt"]), 1) for name in ("time", "linear_time"))
    total, linear = steps
    # Whole quarters, and as many moments of a sample path in each.
    moments = settings["moments"]
    quarter = max(-(-total // (QUARTERS * moments)) * moments, moments)
    return Sizes(settings["paths"], quarter, linear, settings["samples"], QUARTERS * moments)


def normal_start(key, settings, paths: int):
    return jnp.log(settings["start"] * jnp.abs(jax.random.normal(key, (paths,))))


def growth(key, cell, settings, sizes):
    """Mean growth of ln |theta| per unit time near 0."""
    mu, zeta, dt = cell["mu"], cell["zeta"], settings["dt"]

    def step(k, x):
        dW = jnp.sqrt(dt) * jax.random.normal(jax.random.fold_in(key, k), x.shape)
        return euler(x, mu, zeta, dt, dW)

    deep = jnp.full((sizes.paths,), DEEP)
    return jnp.mean(jax.lax.fori_loop(0, sizes.linear, step, deep) - deep) / (sizes.linear * dt)


def run(key, cell, settings, sizes):
    """Share of the paths below the level at the end of every quarter; moments over the last two quarters."""
    mu, zeta, dt = cell["mu"], cell["zeta"], settings["dt"]
    k_start, k_noise = jax.random.split(key)
    level = jnp.log(settings["eps"])

    def step(k, carry):
        x, first, second = carry
        xi = jax.random.normal(jax.random.fold_in(k_noise, k), x.shape)
        size = jnp.exp(x)
        known = by_noise(size, xi, mu, zeta, dt)
        return euler(x, mu, zeta, dt, jnp.sqrt(dt) * xi), first + size - known[0], second + size**2 - known[1]

    def quarter(x, k):
        zero = jnp.zeros_like(x)
        x, *sums = jax.lax.fori_loop(k * sizes.quarter, (k + 1) * sizes.quarter, step, (x, zero, zero))
        return x, (jnp.mean(jnp.where(x < level, 1.0, 0.0)), *(jnp.mean(s) / sizes.quarter for s in sums))

    x = normal_start(k_start, settings, sizes.paths)
    _, (share, first, second) = jax.lax.scan(quarter, x, jnp.arange(QUARTERS))
    return share, (first[-2] + first[-1]) / 2, (second[-2] + second[-1]) / 2


def by_noise(size, xi, mu, zeta, dt):
    r"""What of |theta| and theta^2 a step's own noise explains: of mean zero, and of a live law most of the spread.

    The generator L makes :math:`|\theta| + L(a\ln|\theta| + b|\theta|)` flat about the root mean square m, and
    :math:`\theta^2 + L\ln|\theta|` constant; the noises of these functions are what the averages then depend on.
    """
    square = mu - zeta**2 / 2
    live = jnp.where(square > 0, 1 / dt, 0.0)
    of_logarithm = zeta * jnp.sqrt(dt) * xi - zeta**2 / 2 * dt * (xi**2 - 1)
    of_distance = size * zeta * jnp.sqrt(dt) * xi
    m = safe_sqrt(square)
    b = -1 / (mu + 3 * m**2)
    return live * (-3 * m * b * of_logarithm + b * of_distance), live * of_logarithm


def sample_paths(key, cell, settings, sizes):
    """ln |theta| of a few paths at some moments: by Euler steps, and by the closed form on the same Wiener path."""
    mu, zeta, dt = cell["mu"], cell["zeta"], settings["dt"]
    k_start, k_noise = jax.random.split(key)
    steps = QUARTERS * sizes.quarter
    x = normal_start(k_start, settings, sizes.samples)
    dW, W = wiener(k_noise, dt, steps, sizes.samples)
    seen = slice(0, None, steps // sizes.moments)
    times = dt * jnp.arange(steps + 1, dtype=dt.dtype)
    return trajectory(euler, x, mu, zeta, dt, dW)[:, seen], exact(x, mu, zeta, times, W)[:, seen]


def one(key, cell, settings, sizes):
    k_growth, k_run, k_sample = jax.random.split(key, 3)
    share, first, second = run(k_run, cell, settings, sizes)
    path, closed = sample_paths(k_sample, cell, settings, sizes)
    return {
        "exponent": growth(k_growth, cell, settings, sizes),
        "collapsed": share,
        "mean_distance": first,
        "second_moment": second,
        "path": path,
        "path_theory": closed,
    }


def predict(cells, settings, sizes):
    mu, zeta, dt = cells["mu"], cells["zeta"], settings["dt"]
    share = shares(*quartic_of_steps(mu, zeta, dt), settings, sizes)
    few = sizes.paths * jnp.minimum(share, 1 - share) < LEAST_EXPECTED
    live = zeta**2 < 2 * mu
    quiet = jnp.where(live, zeta, jnp.sqrt(mu))
    first, second = (jnp.where(live, quartic_moment(q, mu, quiet), 0.0) for q in (1, 2))
    return {
        "exponent": elog_abs_normal(1 + mu * dt, zeta * jnp.sqrt(dt)) / dt,
        "collapsed": jnp.where(few, jnp.nan, share),
        "mean_distance": first,
        "second_moment": second,
    }


def shares(mu, zeta, settings, sizes):
    """Collapsed share of a quartic model at the end of every quarter."""
    dt = settings["dt"]
    times = dt * sizes.quarter * jnp.arange(1, QUARTERS + 1, dtype=dt.dtype)
    columns = jnp.broadcast_arrays(times[None, :], mu[:, None], zeta[:, None])
    return collapse_fraction(columns[0], settings["eps"], *columns[1:], settings["start"], start="normal")


def other_share(change):
    """The collapsed share after a change of (mu, zeta)."""

    def formula(cells, settings, sizes):
        mu, zeta = change(cells["mu"], cells["zeta"])
        return shares(*quartic_of_steps(mu, zeta, settings["dt"]), settings, sizes)

    return formula


def of_the_equation(cells, settings, sizes):
    """The collapsed share of the differential equation, whatever the step."""
    return shares(*jnp.broadcast_arrays(cells["mu"], cells["zeta"]), settings, sizes)


def threshold_at(factor):
    """An exponent whose sign changes at zeta^2 = factor mu."""
    return lambda cells, settings, sizes: cells["mu"] - cells["zeta"] ** 2 / factor


def without_noise(cells, settings, sizes):
    return cells["mu"] + 0 * cells["zeta"]


def of_the_mean_square(cells, settings, sizes):
    """Growth of the root mean square."""
    mu, zeta, dt = cells["mu"], cells["zeta"], settings["dt"]
    return jnp.log((1 + mu * dt) ** 2 + zeta**2 * dt) / (2 * dt)


def moment_of(q, change):
    """A stationary moment after a change of (mu, zeta)."""
    return lambda cells, settings, sizes: quartic_moment(q, *change(cells["mu"], cells["zeta"]))


def stratonovich(mu, zeta):
    """Without the drift that Ito's convention has in ln |theta|."""
    return mu + zeta**2 / 2, zeta


def half_the_noise(mu, zeta):
    """sqrt(D) dW for sqrt(2 D) dW."""
    return mu, zeta / 2**0.5


# Coarser steps feel the second order.
LADDER = {
    "setting": "dt", "values": (0.02, 0.01, 0.005, 0.0025), "order": 1, "replicates": 20,
    "axes": {"zeta": [0.6, 0.9, 1.2]},
    "settings": {"time": 100.0, "linear_time": 1.0, "paths": 64, "start": 1.0, "samples": 1, "moments": 10},
}  # fmt: skip

# Denser between the three thresholds sqrt(mu), sqrt(2 mu) and sqrt(4 mu) that are told apart.
ZETA = (0.25, 0.5, 0.75, 1.0, *np.linspace(1.25, 2.45, 13), 2.6, 2.8, 3.0)

quartic = Experiment(
    name="quartic",
    title="The quartic double well: multiplicative noise makes its saddle attractive",
    sources=(SOURCE,),
    axes={"zeta": Parameter(ZETA, r"noise $\zeta$", domain=POSITIVE)},
    fixed={"mu": Parameter(1.5, r"curvature of the saddle $\mu$", domain=POSITIVE)},
    settings={
        "dt": Setting(0.0025, "time step", domain=POSITIVE),
        "time": Setting(25.0, "time of a run", domain=POSITIVE),
        "linear_time": Setting(10.0, "time over which the exponent is measured", domain=POSITIVE),
        "eps": Setting(1e-6, "distance from 0 below which a path counts as collapsed", domain=POSITIVE),
        "start": Setting(2.0, "root mean square of theta at the start", domain=POSITIVE),
        "paths": Setting(128, "paths in a replicate", domain=whole(2)),
        "samples": Setting(4, "paths that are stored", domain=whole(1)),
        "moments": Setting(50, "moments of a stored path in each quarter", domain=whole(1)),
    },
    sizes=sizes,
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "exponent": Output(r"growth of $\ln|\theta|$ near 0", unit="1/t"),
        "collapsed": Output(
            r"collapsed share $P(|\theta_t| < \epsilon)$",
            dims={"time": lambda s: s["dt"] * sizes(s).quarter * np.arange(1, QUARTERS + 1)},
        ),
        "mean_distance": Output(r"$E|\theta|$"),
        "second_moment": Output(r"$E\theta^2$"),
        "path": Output(
            r"$\ln|\theta|$ of sample paths",
            dims={
                "sample": lambda s: np.arange(s["samples"]),
                "moment": lambda s: np.linspace(0, s["dt"] * QUARTERS * sizes(s).quarter, sizes(s).moments + 1),
            },
        ),
    },
    claims=(
        Mean(
            "exponent", "near 0 the logarithm grows by E ln|1 + mu dt + zeta sqrt(dt) xi| a step",
            twins={
                "sqrt(D) dW": threshold_at(4),
                "Stratonovich": without_noise,
                "the mean square's": of_the_mean_square,
            },
        ),
        Phase(
            "exponent", "the saddle attracts above zeta = sqrt(2 mu)",
            twins={"sqrt(mu)": threshold_at(1), "sqrt(4 mu)": threshold_at(4), "never": without_noise},
        ),
        Mean(
            "collapsed", "the collapsed share is that of the Fokker-Planck equation",
            twins={
                "sqrt(D) dW": other_share(half_the_noise),
                "Stratonovich": other_share(stratonovich),
                "the exponent of the differential equation": of_the_equation,
            },
        ),
        Order(
            "mean_distance", "the stationary E|theta| is approached to first order in the step",
            twins={
                "sqrt(D) dW": moment_of(1, half_the_noise),
                "Stratonovich": moment_of(1, stratonovich),
            }, **LADDER,
        ),
        Order(
            "second_moment", "the stationary E theta^2 is approached to first order in the step",
            twins={
                "sqrt(D) dW": moment_of(2, half_the_noise),
                "Stratonovich": moment_of(2, stratonovich),
            }, **LADDER,
        ),
    ),
    presets={
        "smoke": {
            "zeta": [0.25, 1.0, 1.5, 2.0, 2.5], "dt": 0.01, "time": 10.0, "linear_time": 2.0, "paths": 50,
            "moments": 20, "replicates": 6, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "zeta": np.linspace(0.03, 3, 100), "time": 200.0, "linear_time": 10.0, "eps": 1e-15, "paths": 1000,
            "moments": 100, "replicates": 20,
        },
    },
    block=16,
)  # fmt: skip
