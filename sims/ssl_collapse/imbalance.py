"""One rare class among three one-hot classes, under four losses: when it is learned, and how strongly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sims.engine.experiment import (
    NONNEGATIVE,
    Domain,
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
from sims.ssl_collapse.losses import alignment, infonce_distance, spectral
from sims.ssl_collapse.normalization import normalized
from sims.ssl_collapse.setup import SOURCE
from sims.ssl_collapse.training import train
from theory.ssl_collapse import class_strengths, critical_frequency, one_hot_minimum, one_hot_quartic_minimum

LOSSES = ("alignment", "infonce_distance", "spectral", "barlow")  # from the least robust to the most
NOISE = 0.1  # variance of the augmentation
TAU = 0.15
EXCESS = 0.1  # alpha - 1 of InfoNCE at full load
DECAY = {"infonce_distance": 0.6, "spectral": 0.3, "barlow": 0.0, "alignment": 0.0}  # at full load
RATES = {"infonce_distance": 0.03, "spectral": 0.1, "barlow": 0.04, "alignment": 0.2}
ALIVE = 0.01  # variance from which a class counts as learned
ACCURACY = 1e-3  # by which the noise of SGD moves a mean, learning rate at the end over the batch
BAND = 0.3  # of its critical frequency, where a class is slower than the training


class Sizes(NamedTuple):
    """What a compilation depends on."""

    loss: str
    negatives: int
    steps: int


def frequencies(p):
    """Of two common classes and the rare one."""
    return jnp.stack([0.6 * (1 - p), 0.4 * (1 - p), p], axis=-1)


def views(key, n: int, p):
    """Two views, each of shape (n, 3), of n inputs +-e_k of frequencies p."""
    k_class, k_noise = jax.random.split(key)
    u = jax.random.uniform(k_class, (n,), p.dtype, -1, 1)
    kind = jnp.sum((jnp.abs(u)[:, None] > jnp.cumsum(p)[None, :-1]).astype(jnp.int32), 1)
    clean = jnp.sign(u)[:, None] * jax.nn.one_hot(kind, 3, dtype=p.dtype)
    noise = NOISE**0.5 * jax.random.normal(k_noise, (2, n, 3), p.dtype)
    return clean + noise[0], clean + noise[1]


def barlow_of_halves(first, second):
    """Barlow Twins without normalisation, |K - I|_F^2, unbiased: one factor from either half of the minibatch."""
    half, m = len(first) // 2, first.shape[1]
    K = [jnp.matmul(f.T, g, precision="highest") / half for f, g in zip(_halves(first), _halves(second), strict=True)]
    return jnp.sum((K[0] - jnp.eye(m, dtype=first.dtype)) * (K[1] - jnp.eye(m, dtype=first.dtype)))


def _halves(x):
    half = len(x) // 2
    return x[:half], x[half : 2 * half]


def loss_of(name, first, second, load):
    """A loss of one minibatch's embeddings."""
    match name:
        case "infonce_distance":
            return infonce_distance(first, second, TAU, 1 + EXCESS * load)
        case "spectral":
            return spectral(first, second)
        case "barlow":
            return barlow_of_halves(first, second)
        case _:
            return alignment(*normalized(first, second))


def trained(name, key, cell, sizes):
    """Variances of the classes' embeddings at the end of a training."""
    p, load = frequencies(cell["frequency"]), cell["load"]
    k_start, k_train = jax.random.split(jax.random.fold_in(key, LOSSES.index(name)))

    def loss(W, key):
        first, second = views(key, sizes.negatives + 1, p)
        return loss_of(name, first @ W.T, second @ W.T, load) + DECAY[name] * load * jnp.sum(W**2)

    def variances(W):
        own = jnp.sum(W**2, 0) * (p + NOISE)
        return own / jnp.sum(own) if name == "alignment" else own

    W = 0.3 * jax.random.normal(k_start, (3, 3), p.dtype)
    return train(loss, W, k_train, sizes.steps, jnp.asarray(RATES[name], p.dtype), variances)[1]


