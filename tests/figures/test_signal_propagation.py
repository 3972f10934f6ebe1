"""The figures of signal propagation: what is on the axes is the dataset and the theory."""

import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.text import Text

from figures.signal_propagation import FIGURES
from figures.signal_propagation.phase_diagram import SYMBOLS, exponents
from figures.signal_propagation.transformer import transformer
from tests.figures.datasets import attributes
from theory.signal_propagation import angle_exponent, critical_initialization

SETTINGS = {"d": 32, "depth": 4, "norm": "pre", "residual": "normalized", "activation": "tanh", "n": 4}
LABELS = {"alpha": r"strength $\alpha$", "sigma_w": r"first MLP scale $\sigma_w$", "sigma_A": r"logit scale $\sigma_A$"}
FIXED = {"n": 4, "sigma_A": 1.0, "sigma_V": 1.0, "sigma_2": 1.0, "alpha_A": 0.5, "alpha_M": 0.5, "kappa_M": 1.0}


def dataset_of(experiment, axes, outputs, depth=None, replicates=5, verdict=None, **fixed):
    """Draws around a theory: `outputs` maps a name to an array over the axes (and the depth)."""
    random, shape = np.random.default_rng(0), tuple(len(v) for v in axes.values())
    variables, inner = {}, ("depth",)
    for name, theory in outputs.items():
        dims = inner[: theory.ndim - len(shape)]
        theory = np.broadcast_to(theory, (*shape, *theory.shape[len(shape) :]))
        noise = 0.01 * random.normal(size=(*shape, replicates, *theory.shape[len(shape) :]))
        draws = np.expand_dims(theory, len(shape)) * (1 + noise)
        variables[f"{name}_theory"] = ((*axes, *dims), theory, {"label": name, "units": "1"})
        variables[name] = ((*axes, "replicate", *dims), draws, {"label": name, "units": "1"})
    variables["status"] = ((*axes, "replicate"), np.zeros((*shape, replicates), np.int8))
    coordinates = {k: (k, np.asarray(v, float), {"label": LABELS.get(k, k), "units": "1"}) for k, v in axes.items()}
    coordinates |= {k: v for k, v in {**FIXED, **fixed}.items() if k not in axes}
    coordinates |= {"depth": np.arange(depth + 1)} if depth else {}
    data = xr.Dataset(variables, coordinates | {"replicate": np.arange(replicates)})
    data.attrs = attributes(experiment, SETTINGS, verdict)
    return data


def along_depth(shape, depth=4):
    decay = np.exp(-0.2 * np.arange(depth + 1))
    return {"q": 1.0 * np.ones((*shape, depth + 1)), "p": np.broadcast_to(1 - 0.75 * decay, (*shape, depth + 1))}


LADDER = {
    "experiment": "phase_diagram",
    "judgements": [
        {
            "output": "angle_exponent", "kind": "order", "sentence": "s", "outcome": "agrees", "replicates": 40,
            "twins": {}, "numbers": {
                "d": [16.0, 32.0, 64.0], "discrepancy": [0.08, 0.04, 0.02], "standard error": [0.004] * 3,
                "predicted order": -1.0, "fitted order": -1.0,
            },
        }
    ],
}  # fmt: skip


def phase_data(alpha=(0.2, 0.4, 0.6, 0.8), sigma_w=(1.0, 2.0, 3.0, 4.0, 5.0), **options):
    grid = np.meshgrid(alpha, sigma_w, indexing="ij")
    base = dataset_of("phase_diagram", {"alpha": alpha, "sigma_w": sigma_w}, {}, attention_share=1.0, rho0=0.25)
    values = exponents(transformer(base, alpha_A=grid[0], alpha_M=grid[0], sigma_w=grid[1]))
    outputs = {k: np.asarray(v) for k, v in values.items()} | along_depth(grid[0].shape)
    axes = {"alpha": alpha, "sigma_w": sigma_w}
    return dataset_of("phase_diagram", axes, outputs, depth=4, attention_share=1.0, rho0=0.25, **options)


def propagation_data():
    axes = {"sigma_A": (0.5, 3.0), "sigma_w": (1.0, 4.0)}
    outputs = along_depth((2, 2))
    growth = np.exp(0.3 * np.arange(5)[::-1])
    for kind in ("token", "pooled"):
        outputs |= {
            f"u_{kind}": np.broadcast_to(growth, (2, 2, 5)),
            f"v_{kind}": np.broadcast_to(growth - 1, (2, 2, 5)),
        }
    return dataset_of("propagation", axes, outputs, depth=4, q0=1.0, rho0=0.25)


def causal_data():
    axes = {"alpha": (0.3, 0.7), "sigma_w": (1.0, 2.0, 4.0)}
    return dataset_of("causal", axes, {f"{k}_exponent": np.full((2, 3), -0.1) for k in ("angle", "token", "pooled")})


