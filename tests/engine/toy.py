"""A small experiment with every feature of the engine: axes of each role, inner dimension, snap, ladder, failures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import POSITIVE, Experiment, Mean, Order, Output, Parameter, Setting, per_cell, whole


def one(key, cell, settings, sizes):
    draws = cell["mu"] + cell["scale"] * jax.random.normal(key, (sizes[0],))
    return {
        "average": jnp.mean(draws),
        "moments": jnp.stack([jnp.mean(draws), jnp.mean(draws**2)]),
        "biased": jnp.mean(draws) + settings["bias"],
        "status": jnp.where(cell["mu"] > 90, 1, 0),
    }


def predict(cells, settings, sizes):
    mu, scale = jnp.broadcast_arrays(cells["mu"], cells["scale"])
    return {"average": mu, "moments": jnp.stack([mu, mu**2 + scale**2], axis=-1), "biased": mu}


def doubled(cells, settings, sizes):
    return 2 * cells["mu"]


toy = Experiment(
    name="toy",
    title="The average of Gaussian numbers",
    sources=("@misc{toy}",),
    axes={
        "mu": Parameter([1.0, 2.0, 3.0], r"mean $\mu$", domain=POSITIVE, snap=lambda v, s: np.round(v, 3)),
        "scale": Parameter([0.5, 1.0], r"scale $s$", domain=POSITIVE, role="shared"),
    },
    fixed={"offset": Parameter(0.0, "offset")},
    settings={"count": Setting(16, "numbers averaged", domain=whole(1)), "bias": Setting(0.1, "added error")},
    sizes=lambda settings: (settings["count"],),
    simulate=per_cell(one),
    predict=predict,
    outputs={
        "average": Output("average"),
        "moments": Output("moments", dims={"power": [1, 2]}),
        "biased": Output("biased average"),
    },
    claims=(
        Mean("average", "the average is mu", twins={"2 mu": doubled}),
        Mean("biased", "the biased average is mu", twins={"2 mu": doubled}),
        Order("biased", "the bias vanishes", setting="bias", values=(0.8, 0.4, 0.2, 0.1), order=1, replicates=20),
    ),
    presets={"smoke": {"replicates": 20}, "laptop": {}},
)


def on_the_host(key, cell, settings, sizes):
    rng = np.random.default_rng(int(jax.random.key_data(key)[1]) + int(1000 * cell["mu"]))
    draws = cell["mu"] + cell["scale"] * rng.standard_normal(sizes[0])
    return {"average": draws.mean(), "moments": np.array([draws.mean(), (draws**2).mean()]), "biased": draws.mean()}


host_toy = dataclasses.replace(toy, name="host_toy", simulate=on_the_host, batched=False)
EXPERIMENTS = (toy, host_toy)
