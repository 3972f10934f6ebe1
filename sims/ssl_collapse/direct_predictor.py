"""DirectPred on minibatches: strengths and survivors over its eps, and its path at every time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Experiment,
    Mean,
    Order,
    Output,
    Parameter,
    Phase,
    Setting,
    in_columns,
    whole,
)
from sims.ssl_collapse.byol import SPANS, in_rows
from sims.ssl_collapse.byol_training import (
    MODES,
    D,
    descend,
    loss,
    minibatches,
    modes,
    product,
    rotation,
    whole_data,
)
from sims.ssl_collapse.setup import SOURCE, TIAN
from theory.ssl_collapse import (
    byol_fixed_points,
    direct_predictor,
    direct_predictor_critical_start,
    direct_predictor_strengths,
    direct_predictor_trajectory,
)

MOMENTS = 5
PATH_TIME = 20.0
STEPS = 1500  # of the mode equation


class Sizes(NamedTuple):
    """What a compilation depends on."""

    batch: int
    steps: int
    path_steps: int


class Net(NamedTuple):
    """Encoder W and moving average F of the embeddings' covariance, each of shape (d, d, cells)."""

    W: jax.Array
    F: jax.Array


def sizes(settings) -> Sizes:
    rate = settings["rate"]
    return Sizes(
        settings["batch"], max(round(settings["time"] / rate / SPANS), 1), max(round(PATH_TIME / rate / MOMENTS), 1)
    )


def embedded(W, views):
    """W views W^T. Shape (d, d, cells)."""
    return product(product(W, views[:, :, None]), jnp.swapaxes(W, 0, 1))


def step(net: Net, seen, rate, decay, eps, share) -> Net:
    """The covariance moves by this share towards the minibatch's, sets the predictor, and the encoder learns."""
    W, F = net
    F = F + share * (embedded(W, seen.views) - F)
    P = jax.vmap(direct_predictor, (-1, 0), -1)(F, eps)
    gradient = jax.grad(lambda W: loss((W, P), jax.lax.stop_gradient(W), seen))(W)
    return Net(W - rate * (gradient + decay * W), F)


def trained(draw, W, cells, rate, spans, steps, share):
    """Roots of the embedding variances: (means over spans, values at their ends), shapes (spans, d, cells)."""
    a, c = modes()
    decay, eps = cells["weight_decay"][None, None, :], cells["eps"]
    begin = Net(W, embedded(W, jnp.diag(a + c)))

    def update(net, seen):
        return step(net, seen, rate, decay, eps, share)

    def roots(net):
        """Of the modes of the data: W may turn, its Gram matrix may not."""
        return jnp.sqrt((a + c)[:, None] * jnp.sum(net.W**2, axis=0))

    return descend(begin, draw, update, spans, steps, roots)


def at_start(Q, roots):
    """Encoder of these roots of embedding variances, shape (d, cells)."""
    a, c = modes()
    return Q[:, :, None] * (roots / jnp.sqrt(a + c)[:, None])[None]


def starts(cells):
    """Roots of the embedding variances at the start: the first mode at rest, the others equal. Shape (cells, d)."""
    eta, eps, at = in_rows(cells, "weight_decay", "eps", "start")
    a, c = (x[None, :] for x in modes())
    first = jnp.sqrt(direct_predictor_strengths(a, c, eta, eps))[:, :1]
    return jnp.concatenate([first, at[:, 1:]], axis=1)


def simulate(key, cells, settings, sizes):
    cells = in_columns(cells)
    k_basis, k_data, k_batches = jax.random.split(key, 3)
    Q, rate = rotation(k_basis, D), settings["rate"]
    means, _ = trained(
        minibatches(k_batches, sizes.batch, *modes()), at_start(Q, starts(cells).T), cells, rate,
        SPANS, sizes.steps, 1 / settings["memory"],
    )  # fmt: skip
    everything = whole_data(k_data, *modes())
    equal = jnp.broadcast_to(cells["start"][None, :], (D, len(cells["start"])))
    _, ends = trained(
        lambda k: everything, at_start(Q, equal), cells, rate, MOMENTS, sizes.path_steps, jnp.ones_like(rate)
    )
    root = means[-1].T
    return {"root": root, "survival": margin(root, cells), "path": jnp.transpose(ends, (2, 0, 1))}


def margin(root, cells):
    """The root over that of a living mode without eps, less a quarter: positive for survivors."""
    (eta,) = in_rows(cells, "weight_decay")
    a, c = (x[None, :] for x in modes())
    return root / byol_fixed_points(a, c, eta).stable - 0.25


def sides(alive):
    """The margin of survivors and of the others."""
    return jnp.where(alive, 0.75, -0.25)


def model(cells, decay=1.0, eps=1.0):
    """(a, c, eta, eps) of shape (cells, d), decay and eps changed by these factors."""
    eta, e = in_rows(cells, "weight_decay", "eps")
    return *(x[None, :] for x in modes()), decay * eta, eps * e


def alive(cells, decay=1.0, eps=1.0):
    """Whether a mode survives while the strongest is at rest."""
    here = model(cells, decay, eps)
    strongest = jnp.max(direct_predictor_strengths(*here), axis=1, keepdims=True)
    return starts(cells) > direct_predictor_critical_start(strongest, *here)