def overlaps_data():
    axes = {"n": (4, 8), "s": (0.5, 2.0), "r": (0.0, 0.5)}
    data = dataset_of("softmax_overlaps", axes, {k: np.full((2, 2, 2), 0.2) for k in ("Q", "P", "T1", "T2")})
    data.attrs["settings"] = json.dumps({"pairs": 10})
    return data


def scaling_data():
    axes = {"depth": (4, 8), "kappa_A": (0.0, 1.0), "sigma_w": (1.0, 3.0)}
    return dataset_of("depth_scaling", axes, {f"{k}_total": np.full((2, 2, 2), -0.5) for k in ("angle", "pooled")})


def training_data():
    axes = {"alpha": (0.3, 0.7), "sigma_w": (1.0, 2.0, 4.0)}
    data = dataset_of("training", axes, {"final_loss": np.linspace(0.2, 1.3, 6).reshape(2, 3)})
    judgement = {"kind": "rank", "outcome": "agrees", "numbers": {"rank correlation": 0.5, "its interval": [0.3, 0.7]}}
    data.attrs["verdict"] = json.dumps({"judgements": [judgement]})
    return data


DATA = {
    "phase_diagram": lambda: phase_data(verdict=LADDER),
    "propagation": propagation_data,
    "causal": causal_data,
    "softmax_overlaps": overlaps_data,
    "depth_scaling": scaling_data,
    "training": training_data,
}
CASES = [(name, stem) for name in DATA for stem in FIGURES[name] if stem != "convergence"]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "stem"), CASES)
def test_every_panel_is_drawn_labelled_and_readable(name, stem):
    figure = FIGURES[name][stem](DATA[name]())
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert min(t.get_fontsize() for t in texts) >= 6
    panels = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    assert all(a.has_data() for a in panels)
    assert [a.get_title(loc="left") for a in panels] == [f"({chr(97 + k)})" for k in range(len(panels))]
    box, page = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= page[0] + 0.02
    assert box.y1 <= page[1] + 0.02


def meshes(axis):
    return [c for c in axis.collections if isinstance(c, QuadMesh)]


@pytest.mark.parametrize(("row", "name"), list(enumerate(SYMBOLS)))
def test_the_maps_hold_theory_simulation_and_their_difference(row, name):
    data = phase_data()
    figure = FIGURES["phase_diagram"]["figure"](data)
    panels = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    theory, simulation, difference = (meshes(panels[4 * row + k])[0] for k in range(3))
    means = data[name].mean("replicate").transpose("sigma_w", "alpha").values
    gap = (data[name].mean("replicate") - data[f"{name}_theory"]).transpose("sigma_w", "alpha").values
    np.testing.assert_allclose(np.asarray(simulation.get_array()).reshape(means.shape), means)
    np.testing.assert_allclose(np.asarray(difference.get_array()).reshape(means.shape), gap, atol=1e-12)
    alpha, sigma_w = theory.get_coordinates()[57, 91]
    one = transformer(data, alpha_A=alpha, alpha_M=alpha, sigma_w=sigma_w)
    shown = np.asarray(theory.get_array()).reshape(161, 161)
    x, y = np.linspace(*panels[0].get_xlim(), 161), np.linspace(*panels[0].get_ylim(), 161)
    one = transformer(data, alpha_A=x[91], alpha_M=x[91], sigma_w=y[57])
    assert shown[57, 91] == pytest.approx(float(exponents(one)[name]), rel=1e-9)
    assert theory.norm.vmin < 0 < theory.norm.vmax
    assert theory.cmap(theory.norm(0.0))[:3] == pytest.approx((0.966, 0.966, 0.966), abs=0.01)


@pytest.mark.thorough
def test_the_black_line_is_the_critical_line():
    axis = FIGURES["phase_diagram"]["figure"](phase_data()).axes[0]
    (contour,) = [c for c in axis.collections if not isinstance(c, QuadMesh) and len(c.get_paths())]
    for alpha, sigma_w in contour.get_paths()[0].vertices[::20]:
        critical = critical_initialization(transformer(phase_data(), alpha_A=alpha, alpha_M=alpha), ("fixed",))
        assert critical.points[0].sigma_w == pytest.approx(sigma_w, abs=0.05)


def test_one_alpha_gives_slices():
    figure = FIGURES["phase_diagram"]["figure"](phase_data(alpha=(0.4,)))
    assert len(figure.axes) == 3
    x, y = max((line.get_data() for line in figure.axes[0].lines), key=lambda xy: len(xy[0]))
    one = transformer(phase_data(), alpha_A=0.4, alpha_M=0.4, sigma_w=x[10])
    assert y[10] == pytest.approx(float(angle_exponent(one)), rel=1e-9)