def one(key, cell, settings, sizes):
    nothing = jnp.full(3, jnp.nan, cell["load"].dtype)
    out = {n: trained(n, key, cell, sizes) if sizes.loss in ("all", n) else nothing for n in LOSSES}
    finite = jnp.array([jnp.all(jnp.isfinite(out[n])) for n in LOSSES if sizes.loss in ("all", n)])
    return with_margins(out) | {"status": jnp.where(jnp.all(finite), 0, 2)}


def with_margins(out):
    """The strengths, how far they are above those of a class that is lost, and the ratios' rise from loss to loss."""
    ratio = jnp.stack([out[name][..., 2] / out[name][..., 0] for name in LOSSES], axis=-1)
    margins = {f"{name}_margin": out[name] - ALIVE for name in ("infonce_distance", "spectral")}
    return out | margins | {"rise": jnp.diff(ratio, axis=-1)}


def arguments(name, load):
    """Parameters of a loss, of shape (cells, 1)."""
    return {"temperature": TAU, "alpha": 1 + EXCESS * load[:, None], "weight_decay": DECAY[name] * load[:, None]}


def gaussian(name):
    """Strengths as if the coordinates of the classes were Gaussian."""

    def formula(cells, settings, sizes):
        return class_strengths(frequencies(cells["frequency"]), 1.0, NOISE, name, **arguments(name, cells["load"]))

    return formula


def exact(cells, minimum=one_hot_minimum):
    """InfoNCE's strengths of one-hot classes."""

    def of_cell(p, load):
        name = "infonce_distance"
        one = jnp.ones_like(p)
        return minimum(p, one, NOISE * one, TAU, 1 + EXCESS * load, DECAY[name] * load).strengths

    cells = jnp.broadcast_arrays(cells["frequency"], cells["load"])
    return jax.vmap(of_cell)(frequencies(cells[0]), cells[1])


def predict(cells, settings, sizes):
    """The strengths of the losses that are trained, nan for the others."""
    out = {name: gaussian(name)(cells, settings, sizes) for name in LOSSES}
    if sizes in ("all", "infonce_distance"):
        out |= {"infonce_distance": exact(cells)}
    return with_margins({name: s if sizes in ("all", name) else s * jnp.nan for name, s in out.items()})


def quartic(cells, settings, sizes):
    return exact(cells, one_hot_quartic_minimum)


def without_temperature(cells, settings, sizes):
    """InfoNCE's margin if weight decay were not multiplied by tau in the threshold."""
    p, load = frequencies(cells["frequency"]), cells["load"][:, None]
    needed = EXCESS * load * NOISE + DECAY["infonce_distance"] * load
    return jnp.where(p > needed, 1.0, -1.0) * ALIVE


def without_decay(cells, settings, sizes):
    strengths = class_strengths(frequencies(cells["frequency"]), 1.0, NOISE, "spectral")
    return strengths - ALIVE


def twice_the_decay(cells, settings, sizes):
    return gaussian("spectral")({**cells, "load": 2 * cells["load"]}, settings, sizes)


def inverse(cells, settings, sizes):
    """Barlow's strengths as the spectral loss has them: rho for 1 / rho."""
    return 1 / gaussian("barlow")(cells, settings, sizes)


def reversed_order(cells, settings, sizes):
    return -predict(cells, settings, sizes)["rise"]


def away_from_threshold(name):
    """Cells in which no class is close to its critical frequency."""

    def where(cells, settings):
        load = np.maximum(cells["load"], 1e-9)
        edge = np.asarray(critical_frequency(1.0, NOISE, name, TAU, 1 + EXCESS * load, DECAY[name] * load))
        p = np.asarray(frequencies(jnp.asarray(cells["frequency"])))
        return np.all(np.abs(p / edge[:, None] - 1) > BAND, axis=1)

    return where


def plain(cells, settings):
    return cells["load"] == 0


