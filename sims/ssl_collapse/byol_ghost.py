"""How long BYOL's encoder looks alive above its critical weight decay: the ghost of the vanished fixed point."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sims.engine.experiment import POSITIVE, Experiment, Order, Output, Parameter, Setting, in_columns, whole
from sims.ssl_collapse.byol_training import Rates, predictor_modes, rotation, start, step, whole_data
from sims.ssl_collapse.setup import SOURCE, TIAN
from theory.ssl_collapse import byol_critical_decay, byol_passage_time, ghost_time

# In units of the eigenvalue at which the fixed points merge.
FIRST, LAST = 1.5, 0.5


def simulate(key, cells, settings, sizes):
    """Modes of one variance: they pass together."""
    (d,) = sizes
    cells = in_columns(cells)
    model, rate = (cells["clean"], cells["noise"]), settings["rate"]
    k_basis, k_data = jax.random.split(key)
    Q = rotation(k_basis, d)
    merged = cells["clean"] / (2 * (cells["clean"] + cells["noise"]))
    decay = decays(cells)[-1]
    rates = Rates(rate, decay, jnp.ones_like(decay), jnp.full_like(decay, jnp.inf))
    # One by one: products side by side would have a last bit that depends on their number.
    seen = jax.lax.map(lambda v: whole_data(k_data, *(jnp.full(d, x) for x in v)), model)
    seen = jax.tree.map(lambda m: jnp.moveaxis(m, 0, -1), seen)
    begin = jnp.broadcast_to(FIRST * merged[None, :], (d, len(decay)))

    def height(net):
        return jnp.mean(predictor_modes(net, Q), axis=0)

    def going(carry):
        k, _, _, now = carry
        return (k < settings["most"]) & jnp.any(now > LAST * merged)

    def ahead(carry):
        k, net, time, now = carry
        net = step(net, seen, rates)
        then = height(net)
        # A step that passes counts for its part above the level.
        share = (now - LAST * merged) / (now - then)
        time = time + jnp.where(now > LAST * merged, jnp.minimum(share, 1.0), 0.0) * rate
        return k + 1, net, time, then

    net = start(Q, begin, begin)
    _, net, time, now = jax.lax.while_loop(going, ahead, (jnp.int32(0), net, jnp.zeros_like(decay), height(net)))
    return {
        "time": time,
        "share": time / ghost_time(*model, decay),
        "status": jnp.where(now > LAST * merged, 1, 0),
    }


def decays(cells):
    """(a, c, eta) of the cells."""
    a, c = cells["clean"], cells["noise"]
    return a, c, byol_critical_decay(a, c) * (1 + cells["distance"] ** 2)


def passage(cells, between=(FIRST, LAST), decay=1.0):
    a, c, eta = decays(cells)
    merged = a / (2 * (a + c))
    return byol_passage_time(*(x * merged for x in between), a, c, decay * eta)


def predict(cells, settings, sizes):
    cells = in_columns(cells)
    return {"time": passage(cells), "share": jnp.ones_like(cells["distance"])}


def to_the_ghost(cells, settings, sizes):
    """Half of the way: what comes after the ghost is left out."""
    return passage(in_columns(cells), (FIRST, 1.0))


def whole_decay(cells, settings, sizes):
    """Weight decay without its half."""
    return passage(in_columns(cells), decay=2.0)


def without_clean_variance(cells, settings, sizes):
    """sqrt((eta - eta_c)(a + c)) for the rate, without the place a / 2(a + c) of the ghost."""
    cells = in_columns(cells)
    a, c, eta = decays(cells)
    return 2 * (a + c) / a * jnp.ones_like(eta)


def half_turn(cells, settings, sizes):
    """pi / 2 for pi."""
    return jnp.full_like(in_columns(cells)["distance"], 2.0)


def first_power(cells, settings, sizes):
    """A time that grows as 1 / (eta - eta_c)."""
    return in_columns(cells)["distance"]


# No noise hides the third order in the distance, by which a straight line misses the limit.
FLOOR = 1e-5

byol_ghost = Experiment(
    name="byol_ghost",
    title="The ghost of BYOL's fixed point above the critical weight decay",
    sources=(TIAN, SOURCE),
    axes={
        "noise": Parameter([0.2, 0.4, 0.8], r"augmentation variance $c$", domain=POSITIVE),
        "distance": Parameter(
            [0.05, 0.1, 0.2, 0.4, 0.8], r"$\sqrt{\eta/\eta_c - 1}$", scale="log", domain=POSITIVE
        ),
    },
    fixed={"clean": Parameter(1.0, "clean variance $a$", domain=POSITIVE)},
    settings={
        "rate": Setting(0.02, "learning rate", domain=POSITIVE),
        "d": Setting(3, "modes, all of one variance", domain=whole(1)),
        "most": Setting(10_000_000, "steps after which a run is given up", domain=whole(1)),
    },
    sizes=lambda settings: (settings["d"],),
    simulate=simulate,
    predict=predict,
    outputs={
        "time": Output("time to collapse"),
        "share": Output("time to collapse over the ghost's"),
    },
    claims=(
        Order(
            "time", "the time to collapse is exact, up to the step size", setting="rate",
            values=(0.08, 0.04, 0.02, 0.01), order=1, replicates=4,
            axes={"noise": [0.2, 0.8], "distance": [0.1, 0.3]}, floor=FLOOR,
            twins={"to the ghost alone": to_the_ghost, "decay without its half": whole_decay},
        ),
        Order(
            "share", "near the critical decay it is the ghost's, pi over a root", setting="distance",
            values=(0.05, 0.025, 0.0125, 0.00625), order=1, replicates=4, axes={"noise": [0.2, 0.8]},
            settings={"rate": 0.05}, floor=FLOOR,
            twins={
                "pi / 2 for pi": half_turn,
                "without the place of the ghost": without_clean_variance,
                "one over the distance": first_power,
            },
        ),
    ),
    presets={
        "smoke": {"noise": [0.2, 0.8], "distance": [0.2, 0.8], "rate": 0.05, "replicates": 4, "ladders": False},
        "laptop": {"replicates": 20},
        "paper": {
            "noise": [0.1, 0.2, 0.4, 0.8, 1.6], "distance": [0.0125 * 2**k for k in range(7)], "rate": 0.01,
            "replicates": 50,
        },
    },
)  # fmt: skip
