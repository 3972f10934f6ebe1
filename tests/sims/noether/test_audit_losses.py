"""The audit of plain losses: lists, dicts and arrays; shared, stacked, grouped, dead and useless tensors; bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.noether.audit import find_symmetries
from sims.noether.models import rotary
from theory.noether import charge

pytestmark = pytest.mark.thorough

RNG = np.random.default_rng(0)


def drawn(*shape, dtype=float):
    return jnp.asarray(np.random.default_rng(shape).standard_normal(shape) / np.sqrt(shape[0]), dtype)


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1))


def data(inputs, classes, count=24, samples=8, dtype=float):
    rng = np.random.default_rng((inputs, classes))
    draw = rng.standard_normal, rng.integers
    return [
        (jnp.asarray(draw[0]((samples, inputs)), dtype), jnp.asarray(draw[1](classes, size=samples)))
        for _ in range(count)
    ]


def found(*arguments, **options):
    return {str(family): family.status for family in find_symmetries(*arguments, **options)}


def exactly(*names):
    return dict.fromkeys(names, "exact")


# ---- what it finds


def test_a_linear_model_without_symmetry_has_none():
    rng = np.random.default_rng(1)
    batches = [(jnp.asarray(rng.standard_normal((8, 6))), jnp.asarray(rng.standard_normal((8, 3)))) for _ in range(24)]
    assert found(lambda p, b: jnp.mean((b[0] @ p[0] + p[1] - b[1]) ** 2), [drawn(6, 3), drawn(3)], batches) == {}


def test_a_bare_array_and_its_scale():
    rng = np.random.default_rng(2)
    batches = [jnp.asarray(rng.standard_normal((5, 5))) for _ in range(24)]
    assert found(lambda w, M: w @ M @ w / (w @ w), drawn(5), batches) == exactly("scale: ")


def test_layers_of_equal_widths_are_told_apart():
    params = {"bias": [drawn(8) for _ in range(3)], "kernel": [drawn(8, 8) + k for k in range(3)]}

    def loss(p, batch):
        x = batch[0]
        for k in range(3):
            x = x @ p["kernel"][k] + p["bias"][k]
            x = jax.nn.relu(x) if k < 2 else x
        return cross_entropy(x, batch[1])

    assert found(loss, params, data(8, 8)) == exactly(
        "translation: bias/2",
        "translation: kernel/2[u]",
        "rescale: bias/0[u] + kernel/0[.,u] - kernel/1[u]",
        "rescale: bias/1[u] + kernel/1[.,u] - kernel/2[u]",
    )


def test_a_recurrent_kernel_takes_part_by_both_axes():
    params = {"b": drawn(7), "in": drawn(5, 7), "out": drawn(7, 4), "rec": drawn(7, 7)}
    rng = np.random.default_rng(3)
    batches = [(jnp.asarray(rng.standard_normal((8, 5, 5))), jnp.asarray(rng.integers(4, size=8))) for _ in range(24)]

    def loss(p, batch):
        h = jnp.zeros((8, 7))
        for t in range(5):
            h = jax.nn.relu(batch[0][:, t] @ p["in"] + h @ p["rec"] + p["b"])
        return cross_entropy(h @ p["out"], batch[1])

    assert found(loss, params, batches) == exactly(
        "translation: out[u]", "rescale: b[u] + in[.,u] + rec[.,u] - out[u] - rec[u]"
    )


def test_factors_of_an_update_are_a_matrix_family_though_one_starts_at_zero():
    base, params = drawn(6, 9), {"A": drawn(6, 3), "B": jnp.zeros((3, 9)), "head": drawn(9, 4)}

    def loss(p, batch):
        return cross_entropy(jnp.tanh(batch[0] @ (base + p["A"] @ p["B"])) @ p["head"], batch[1])

    assert found(loss, params, data(6, 4)) == exactly("translation: head[u]", "matrix: A[.,i] - B[i]")


@pytest.mark.parametrize("turned", [False, True])
def test_heads_hidden_in_flat_kernels(turned):
    params = {"k": drawn(10, 12), "o": drawn(12, 10), "q": 1.1 * drawn(10, 12), "v": 0.9 * drawn(10, 12)}
    rng = np.random.default_rng(4)
    batches = [jnp.asarray(rng.standard_normal((2, 4, 5, 10))) for _ in range(24)]

    def loss(p, batch):
        x = batch[0]
        q, k, v = (jnp.reshape(x @ p[n], (4, 5, 3, 4)) for n in "qkv")
        if turned:
            q, k = rotary(q), rotary(k)
        weights = jax.nn.softmax(jnp.einsum("bthr,bshr->bhts", q, k))
        mixed = jnp.einsum("bhts,bshr->bthr", weights, v).reshape(4, 5, 12)
        return jnp.mean((jnp.tanh(mixed @ p["o"]) - batch[1]) ** 2)

    value = "matrix: o[u,i,.] - v[.,u,i]"
    if not turned:
        assert found(loss, params, batches) == exactly("matrix: k[.,u,i] - q[.,u,i]", value)
    else:
        planes = ("rescale: k[.,u,.,u] - q[.,u,.,u]", "rotation: k[.,u,i,u] + q[.,u,i,u]")
        assert found(loss, params, batches) == exactly(*planes, value)


def test_layers_stacked_for_a_scan_have_units_by_layer():
    params = {"b": drawn(3, 7), "down": drawn(3, 7, 6), "g": 1 + drawn(3, 6), "head": drawn(6, 4), "up": drawn(3, 6, 7)}

    def loss(p, batch):
        def layer(x, q):
            y = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)) * q["g"]
            return x + jax.nn.relu(y @ q["up"] + q["b"]) @ q["down"], None

        x, _ = jax.lax.scan(layer, batch[0], {name: p[name] for name in ("b", "down", "g", "up")})
        return cross_entropy(x @ p["head"], batch[1])

    assert found(loss, params, data(6, 4)) == exactly(
        "translation: head[u]", "rescale: b[u,u] + up[u,.,u] - down[u,u]", "rescale: g[u,u] - up[u,u]"
    )


def test_a_tied_embedding_and_a_scalar():
    params = {"e": drawn(9, 6), "scale": jnp.asarray(1.0), "v": drawn(7, 6), "w": drawn(6, 7)}
    rng = np.random.default_rng(5)
    batches = [(jnp.asarray(rng.integers(9, size=8)), jnp.asarray(rng.integers(9, size=8))) for _ in range(24)]

    def loss(p, batch):
        return cross_entropy(p["scale"] * jax.nn.relu(p["e"][batch[0]] @ p["w"]) @ p["v"] @ p["e"].T, batch[1])

    assert found(loss, params, batches) == exactly(
        "rescale: scale - v", "rescale: v[u] - w[.,u]", "matrix: v[.,i] + w[i] - e[.,i]"
    )


def test_the_rotation_of_a_symmetric_factor():
    rng = np.random.default_rng(6)
    batches = [jnp.asarray(rng.standard_normal((5, 5))) for _ in range(24)]
    families = find_symmetries(lambda p, M: jnp.sum((p["u"] @ p["u"].T - M) ** 2), {"u": drawn(5, 3)}, batches)
    assert [str(family) for family in families] == ["rotation: u[.,i]"]
    assert not families[0].has_charge


@pytest.mark.parametrize(("power", "coefficients"), [(1.3, (-1.3, -1.0)), (1.5, (-3.0, -2.0))])
def test_degrees_that_are_no_whole_numbers(power, coefficients):
    def loss(p, batch):
        return cross_entropy(jnp.abs(batch[0] @ p["w"]) ** power @ p["v"], batch[1])

    shift, family = find_symmetries(loss, {"v": drawn(9, 4), "w": drawn(6, 9)}, data(6, 4))
    assert (str(shift), family.kind, family.status) == ("translation: v[u]", "rescale", "exact")
    v, w = family.coefficients
    assert (-v, w) == (pytest.approx(coefficients[0], rel=1e-9), pytest.approx(coefficients[1], rel=1e-9))


def test_two_softmaxes_on_one_kernel_shift_separately():
    params = {"b": drawn(6), "w": drawn(5, 6)}
    rng = np.random.default_rng(7)
    batches = [(jnp.asarray(rng.standard_normal((8, 5))), jnp.asarray(rng.integers(3, size=(8, 2)))) for _ in range(24)]

    def loss(p, batch):
        return cross_entropy((batch[0] @ p["w"] + p["b"]).reshape(8, 2, 3), batch[1])

    families = find_symmetries(loss, params, batches)
    assert [str(family) for family in families] == ["translation: b[u,.]", "translation: w[u,u,.]"]
    assert [charge(family, params).shape for family in families] == [(2,), (10,)]


# ---- what is nearly or not at all a symmetry


@pytest.mark.parametrize(("dtype", "status"), [(np.float64, "approximate"), (np.float32, "undecided")])
@pytest.mark.filterwarnings("ignore:Residuals below")
def test_a_weak_penalty_on_the_normalizer_breaks_the_shift_of_the_logits(dtype, status):
    params = {"b": drawn(4, dtype=dtype), "w": drawn(6, 4, dtype=dtype)}

    def loss(p, batch):
        logits = batch[0] @ p["w"] + p["b"]
        return cross_entropy(logits, batch[1]) + 1e-5 * jnp.mean(jax.nn.logsumexp(logits, -1) ** 2)

    assert found(loss, params, data(6, 4, dtype=dtype)) == {"translation: b": status, "translation: w[u]": status}


def test_a_strong_penalty_leaves_nothing():
    def loss(p, batch):
        logits = batch[0] @ p["w"]
        return cross_entropy(logits, batch[1]) + 0.1 * jnp.mean(jax.nn.logsumexp(logits, -1) ** 2)

    assert found(loss, {"w": drawn(6, 4)}, data(6, 4)) == {}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.filterwarnings("ignore:Residuals below")
def test_dead_tensors_are_inactive_and_useless_ones_flat(dtype):
    shapes = {"b1": (4,), "unused": (3, 3), "w0": (6, 9), "w1": (9, 4)}
    params = {name: drawn(*shape, dtype=dtype) for name, shape in shapes.items()} | {"b0": jnp.full(9, -50, dtype)}

    def loss(p, batch):
        return cross_entropy(jax.nn.relu(batch[0] @ p["w0"] + p["b0"]) @ p["w1"] + p["b1"], batch[1])

    assert found(loss, params, data(6, 4, dtype=dtype)) == {
        "translation: b1": "exact",
        "flat: b0[u]": "inactive",
        "flat: unused[u,u]": "exact",
        "flat: w0[u,u]": "inactive",
        "flat: w1[u,u]": "inactive",
    }


def test_float32_warns_that_small_residuals_are_rounding():
    with pytest.warns(UserWarning, match=r"^Residuals below 1e-4 are rounding in float32"):
        find_symmetries(LOSS, {"w": drawn(6, 4, dtype=np.float32)}, data(6, 4, dtype=np.float32))


# ---- bad input


def LOSS(p, batch):
    return cross_entropy(batch[0] @ p["w"], batch[1])


PARAMS = {"w": drawn(6, 4)}
COUNTER = itertools.count()


def noisy(p, batch):
    return LOSS(p, batch) * (1 + 0.01 * jax.random.normal(jax.random.key(next(COUNTER))))


def bad(loss=LOSS, params=PARAMS, batches=None, **options):
    return lambda: find_symmetries(loss, params, data(6, 4) if batches is None else batches, **options)


BAD = {
    "no batches": (bad(batches=[]), "`batches` must hold at least one batch, but got none."),
    "one array": (bad(batches=jnp.ones((24, 8, 6))), r"`batches` must be a sequence of batches, but got ArrayImpl."),
    "empty batches": (
        bad(batches=data(6, 4, samples=0)),
        "`batches` must hold samples, but got an array of shape (0, 6).",
    ),
    "equal batches": (
        bad(batches=data(6, 4, count=1) * 24),
        "`batches` must differ from each other, but got 24 equal ones.",
    ),
    "one batch": (
        bad(batches=data(6, 4, count=1)),
        "`batches` must differ from each other, but got 1 equal ones.",
    ),
    "few batches": (
        bad(params={"w": drawn(6, 4), "x": drawn(3), "y": drawn(3)}, batches=data(6, 4, count=2)),
        "`batches` must give 6 gradients for 3 tensors, but got 2 at 2 points.",
    ),
    "one point": (bad(points=1), "`points` must be a whole number not below 2, but got 1."),
    "no tolerance": (bad(approximate=0.0), "`approximate` must be positive, but got 0."),
    "no params": (bad(params={}), "`params` must hold at least one tensor, but got none."),
    "integers": (
        bad(params={"w": jnp.ones((6, 4), int)}),
        "`params` must hold arrays of float32 or float64, but w is int64.",
    ),
    "half precision": (
        bad(params={"w": jnp.ones((6, 4), jnp.bfloat16)}),
        "`params` must hold arrays of float32 or float64, but w is bfloat16.",
    ),
    "numbers": (bad(params={"w": 1.0}), "`params` must hold arrays of float32 or float64, but w is float."),
    "a path twice": (
        bad(params={"a/b": drawn(3), "a": {"b": drawn(3)}}),
        "`params` must have a path of its own for every tensor, but 2 have 1.",
    ),
    "many losses": (
        bad(loss=lambda p, b: jnp.sum(b[0] @ p["w"], 1)),
        "`loss` must return one real number, but got ShapeDtypeStruct(shape=(8,), dtype=float64).",
    ),
    "not finite": (
        bad(loss=lambda p, b: LOSS(p, b) + jnp.sqrt(-1 - jnp.sum(p["w"] ** 2))),
        "`loss` must have finite gradients, but got that of w at random parameters.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case):
    call, message = BAD[case]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        call()
    assert str(refusal.value) == message


def test_a_loss_that_draws_anew_is_refused():
    with pytest.raises(ValueError, match=r"^`loss` must return the same number for the same arguments, but got .* and"):
        find_symmetries(noisy, PARAMS, data(6, 4))
