"""Weight decay raised on layers that have learned, and put on layers that have not: one transition, or two branches.

One layer, two and three are trained by gradient descent on the spectral loss of infinitely many pairs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.descent import gradient_step
from sims.engine.experiment import (
    POSITIVE,
    Experiment,
    Output,
    Parameter,
    Pathwise,
    Phase,
    Setting,
    per_cell,
    whole,
)
from sims.ssl_collapse.layers import (
    AUGMENTATION,
    KAPPA,
    MODES,
    aligned,
    covariances,
    draw_basis,
    gaussian,
    modes,
    population_loss,
    product,
    strengths,
)
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import two_layer_barrier, two_layer_critical_decay, two_layer_strength

FACTORS = (0.5, 0.8, 1.25, 2.0)
BAND = 0.1
FLOOR = 1e-6  # of p, where every state is the collapsed one


def one(key, cell, settings, depth):
    k_basis, k_learned, k_small = jax.random.split(key, 3)
    b, sigma = modes(cell["noise"])
    basis = draw_basis(k_basis, depth)
    A0, Sigma = covariances(basis, cell["noise"])
    eta, decay = settings["learning_rate"], cell["weight_decay"]

    barrier = two_layer_barrier(b, sigma, KAPPA, decay, depth)
    limit = jnp.sqrt(b / (2 * KAPPA)) / sigma

    def p(layers):
        return strengths(product(layers), basis)

    def train(layers, time, schedule, checkpoint=0):
        """p at the end, and after the step `checkpoint`."""

        def step(k, carry):
            layers, seen = carry
            now = schedule(k.astype(eta.dtype) * eta)
            layers = gradient_step(lambda w: population_loss(w, A0, Sigma, now), layers, eta)
            return layers, jnp.where(k == checkpoint, p(layers), seen)

        steps = jnp.round(time / eta).astype(jnp.int32)
        layers, seen = jax.lax.fori_loop(jnp.int32(0), steps, step, (layers, jnp.zeros_like(b)))
        return p(layers), seen

    def beside_the_barrier(factor):
        return aligned(basis, ((factor * jnp.where(jnp.isfinite(barrier), barrier, limit)) ** (1 / depth),) * depth)

    learning, ramp, hold = (settings[name] for name in ("learning", "ramp", "hold"))
    raised, learned = train(
        gaussian(k_learned, depth, settings["scale"]),
        learning + ramp + hold,
        lambda t: decay * jnp.clip((t - learning) / ramp, 0.0, 1.0),
        jnp.round(learning / eta).astype(jnp.int32) - 1,
    )
    starts = [gaussian(k_small, depth, settings["small"])]
    starts += [beside_the_barrier(factor) for factor in FACTORS] if depth > 1 else []
    held = jax.vmap(lambda layers: train(layers, hold, lambda t: decay)[0])(
        jax.tree.map(lambda *w: jnp.stack(w), *starts)
    )
    beside = held[1:] if depth > 1 else jnp.zeros((len(FACTORS), len(b)))
    return {
        "raised": raised,
        "small": held[0],
        "survival": jnp.where(beside > 0.5 * limit[None, :] / 3**0.5, 1.0, -1.0),
        "status": jnp.where(jnp.all(jnp.isfinite(raised)), jnp.where(jnp.all(learned > 0.9 * limit), 0, 1), 2),
    }


def columns(cells):
    return *modes(cells["noise"]), KAPPA, cells["weight_decay"][:, None]


def state(lowest=False, depth=None):
    def formula(cells, settings, sizes):
        return two_layer_strength(*columns(cells), depth or sizes, lowest=lowest)

    return formula


def survives(other=None):
    def formula(cells, settings, sizes):
        b, sigma, kappa, decay = columns(cells)
        barrier = two_layer_barrier(b, sigma, kappa, decay, sizes)
        start = jnp.where(jnp.isfinite(barrier), barrier, jnp.sqrt(b / (2 * kappa)) / sigma)
        start = jnp.array(FACTORS)[None, :, None] * start[:, None, :]
        threshold = barrier if other is None else other(b, sigma, kappa, decay, sizes)
        return jnp.where(start > threshold[:, None, :], 1.0, -1.0)

    return formula


def predict(cells, settings, sizes):
    raised = state()(cells, settings, sizes)
    collapsed = jnp.zeros_like(raised) if sizes > 1 else raised
    return {"raised": raised, "small": collapsed, "survival": survives()(cells, settings, sizes)}


def without_quartic_term(b, sigma, kappa, decay, depth):
    """Twice the barrier of a small start: the edge where the two terms of the potential cancel."""
    return 2 * (decay / b) ** (depth / max(2 * depth - 2, 1))


def transition_instead(b, sigma, kappa, decay, depth):
    """The barrier, but none from the transition on."""
    alive = decay < two_layer_critical_decay(b, sigma, kappa, depth).transition
    return jnp.where(alive, two_layer_barrier(b, sigma, kappa, decay, depth), jnp.inf)


def away_from_thresholds(cells, settings):
    """Where relaxation is faster than the time that decay is held."""
    ends = two_layer_critical_decay(*modes(cells["noise"]), KAPPA, cells["depth"][:, None]).spinodal
    return (np.abs(np.asarray(cells["weight_decay"])[:, None] / np.asarray(ends) - 1) > BAND).all(1)


def several_layers(cells, settings):
    return away_from_thresholds(cells, settings) & (np.asarray(cells["depth"]) > 1)


DECAYS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.32, 0.36, 0.4, 0.53, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 2.7)

hysteresis = Experiment(
    name="hysteresis",
    title="Weight decay on one, two and three layers: a continuous transition, and hysteresis",
    sources=(SOURCE,),
    axes={
        "depth": Parameter([1.0, 2.0, 3.0], "layers", role="static", domain=whole(1)),
        "weight_decay": Parameter(DECAYS, r"weight decay $\lambda$", domain=POSITIVE, scale="log"),
    },
    fixed=AUGMENTATION,
    settings={
        "learning_rate": Setting(0.05, "learning rate", domain=POSITIVE),
        "scale": Setting(0.25, "standard deviation of the layers that learn without decay", domain=POSITIVE),
        "small": Setting(0.02, "standard deviation of the small layers", domain=POSITIVE),
        "learning": Setting(300.0, "time without decay", domain=POSITIVE),
        "ramp": Setting(100.0, "time in which decay is raised", domain=POSITIVE),
        "hold": Setting(150.0, "time at full decay", domain=POSITIVE),
    },
    sizes=lambda settings: int(settings["depth"]),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "raised": Output(r"$p$, decay raised on learned layers", dims=MODES),
        "small": Output(r"$p$, small layers", dims=MODES),
        "survival": Output("learned from beside the barrier", dims={"factor": FACTORS, **MODES}),
    },
    claims=(
        Pathwise(
            "raised", "every mode follows its largest root and dies at its own spinodal", tolerance=1e-5, floor=FLOOR,
            where=away_from_thresholds,
            twins={"the lowest state": state(lowest=True), "a single layer": state(depth=1)},
        ),
        Pathwise(
            "small", "small layers stay collapsed at every decay; a single layer does not", tolerance=1e-5, floor=FLOOR,
            where=away_from_thresholds, twins={"the learned state": state()},
        ),
        Phase(
            "survival", "layers collapse from below the barrier only", share=1.0, where=several_layers,
            twins={
                "twice the barrier of small p": survives(without_quartic_term),
                "the transition for the spinodal": survives(transition_instead),
            },
        ),
    ),
    presets={
        "smoke": {
            "depth": 2.0, "weight_decay": [0.2, 0.4, 0.8], "learning": 150.0, "ramp": 50.0, "hold": 60.0,
            "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"depth": [1.0, 2.0, 3.0, 4.0], "weight_decay": np.geomspace(0.04, 3, 64), "replicates": 50},
    },
)  # fmt: skip
