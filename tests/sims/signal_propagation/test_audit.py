"""The audit of a Flax transformer: against forward and backward passes written out, and against the theory."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sims.signal_propagation import audit as module
from sims.signal_propagation import audit_example
from sims.signal_propagation.audit import _predictions, audit
from sims.signal_propagation.audit_example import Block, Transformer
from sims.signal_propagation.audit_streams import Measured, calls_of, find_blocks, measurement, streams
from theory.signal_propagation import (
    CriticalInitialization,
    TransformerConfig,
    angle_exponent,
    gradient_exponent,
    stationary_norm,
)

pytestmark = pytest.mark.thorough

N, D, L = 4, 12, 2
CONFIG = TransformerConfig(n=float(N), alpha_A=0.5, alpha_M=0.6, sigma_w=1.5, closure="annealed")
TOKENS = jnp.array([[0, 1, 2, 3], [9, 8, 7, 6]])


@pytest.fixture(scope="module", autouse=True)
def flax_habits():
    """Flax's norms promote dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, width=D, depth=L, heads=2)


@pytest.fixture(scope="module")
def variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(3), TOKENS)
    draw = np.random.default_rng(3).normal
    return jax.tree.map(lambda x: jnp.asarray(draw(size=x.shape) / x.shape[-1] ** 0.5), shapes)


@pytest.fixture(scope="module")
def audited(model, variables):
    return audit(model, variables, TOKENS, CONFIG, key=jax.random.key(5), draws=1)


@pytest.fixture(scope="module")
def noise():
    """The Gaussian that the audit draws, without its token mean."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 1)
    return jax.random.normal(key, 2 * N * D).reshape(2, N, D)


def embedded(variables):
    p = variables["params"]
    return 0.3**0.5 * p["shared"] + 0.7**0.5 * p["Embed_0"]["embedding"][TOKENS]


def collapsed(variables):
    first = embedded(variables)[:, :1]
    return jnp.repeat(first * jnp.sqrt(stationary_norm(CONFIG) / jnp.mean(first**2, -1, keepdims=True)), N, axis=1)


@jax.jit
def by_hand(variables, x, shifts=(0.0, 0.0)):
    """The stream at every layer, block after block."""
    path = []
    for k in range(L):
        x = x + shifts[k]
        path.append(x)
        x = Block(CONFIG, 2).apply({"params": variables["params"][f"Block_{k}"]}, x)
    return [*path, x]


@jax.jit
def gradients_by_hand(variables, x, R):
    """Gradients of sum R X at every layer."""
    return [*jax.grad(lambda shifts: jnp.sum(R * by_hand(variables, x, shifts)[-1]))([jnp.zeros_like(x)] * L), R]


def test_lengths_and_cosines_are_those_of_a_forward_pass(variables, audited):
    for layer, x in enumerate(np.asarray(x) for x in by_hand(variables, embedded(variables))):
        squares = [x[s, i] @ x[s, i] for s in range(2) for i in range(N)]
        products = [x[s, i] @ x[s, j] for s in range(2) for i in range(N) for j in range(N) if i != j]
        assert audited.measured.q[layer] == pytest.approx(np.mean(squares) / D, rel=1e-12)
        assert audited.measured.rho[layer] == pytest.approx(np.mean(products) / np.mean(squares), rel=1e-12)


@pytest.mark.parametrize("kind", ["token", "pooled"])
def test_gradients_are_those_of_explicit_perturbations(variables, audited, noise, kind):
    R = noise - noise.mean(1, keepdims=True) if kind == "token" else jnp.broadcast_to(noise[:, :1], noise.shape)
    x = embedded(variables)
    for layer, g in enumerate(np.asarray(g) for g in gradients_by_hand(variables, x, R)):
        scale = np.mean(np.asarray(R) ** 2)
        u = np.mean(g**2) / scale
        w = np.mean([g[s, i] @ g[s, j] for s in range(2) for i in range(N) for j in range(N) if i != j])
        assert getattr(audited.measured, f"u_{kind}")[layer] == pytest.approx(u, rel=1e-11)
        assert getattr(audited.measured, f"w_{kind}")[layer] == pytest.approx((N - 1) * w / D / scale, abs=1e-11)


def test_angles_grow_as_finite_perturbations_do(variables, audited, noise):
    x = collapsed(variables)
    delta = noise - noise.mean(1, keepdims=True)
    delta = delta - x * jnp.sum(delta * x, -1, keepdims=True) / jnp.sum(x**2, -1, keepdims=True)
    apart = []
    for y in by_hand(variables, x + 1e-4 * delta):
        unit = y / jnp.linalg.norm(y, axis=-1, keepdims=True)
        apart.append(float(jnp.mean(1 - jnp.einsum("sid,sjd->sij", unit, unit))))
    np.testing.assert_allclose(np.diff(np.log(apart)), audited.angle.measured, atol=2e-4)


def test_gradient_exponents_are_those_of_equal_tokens(variables, audited, noise):
    x = collapsed(variables)
    for kind, R in (("token", noise - noise.mean(1, keepdims=True)), ("pooled", jnp.repeat(noise[:, :1], N, axis=1))):
        G = gradients_by_hand(variables, x, R)
        squares = np.array([np.mean(np.asarray(g if kind == "token" else g.sum(1)) ** 2) for g in G])
        np.testing.assert_allclose(getattr(audited, kind).measured, -np.diff(np.log(squares)), rtol=1e-9)


def test_watching_leaves_the_output_as_it_is(model, variables):
    seen = []
    x = jnp.zeros((2, N, D))
    path = streams(lambda v: seen.append(model.apply(v, TOKENS)), lambda m: isinstance(m, Block), variables, [x, x])
    assert (seen[0] == model.apply(variables, TOKENS)).all()
    np.testing.assert_allclose(path[-1], by_hand(variables, embedded(variables))[-1], rtol=1e-13)


# ---- against the theory

SCALES = TransformerConfig(n=8, alpha_A=0.5, alpha_M=0.6, sigma_w=0.5)
WIDTH, DEPTH, NETWORKS, SEQUENCES = 128, 2, 16, jnp.arange(32).reshape(4, 8)
CRITICAL = 3.2207607264  # sigma_w
BIAS = 1.5 / WIDTH  # of an exponent at finite width; measured about 0.02 at 64


def agrees(gains, theory):
    """Whether the log mean of gains (networks, blocks) is the theory's, up to four standard errors and the bias."""
    each = gains.mean(1)
    error = each.std(ddof=1) / each.mean() / len(each) ** 0.5
    return abs(np.log(each.mean()) - theory) < 4 * error + BIAS