def half_way(cells, settings, factor=1.0):
    """Roots of the mode equation at half of the time, the start of the weak modes changed by this factor."""
    begin = starts(cells)
    begin = jnp.concatenate([begin[:, :1], factor * begin[:, 1:]], axis=1)
    half = jnp.stack([settings["time"] / 2])
    return jnp.sqrt(direct_predictor_trajectory(half, begin**2, *model(cells), steps=STEPS)[0])


def predict(cells, settings, sizes):
    cells = in_columns(cells)
    fate, rest = alive(cells), jnp.sqrt(direct_predictor_strengths(*model(cells)))
    known = jnp.ones_like(fate)
    for factor in (1 - settings["band"], 1.0, 1 + settings["band"]):
        known &= (margin(half_way(cells, settings, factor), cells) > 0) == fate
    settled = fate & (jnp.abs(half_way(cells, settings) - rest) < 1e-4)
    return {
        "root": jnp.where(settled, rest, jnp.nan),
        "survival": jnp.where(known, sides(fate), jnp.nan),
        "path": path(cells, settings, sizes),
    }


def path(cells, settings, sizes, decay=1.0, eps=1.0):
    cells = in_columns(cells)
    (at,) = in_rows(cells, "start")
    times = PATH_TIME / MOMENTS * jnp.arange(1, MOMENTS + 1).astype(at.dtype)
    return jnp.moveaxis(jnp.sqrt(direct_predictor_trajectory(times, at**2, *model(cells, decay, eps))), 0, 1)


def rest_of(**change):
    return lambda cells, settings, sizes: jnp.sqrt(direct_predictor_strengths(*model(in_columns(cells), **change)))


def own_strength(cells, settings, sizes):
    """p_j = sqrt(s_j) + eps s_j."""
    a, c, eta, eps = model(in_columns(cells))
    p = byol_fixed_points(a, c, eta).stable
    return 2 * p / (1 + jnp.sqrt(1 + 4 * eps * p))


def fate_of(**change):
    return lambda cells, settings, sizes: sides(alive(in_columns(cells), **change))


def path_of(**change):
    return lambda cells, settings, sizes: path(cells, settings, sizes, **change)


CHANGES = {"no eps": {"eps": 0.0}, "decay without its half": {"decay": 2.0}}
CLOCK = {"time": [PATH_TIME / MOMENTS * k for k in range(1, MOMENTS + 1)]}

experiment = Experiment(
    name="direct_predictor",
    title="DirectPred: what its eps rescues and kills",
    sources=(TIAN, SOURCE),
    axes={
        "eps": Parameter(
            [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 6.0, 12.0], r"DirectPred's $\epsilon$", domain=NONNEGATIVE
        ),
        "start": Parameter(
            [0.01, 0.03, 0.06, 0.1, 0.2], r"start $\sqrt{s(0)}$", scale="log", domain=POSITIVE
        ),
    },
    fixed={"weight_decay": Parameter(0.045, r"weight decay $\eta$", domain=POSITIVE)},
    settings={
        "batch": Setting(128, "pairs in a minibatch", domain=whole(1)),
        "rate": Setting(0.04, "learning rate", domain=POSITIVE),
        "time": Setting(160.0, "length of training: steps times the learning rate", domain=POSITIVE),
        "memory": Setting(20.0, "steps over which the embeddings' covariance is averaged", domain=POSITIVE),
        "band": Setting(0.1, "relative distance from the boundary that is left out", domain=POSITIVE),
    },
    sizes=sizes,
    simulate=simulate,
    predict=predict,
    outputs={
        "root": Output(r"root of an embedding variance $\sqrt{s}$", dims=MODES),
        "survival": Output(r"$\sqrt{s}/p_+ - 1/4$", dims=MODES),
        "path": Output(r"$\sqrt{s}$, all data", dims=CLOCK | MODES),
    },
    claims=(
        Mean(
            "root", "living modes rest where the predictor's eigenvalue is BYOL's",
            twins={"eps of the mode's own strength": own_strength}
            | {name: rest_of(**change) for name, change in CHANGES.items()},
        ),
        Phase(
            "survival", "eps rescues weak modes whose p- is below eps max s, and kills those whose p+ is", share=1.0,
            twins={name: fate_of(**change) for name, change in CHANGES.items()},
        ),
        Order(
            "path", "the path is that of the mode equation to first order in the step", setting="rate",
            values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=4, axes={"eps": [0.1, 0.4], "start": [0.1, 0.2]},
            settings={"time": 1.0, "batch": 2}, floor=1e-7,
            twins={name: path_of(**change) for name, change in CHANGES.items()},
        ),
    ),
    presets={
        "smoke": {
            "eps": [0.0, 0.2, 12.0], "start": [0.03, 0.1, 0.2], "rate": 0.08, "time": 120.0, "replicates": 4,
            "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {
            "eps": [0.0, *np.geomspace(0.02, 12.0, 34)], "start": np.geomspace(0.005, 0.2, 17), "rate": 0.01,
            "batch": 512, "memory": 80.0, "time": 240.0, "replicates": 20,
        },
    },
)  # fmt: skip
