"""How far SGD wanders: heavy ball with additive gradient noise over a power-law spectrum."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    BELOW_ONE,
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Mean,
    Output,
    Parameter,
    Setting,
    per_cell,
    whole,
)
from sims.sgd_limit.heavy_ball import heavy_ball, power_law
from sims.sgd_limit.setup import SOURCE
from theory.sgd_limit import (
    displacement_exponent,
    displacement_saturation,
    global_displacement,
    local_displacement,
    phase_space_covariance,
)

ABOVE_ONE = Domain("above 1", lambda x: x > 1)


class Sizes(NamedTuple):
    """What a compilation depends on."""

    d: int
    paths: int
    octaves: int


def sizes(settings) -> Sizes:
    return Sizes(*(settings[name] for name in Sizes._fields))


def lags(octaves: int):
    """1, 2, 4, ..., 2^octaves."""
    return 2.0 ** np.arange(octaves + 1)


def stationary(key, spectrum, cell, paths: int):
    """(position, step) of every path and mode, drawn from their joint stationary law."""
    law = phase_space_covariance(spectrum, cell["eta"], cell["beta"], cell["batch"], cell["weight_decay"])
    first, second = jax.random.normal(key, (2, paths, len(spectrum)))
    x = jnp.sqrt(law.position)[None, :] * first
    kept = law.motion - law.cross**2 / law.position
    return x, (law.cross / law.position)[None, :] * x + jnp.sqrt(kept)[None, :] * second


def one(key, cell, settings, sizes):
    k_start, k_noise = jax.random.split(key)
    spectrum = power_law(sizes.d, cell["alpha"])
    eta, beta, curvature = cell["eta"], cell["beta"], (spectrum + cell["weight_decay"])[None, :]
    spread = jnp.sqrt(spectrum / cell["batch"])[None, :]
    shape = sizes.paths, sizes.d

    def step(k, state):
        chains, squares = state
        noise = spread * jax.random.normal(jax.random.fold_in(k_noise, k), shape)

        def move(chain):
            x, w, moved = chain
            x, w = heavy_ball(x, w, curvature * x + noise, eta, beta)
            # Sums of steps keep the digits that differences of positions lose.
            return x, w, moved + w

        settled, fixed = (move(chain) for chain in chains)
        return (settled, fixed), squares + jnp.mean(jnp.sum(settled[1] ** 2, 1))

    def until(carry, lag):
        state, done = carry
        state = jax.lax.fori_loop(done, lag, step, state)
        return (state, lag), [jnp.mean(jnp.sum(chain[2] ** 2, 1)) for chain in state[0]]

    nowhere = jnp.zeros(shape)
    settled = (*stationary(k_start, spectrum, cell, sizes.paths), nowhere)
    fixed = (jnp.full(shape, settings["start"]), nowhere, nowhere)
    counts = jnp.asarray(lags(sizes.octaves), jnp.int32)
    carry = ((settled, fixed), jnp.zeros(())), jnp.int32(0)
    (((settled, _), squares), _), (wandered, left) = jax.lax.scan(until, carry, counts)
    return {
        "local": squares / 2.0**sizes.octaves,
        "spread": 2 * jnp.mean(jnp.sum(settled[0] ** 2, 1)),
        "displacement": wandered,
        "from_start": left,
        "exponent": displacement_exponent(lags(sizes.octaves), wandered),
    }


def law(cells, settings, sizes, time="discrete", plain=False):
    """Every output in discrete or continuous time, or of SGD without momentum at the rate eta / (1 - beta)."""
    spectrum = power_law(sizes.d, cells["alpha"])
    eta, beta, batch, decay = (cells[name] for name in ("eta", "beta", "batch", "weight_decay"))
    if plain:
        eta, beta = eta / (1 - beta), jnp.zeros_like(beta)
    optimizer = (eta, beta, batch, decay, 1.0)
    each = (spectrum[:, None, :], *(x[:, None] for x in optimizer[:-1]), 1.0)
    k = jnp.asarray(lags(sizes.octaves))[None, :]
    wandered = global_displacement(k, *each, time)
    start = jnp.broadcast_to(settings["start"], each[0].shape)
    return {
        "local": local_displacement(spectrum, *optimizer, time),
        "spread": displacement_saturation(spectrum, *optimizer, time),
        "displacement": wandered,
        "from_start": global_displacement(k, *each, time, start),
        "exponent": displacement_exponent(k[0], wandered),
    }


def predict(cells, settings, sizes):
    return law(cells, settings, sizes)


def ou(cells, settings, sizes):
    """The Langevin equation in continuous time."""
    return law(cells, settings, sizes, "ou")


def plain(cells, settings, sizes):
    """SGD without momentum at the learning rate eta / (1 - beta)."""
    return law(cells, settings, sizes, plain=True)


def uncorrelated(cells, settings, sizes):
    """A random walk of the steps: k times the local displacement."""
    walk = predict(cells, settings, sizes)["local"][:, None] * jnp.asarray(lags(sizes.octaves))[None, :]
    return {"displacement": walk, "exponent": jnp.ones_like(walk[:, 1:])}


def without_momentum(cells, settings, sizes):
    """The spread of SGD without momentum at the same learning rate."""
    return predict({**cells, "beta": jnp.zeros_like(cells["beta"])}, settings, sizes)


def stationary_start(cells, settings, sizes):
    return {"from_start": predict(cells, settings, sizes)["displacement"]}


def power_law_everywhere(cells, settings, sizes):
    shape = (len(cells["alpha"]), sizes.octaves)
    return {"exponent": jnp.broadcast_to(1 / cells["alpha"][:, None], shape)}


FORMS = {
    "continuous time": ou,
    "SGD at eta / (1 - beta)": plain,
    "no momentum": without_momentum,
    "uncorrelated steps": uncorrelated,
    "a stationary start": stationary_start,
    "1 / alpha at every lag": power_law_everywhere,
}


def twins(output, *names):
    """Wrong laws of one output."""
    return {name: lambda *a, form=FORMS[name]: form(*a)[output] for name in names}


LAGS = {"lag": lambda settings: lags(settings["octaves"])}
OCTAVES = {"lag_between": lambda settings: lags(settings["octaves"])[1:] / 2**0.5}

displacement = Experiment(
    name="displacement",
    title="Displacements of SGD and their exponents",
    sources=(SOURCE,),
    axes={
        "alpha": Parameter([1.5, 2.5], r"exponent of the spectrum $\alpha$", domain=ABOVE_ONE),
        "beta": Parameter([0.0, 0.9, 0.98], r"momentum $\beta$", domain=BELOW_ONE),
        "eta": Parameter([1e-6, 0.01, 0.3], r"learning rate $\eta$", scale="log", domain=POSITIVE),
        "batch": Parameter([4, 256], r"batch $S$", scale="log", domain=whole(1)),
    },
    fixed={"weight_decay": Parameter(0.0, r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "d": Setting(64, "modes of curvature l^-alpha", domain=whole(1)),
        "paths": Setting(32, "paths averaged in a replicate", domain=whole(1)),
        "octaves": Setting(11, "the longest lag is 2 to this power", domain=whole(1)),
        "start": Setting(0.3, "distance of every mode from the minimum at a fixed start", domain=NONNEGATIVE),
    },
    sizes=sizes,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "local": Output(r"displacement in one step $E|\delta|^2$"),
        "spread": Output(r"twice the spread after the last step $2\,\mathrm{tr}\,\mathrm{Cov}\,\theta$"),
        "displacement": Output(r"displacement $E|\Delta_k|^2$, stationary start", dims=LAGS),
        "from_start": Output(r"displacement $E|\Delta_k|^2$, fixed start", dims=LAGS),
        "exponent": Output(r"exponent $c(k)$", dims=OCTAVES),
    },
    claims=(
        Mean(
            "local", "one step moves by the exact discrete formula",
            twins=twins("local", "continuous time", "SGD at eta / (1 - beta)"),
        ),
        Mean(
            "spread", "the chain stays in the stationary law that it was started from",
            twins=twins("spread", "no momentum"),
        ),
        Mean(
            "displacement", "many steps move by 2 Var x (1 - r(k)) a mode",
            twins=twins("displacement", "continuous time", "uncorrelated steps", "no momentum"),
        ),
        Mean(
            "from_start", "from a checkpoint the drift comes on top",
            twins=twins("from_start", "continuous time", "a stationary start"),
        ),
        Mean(
            "exponent", "the local exponent passes from 2 or 1 to 0",
            twins=twins("exponent", "uncorrelated steps", "1 / alpha at every lag"),
        ),
    ),
    presets={
        "smoke": {
            "alpha": [1.5, 2.5], "beta": [0.9], "eta": [0.3], "batch": [4], "d": 16, "paths": 8, "octaves": 6,
            "replicates": 4,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "alpha": [1.2, 1.5, 2.0, 3.0], "beta": [0.0, 0.8, 0.9, 0.95, 0.99, 0.999], "eta": [0.001, 0.01, 0.1, 1.0],
            "batch": [32, 256, 1024], "d": 10_000, "paths": 32, "octaves": 16, "replicates": 64,
        },
    },
    block=64,
)  # fmt: skip