def scaled(variables, config):
    """The network with its MLP's first layers drawn at another sigma_w."""

    def rescale(path, x):
        return x * config.sigma_w / SCALES.sigma_w if "MLP_0']['Dense_0" in jax.tree_util.keystr(path) else x

    return jax.tree_util.tree_map_with_path(rescale, variables)


@pytest.fixture(scope="module")
def gains():
    """{initialization: (config, gains (networks, 3, blocks))} of a network of four heads, compiled once."""
    critical = replace(SCALES, sigma_w=CRITICAL)
    assert abs(angle_exponent(critical)) < 1e-4
    model, found = Transformer(SCALES, WIDTH, DEPTH, heads=4), {}

    def apply(variables):
        return model.apply(variables, SEQUENCES)

    first, draw = model.init(jax.random.key(0), SEQUENCES), np.random.default_rng(0).normal
    networks = [jax.tree.map(lambda x: jnp.asarray(draw(size=x.shape) * np.std(x)), first) for _ in range(NETWORKS)]
    is_block, _ = find_blocks(calls_of(apply, first), Block)
    shapes = jax.eval_shape(lambda v: streams(apply, is_block, v), first)
    measure = measurement(apply, is_block, shapes, draws=1)
    for name, config in (("ordered", SCALES), ("critical", critical)):
        norm = float(stationary_norm(config))
        each = [measure(scaled(v, config), jax.random.key(k), norm).gains for k, v in enumerate(networks)]
        found[name] = config, np.stack(each)
    return found


@pytest.mark.parametrize("name", ["ordered", "critical"])
def test_exponents_at_collapse_are_the_theorys(gains, name):
    config, (angle, token, pooled) = gains[name][0], gains[name][1].swapaxes(0, 1)
    assert agrees(angle, float(angle_exponent(config)))
    assert agrees(token, float(gradient_exponent(config, "token")))
    assert agrees(pooled, float(gradient_exponent(config, "pooled")))


