"""Encoders that start in no relation to the modes: gradient descent from random weights of any rank.

Plain descent with white views, and descent preconditioned by Sigma with correlated ones that share no basis with A0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    POSITIVE,
    Domain,
    Experiment,
    Order,
    Output,
    Parameter,
    Setting,
    per_cell,
)
from sims.ssl_collapse.population import descent_path, orthogonal, spectral, steps_at, with_spectrum
from sims.ssl_collapse.setup import SOURCE
from theory.ssl_collapse import mode_trajectory, riccati_flow
from theory.ssl_collapse.covariances import whitened

D, M = 4, 3
CORRELATIONS = (0.9, 0.7, 0.4, 0.1)
CLEAN, NOISE = (1.5, 1.0, 0.6, 0.3), (0.2, 0.5, 0.4, 0.8)
TIMES = (*np.arange(1, 20) / 5, 4.0, 4.4, 4.8, 5.2, 5.6, 6.0)


def one(key, cell, settings, sizes):
    decay, rate = cell["weight_decay"], settings["rate"]
    keys = jax.random.split(key, 5)
    counts = steps_at(TIMES, rate)
    t = counts.astype(float) * rate
    left, right = jax.random.normal(keys[0], (M, M)), jax.random.normal(keys[1], (M, D))
    kept = jnp.arange(M, dtype=float) < cell["rank"]
    W = settings["start"] * (left * kept[None, :].astype(left.dtype)) @ right

    def path(A0, Sigma, preconditioner):
        def step(W, _):
            return W - rate * jax.grad(spectral)(W, A0, Sigma, decay) @ preconditioner

        return descent_path(step, W, counts, lambda W: W.T @ W)

    identity = jnp.eye(D)
    V = orthogonal(keys[2], D, D)
    A0 = with_spectrum(V, jnp.array(CORRELATIONS))
    B = 2 * A0 - decay * identity
    white = riccati_flow(t, W, B, 1.0)

    bases = [orthogonal(k, D, D) for k in keys[3:]]
    clean, noise = (with_spectrum(Q, jnp.array(x)) for Q, x in zip(bases, (CLEAN, NOISE), strict=True))
    Sigma = clean + noise
    inverse = jnp.linalg.inv(Sigma)
    values, vectors = jnp.linalg.eigh(Sigma)
    root = with_spectrum(vectors, jnp.sqrt(values))
    B_clean = 2 * clean - decay * identity
    preconditioned = root[None] @ path(clean, Sigma, inverse) @ root[None]
    U = W @ root

    # As if every mode of B had its own logistic curve.
    b = 2 * jnp.array(CORRELATIONS) - decay
    alone = mode_trajectory(t[:, None], b[None, :], 1.0, 1.0, jnp.sum((W @ V) ** 2, 0)[None, :])
    return {
        "white": path(A0, identity, identity),
        "white_theory": white,
        "white_modes_alone": (V[None] * alone[:, None, :]) @ V.T[None],
        "white_half_kappa": riccati_flow(t, W, B, 0.5),
        "preconditioned": preconditioned,
        "preconditioned_theory": riccati_flow(t, U, whitened(B_clean, Sigma), 1.0),
        "preconditioned_not_whitened": riccati_flow(t, U, B_clean, 1.0),
        "preconditioned_half_kappa": riccati_flow(t, U, whitened(B_clean, Sigma), 0.5),
    }


DIMS = {
    "time": lambda settings: np.asarray(steps_at(TIMES, settings["rate"])) * settings["rate"],
    "row": np.arange(1, D + 1),
    "column": np.arange(1, D + 1),
}
LADDER = {
    "setting": "rate", "values": (0.04, 0.02, 0.01, 0.005), "order": 1, "replicates": 20, "axes": {"rank": [1, 2, 3]},
}  # fmt: skip

riccati = Experiment(
    name="riccati",
    title="A self-supervised encoder from random weights: the matrix Riccati flow",
    sources=(SOURCE,),
    axes={
        "rank": Parameter(
            [1, 2, 3], "rank of the first weights", domain=Domain(f"1, 2 or {M}", lambda x: np.isin(x, range(1, M + 1)))
        )
    },
    fixed={"weight_decay": Parameter(0.4, r"weight decay $\lambda$", domain=NONNEGATIVE)},
    settings={
        "rate": Setting(0.01, "learning rate", domain=POSITIVE),
        "start": Setting(0.03, "typical weight at the start", domain=POSITIVE),
    },
    theory_sizes=lambda sizes: None,
    simulate=per_cell(one, one_by_one=True),
    predict=lambda cells, settings, sizes: {},
    outputs={
        "white": Output(r"Gram matrix $U^\top U$, white views", dims=DIMS),
        "preconditioned": Output(r"Gram matrix $U^\top U$, preconditioned", dims=DIMS),
    },
    claims=(
        Order(
            "white", "the whole Gram matrix follows the Riccati flow from any weights, to first order in the step",
            twins={"every mode alone": "white_modes_alone", "4 kappa for 8 kappa": "white_half_kappa"}, **LADDER,
        ),
        Order(
            "preconditioned", "with correlated views so does the preconditioned flow, to first order in the step",
            twins={
                "B for the whitened B": "preconditioned_not_whitened",
                "4 kappa for 8 kappa": "preconditioned_half_kappa",
            },
            **LADDER,
        ),
    ),
    presets={
        "smoke": {"rank": [1, 3], "rate": 0.04, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {"rate": 0.001, "replicates": 200},
    },
)  # fmt: skip