def trained_to_its_end(cells, settings):
    """Cells in which Barlow Twins, at the rate 8 a_k, has long settled."""
    return (cells["frequency"] > 0.06) & (cells["frequency"] < 0.6)


SHARE = Domain("above 0 and below 1", lambda x: (x > 0) & (x < 1))
CLASSES = {"class": (1, 2, 3)}

imbalance = Experiment(
    name="imbalance",
    title="Imbalance: a rare class under four losses",
    sources=(SOURCE,),
    axes={
        "frequency": Parameter(
            np.geomspace(0.025, 0.35, 11), "frequency $p$ of the class", scale="log", domain=SHARE
        ),
        "load": Parameter([0.0, 1.0], r"load: scale of $\alpha-1$ and of $\lambda$", domain=NONNEGATIVE),
    },
    settings={
        "loss": Setting("all", "losses that are trained", choices=("all", *LOSSES)),
        "negatives": Setting(31, "negatives of an anchor, one less than the samples of a minibatch", domain=whole(3)),
        "steps": Setting(1500, "steps of SGD", domain=whole(8)),
    },
    sizes=lambda settings: Sizes(*(settings[name] for name in Sizes._fields)),
    theory_sizes=lambda sizes: sizes.loss,
    simulate=per_cell(one, one_by_one=True),
    predict=predict,
    outputs={
        "alignment": Output("share of the variance, normalised alignment", dims=CLASSES),
        "infonce_distance": Output("variance, InfoNCE", dims=CLASSES),
        "spectral": Output("variance, spectral loss", dims=CLASSES),
        "barlow": Output("variance, Barlow Twins", dims=CLASSES),
        "infonce_distance_margin": Output("variance above that of a lost class, InfoNCE", dims=CLASSES),
        "spectral_margin": Output("variance above that of a lost class, spectral loss", dims=CLASSES),
        "rise": Output("rise of the minority's ratio from loss to loss", dims={"loss": LOSSES[1:]}),
    },
    claims=(
        Phase(
            "infonce_distance_margin", "InfoNCE learns a class above p_c = [(alpha - 1) c + lambda tau] / h^2",
            where=away_from_threshold("infonce_distance"), twins={"lambda for lambda tau": without_temperature},
        ),
        Phase(
            "spectral_margin", "the spectral loss learns a class above p_c = lambda / 2 h^2",
            where=away_from_threshold("spectral"), twins={"without decay": without_decay},
        ),
        Phase(
            "rise", "alignment, InfoNCE, spectral, Barlow: each is more robust than the one before", where=plain,
            twins={"the reverse": reversed_order},
        ),
        Mean(
            "spectral", "the spectral loss has its strengths, whatever the distribution",
            where=away_from_threshold("spectral"), floor=ACCURACY,
            twins={"twice the decay": twice_the_decay, "strengths of InfoNCE": gaussian("infonce_distance")},
        ),
        Mean(
            "barlow", "Barlow Twins has its strengths 1 / rho, whatever the distribution", where=trained_to_its_end,
            floor=ACCURACY, twins={"rho for 1 / rho": inverse},
        ),
        Order(
            "infonce_distance", "InfoNCE has the exact strengths of one-hot classes, at infinitely many negatives",
            setting="negatives", values=(32, 64, 128, 256), order=-1, replicates=8,
            axes={"frequency": [0.05, 0.25], "load": [1.0]}, settings={"loss": "infonce_distance"},
            twins={"Gaussian classes": gaussian("infonce_distance"), "the quartic landscape": quartic},
        ),
    ),
    presets={
        "smoke": {
            "frequency": [0.08, 0.25], "negatives": 15, "steps": 700, "replicates": 4, "ladders": False,
        },
        "laptop": {"replicates": 20},
        "paper": {"frequency": np.geomspace(0.01, 0.35, 24), "negatives": 511, "steps": 20_000, "replicates": 50},
    },
)  # fmt: skip