@pytest.mark.parametrize("name", ["ordered", "critical"])
def test_exponents_of_another_network_are_rejected(gains, name):
    config, (angle, token, pooled) = gains[name][0], gains[name][1].swapaxes(0, 1)
    assert not agrees(pooled, float(gradient_exponent(config, "token")))
    assert not agrees(token, float(gradient_exponent(config, "pooled")))
    assert not agrees(angle, float(angle_exponent(replace(config, causal=True))))
    post = replace(config, norm="post")
    assert name == "critical" or not agrees(angle, float(angle_exponent(post)))


@pytest.mark.thorough
def test_a_causal_network_follows_the_gram_map(monkeypatch):
    monkeypatch.setattr(module, "critical_initialization", lambda config: CriticalInitialization((), {}))
    causal = replace(SCALES, causal=True, sigma_A=0.3, alpha_A=0.7)
    result = audit(Transformer(causal, WIDTH, 3, heads=1), None, SEQUENCES, causal, networks=8, draws=2)
    np.testing.assert_allclose(result.measured.q, result.predicted.q, rtol=0.08)
    np.testing.assert_allclose(result.measured.rho, result.predicted.rho, atol=0.03)
    # Eight networks scatter by 0.015 a block, and their angles, with the norm, by 0.04. The exponents of angles rise
    # from -0.77 to -0.61 with depth, those of gradients fall; without a mask all would be -1.00.
    np.testing.assert_allclose(result.token.measured, result.token.predicted, atol=0.05)
    np.testing.assert_allclose(result.angle.measured, result.angle.predicted, atol=0.15)
    np.testing.assert_allclose(result.pooled.measured, result.pooled.predicted, atol=0.1)
    unmasked = float(angle_exponent(replace(causal, causal=False)))
    assert (result.token.measured > unmasked + 0.2).all()
    assert not np.allclose(result.token.measured, result.token.predicted[::-1], atol=0.05)
    assert np.isnan(result.predicted.u_token).all()
    assert "no prediction with a causal mask" in result.table().replace("\n", " ")


# ---- what is said, and what is refused


def test_the_table_says_what_was_measured_and_what_to_do(audited):
    text = audited.table()
    lines = text.splitlines()
    assert lines[0] == "2 blocks (Block), 4 tokens, 1 network; theory in brackets"
    assert f"{audited.measured.q[1]:.4g} ({audited.predicted.q[1]:.4g})" in lines[3]
    assert f"{audited.angle.total:.2f} over 2 blocks" in " ".join(lines)
    (point,) = (point for point in audited.critical if point.gauge == "fixed")
    assert f"For a critical start set sigma_w = {point.sigma_w:.4g} alone" in " ".join(lines)
    assert audited.regime == "near critical"
    assert audited.predicted_regime == "near critical"
    deep = replace(audited, angle=audited.angle._replace(measured=np.full(9, -0.3), predicted=np.full(9, 0.3)))
    assert deep.regime == "ordered"


def test_without_a_config_there_are_measurements_only(model, variables, monkeypatch):
    numbers = Measured(np.ones((3, N, N)) + np.eye(N), np.ones((4, 3)), np.ones(3), np.full((3, 2), 0.5))
    monkeypatch.setattr(module, "measurement", lambda *_: lambda *_: numbers)
    result = audit(model, variables["params"], (TOKENS,), block=lambda m: isinstance(m, Block))
    assert result.angle.mean == pytest.approx(-np.log(2))
    assert result.measured.rho == pytest.approx(np.full(3, 0.5))
    assert np.isnan(result.predicted).all()
    assert not result.critical
    assert "theory" not in result.table()
    assert "nan" not in result.table()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"residual": "identity"}, "The stationary norm does not exist"),
        ({"norm": "none", "causal": True}, "`norm` must be pre or post for a Gram map"),
        ({"closure": "large_n"}, 'Gradients have no prediction with the closure "large_n"'),
        ({"alpha_A": 1.0}, "`alpha_A` must be below 1"),
    ],
)
def test_predictions_that_do_not_exist_are_nan_with_a_reason(changes, sentence):
    config, notes, q = replace(CONFIG, **changes), {}, np.array([0.8, 0.9, 1.0])
    norm = np.nan if {"residual", "norm"} & set(changes) else 0.8
    profile, exponents = _predictions(config, np.tile(np.eye(N) + 0.3, (3, 1, 1)), q, norm, notes)
    assert any(sentence in note for note in notes)
    assert np.isnan(exponents[0][1]) == (changes.get("closure") is None)
    if "residual" in changes:
        np.testing.assert_allclose(exponents[0][0], angle_exponent(config, q=q[:-1]))
        np.testing.assert_allclose(exponents[2][0], gradient_exponent(config, "pooled", q=q[:-1]))
    assert np.isfinite(profile.q).all() == (not config.causal)


