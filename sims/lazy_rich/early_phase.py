"""ReLU neurons before their output matters: turning and growing under the drive of the labels alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sims.descent import gradient_flow
from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, per_cell, whole
from sims.lazy_rich.relu import Student, mean_squares, on_sphere
from sims.lazy_rich.setup import PARAMETERS, SOURCE, rates
from theory.lazy_rich import frozen_alignment_time, frozen_drive, relative_scale

COSINES = (0.15, 0.3, 0.45, 0.6)
STEPS = 64


class Sizes(NamedTuple):
    """What a compilation depends on."""

    pairs: int
    d: int
    m: int


def draw(key, sizes: Sizes):
    """Inputs (1, z) and (1, -z) with z on the unit sphere, linear labels, directions of neurons across their drive.

    These are on at every input, and stay so until their cosine with the drive is almost 0.7.
    """
    k_z, k_c, k_w = jax.random.split(key, 3)
    half = on_sphere(k_z, sizes.pairs, sizes.d - 1)
    z = jnp.concatenate([half, -half])
    y = z @ on_sphere(k_c, 1, sizes.d - 1)[0]
    X = jnp.concatenate([jnp.ones((len(z), 1)), z], 1)
    xi = 2 * jnp.mean(X * y[:, None], 0)
    beside = 0.1 * on_sphere(k_w, sizes.m, sizes.d)
    W = beside + jnp.eye(sizes.d)[0][None, :]
    W = W - jnp.outer(W @ xi, xi) / (xi @ xi)
    return X, y, xi, W / jnp.linalg.norm(W, axis=1, keepdims=True)


def one(key, cell, settings, sizes):
    """The first neuron of a network at the times at which the early phase has it at given cosines."""
    X, y, xi, directions = draw(key, sizes)
    layers = rates(cell)
    # The imbalance is given in units of tau^2, so that a smaller network is the same one, scaled.
    alpha = relative_scale(1.0, cell["ratio"], **layers)
    W, a = settings["tau"] * alpha * directions, jnp.full(sizes.m, settings["tau"] / alpha)
    phi, norms = jnp.array(COSINES), (jnp.linalg.norm(W[0]), a[0])
    t = frozen_alignment_time(phi, *norms, jnp.linalg.norm(xi), **layers)

    # The flow of both layers at their own rates is that of scaled weights at one rate.
    def loss(scaled):
        W = jnp.sqrt(cell["eta_w"]) * scaled.W
        return mean_squares(Student(W, jnp.sqrt(cell["eta_a"]) * scaled.a), X, y)

    def weights_at(t):
        start = Student(W / jnp.sqrt(cell["eta_w"]), a / jnp.sqrt(cell["eta_a"]))
        end = gradient_flow(loss, start, t, STEPS)
        return jnp.sqrt(cell["eta_w"]) * end.W[0], jnp.sqrt(cell["eta_a"]) * end.a[0]

    w, outer = jax.vmap(weights_at)(t)
    frozen_w, frozen_a = frozen_drive(t, W[0], a[0], xi, **layers)
    unit = xi / jnp.linalg.norm(xi)
    rotation = jnp.linalg.norm(xi) * t * cell["eta_w"] * a[0] / jnp.linalg.norm(W[0])
    return {
        "cosine": w @ unit / jnp.linalg.norm(w, axis=1),
        "cosine_theory": phi,
        "cosine_fixed_outer_weight": rotation / jnp.sqrt(1 + rotation**2),
        "along": w @ unit / settings["tau"],
        "along_theory": frozen_w @ unit / settings["tau"],
        "along_fixed_outer_weight": cell["eta_w"] * a[0] * jnp.linalg.norm(xi) * t / settings["tau"],
        "outer": outer / settings["tau"],
        "outer_theory": frozen_a / settings["tau"],
        "outer_fixed": jnp.broadcast_to(a[0], t.shape) / settings["tau"],
    }


LADDER = {
    "setting": "tau", "values": (0.032, 0.016, 0.008, 0.004), "order": 2, "replicates": 20,
    "axes": {"ratio": [-4.0, 0.0, 4.0]},
}  # fmt: skip

early_phase = Experiment(
    name="early_phase",
    title="ReLU neurons before their output matters",
    sources=(SOURCE,),
    axes={"ratio": Parameter([-8.0, -4.0, 0.0, 4.0, 8.0], r"imbalance over scale, $\delta/\tau^2$")},
    fixed={name: PARAMETERS[name] for name in ("eta_a", "eta_w")},
    settings={
        "tau": Setting(0.01, "overall scale of the network", domain=POSITIVE),
        "pairs": Setting(25, "pairs of samples", domain=whole(1)),
        "d": Setting(5, "dimension of the inputs, with a constant one", domain=whole(3)),
        "m": Setting(5, "neurons", domain=whole(1)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    simulate=per_cell(one),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "cosine": Output("cosine with the drive", dims={"predicted_cosine": COSINES}),
        "along": Output(r"inner weight over $\tau$", dims={"predicted_cosine": COSINES}),
        "outer": Output(r"outer weight over $\tau$", dims={"predicted_cosine": COSINES}),
    },
    claims=(
        Order(
            "cosine", "a small ReLU network aligns in the predicted time, up to its own output",
            twins={"the outer weight held fixed": "cosine_fixed_outer_weight"}, **LADDER,
        ),
        Order(
            "along", "its inner weights grow as under a constant drive, up to its own output",
            twins={"the outer weight held fixed": "along_fixed_outer_weight"}, **LADDER,
        ),
        Order(
            "outer", "its outer weights grow as under a constant drive, up to its own output",
            twins={"the outer weight held fixed": "outer_fixed"}, **LADDER,
        ),
    ),
    presets={
        "smoke": {"ratio": [-4.0, 4.0], "pairs": 5, "replicates": 6, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"ratio": [-64.0, -16.0, -4.0, 0.0, 4.0, 16.0, 64.0], "pairs": 500, "d": 100, "m": 50, "tau": 0.001},
    },
)  # fmt: skip