def test_a_network_without_a_critical_point_gives_the_reason(audited):
    from sims.signal_propagation.audit import _critical

    notes = {}
    assert _critical(replace(CONFIG, alpha_M=0.0), notes) == ()
    assert "No critical point exists" in replace(audited, critical=(), notes=tuple(notes)).table().replace("\n", " ")


class Scanned(nn.Module):
    """Blocks that the audit cannot follow."""

    @nn.compact
    def __call__(self, tokens):
        blocks = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return blocks()(jnp.ones((*tokens.shape, 4)), None)[0]


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + self.param("bias", nn.initializers.ones, (1, 1, 4)), None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": 3}, "`model` must be a flax.linen.Module, but got int."),
        ({"params": 3}, "`params` must be a mapping of variables, or None, but got int."),
        ({"params": {"shared": 0}}, "`params` and `tokens` must fit the model, but got "),
        ({"keywords": {"train": True}}, "`params` and `tokens` must fit the model, but got TypeError: "),
        ({"networks": 2}, "`networks` must be 1 where `params` are given, but got 2."),
        ({"draws": 0}, "`draws` must be a whole number not below 1, but got 0."),
        ({"config": "tanh"}, "`config` must be a TransformerConfig, but got str."),
        ({"config": replace(CONFIG, n=5)}, "`config.n` must be the number of tokens, 4, but got 5."),
        ({"config": replace(CONFIG, sigma_w=np.ones(2))}, "`config.sigma_w` must be one number, but got shape (2,)."),
        ({"tokens": TOKENS[:, :1]}, "`tokens` must hold at least 2 tokens a sequence, but got 1."),
        ({"block": "Block"}, "`block` must be a module class or a predicate on modules, but got Block."),
        ({"block": nn.Conv}, "`block` must match a module that the model calls, but Conv matches none of Embed (1), "),
        ({"block": nn.Embed}, "`block` must keep the shape (..., n, d) of the stream, but Embed maps (2, 4) to "),
        ({"model": Transformer(CONFIG, D, 1, 2)}, "`block` must be given as a module class or a predicate, because"),
        ({"model": Scanned(), "params": None, "block": Step}, "`model` must call its blocks outside nn.scan, nn.remat"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(model, variables, given, sentence):
    usual = {"model": model, "params": variables, "tokens": TOKENS}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        audit(**(usual | given))
    message = str(caught.value)
    assert message.startswith(sentence)
    assert message.endswith(".")
    assert "\n" not in message


def test_the_guess_takes_the_outermost_chain(model, variables):
    _, name = find_blocks(calls_of(lambda v: model.apply(v, TOKENS), variables), None)
    assert name == "Block"
    nested, x = nn.Sequential([nn.Sequential([nn.Dense(4) for _ in range(2)]) for _ in range(3)]), jnp.ones((3, 4))
    calls = calls_of(lambda v: nested.apply(v, x), jax.eval_shape(nested.init, jax.random.key(0), x))
    assert find_blocks(calls, None)[1] == "Sequential"


def test_the_example_prints_both_audits(audited, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(audit_example, "audited", lambda config, *rest: given.append((config, *rest)) or audited)
    assert audit_example.main(["--width", "32", "--depth", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(audited.table()) == 2
    assert given[0][0] is audit_example.ORDERED
    assert given[1][0].sigma_w == pytest.approx(audited.critical[-1].sigma_w)
    assert "Raising sigma_w from 0.5 to" in printed


@pytest.mark.slow
def test_the_example_becomes_critical(capsys):
    assert audit_example.main(["--width", "64", "--depth", "4"]) == 0
    printed = capsys.readouterr().out
    assert "Tokens collapse: lambda_a = -0.5" in printed
    assert "near critical" in printed.split("Critical initialization")[1]
