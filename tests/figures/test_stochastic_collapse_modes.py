"""The figures of singular modes: what is on the axes is the dataset and the theory."""

import numpy as np
import pytest
import xarray as xr

from figures.stochastic_collapse import FIGURES
from tests.figures.datasets import attributes
from theory.stochastic_collapse import best_threshold, mode_moments, moments_after_drop, teacher_student_risk

ZETA, S = np.array([0.0, 10.0, 20.0]), np.array([1.2, 0.8, 0.3])
STEPS, AFTER = np.array([100, 1000, 10_000]), np.array([100, 300, 1000])
ETA = 3 / 1024


@pytest.fixture
def student():
    random = np.random.default_rng(0)
    s = np.broadcast_to(S, (3, 4, 3))
    learned = np.asarray(mode_moments(s, ETA, ZETA[:, None, None]).mean)
    times = 0.1 * ETA * AFTER[:, None]
    after = np.asarray(moments_after_drop(times, S[None, :], ETA, ZETA[:, None, None]).mean)
    after = np.broadcast_to(after[:, None], (3, 4, 3, 3))
    losses = {}
    for name in ("train_loss", "test_loss"):
        for suffix in ("", "_after"):
            dims = ("zeta", "replicate", f"step{suffix}")
            losses[f"{name}{suffix}"] = (dims, random.uniform(1, 2, (3, 4, 3)))
            losses[f"{name}{suffix}_theory"] = (dims, np.full((3, 4, 3), 1.5))
    lead = ("zeta", "replicate")
    data = xr.Dataset(
        losses
        | {
            "learned": ((*lead, "mode"), learned),
            "learned_noiseless": ((*lead, "mode"), s),
            "learned_after": ((*lead, "step_after", "mode"), after),
            "status": (lead, np.zeros((3, 4), np.int8)),
        },
        {"zeta": ZETA, "replicate": range(4), "step": STEPS, "step_after": AFTER},
    )
    data.attrs = attributes("teacher_student", {"eta": ETA, "drop": 0.1})
    return data


def test_a_student_is_drawn_with_its_thresholds(student):
    axes = FIGURES["teacher_student"]["figure"](student).axes
    for axis, name in zip((axes[0], axes[1], axes[3], axes[4]), ("train_loss", "test_loss") * 2, strict=True):
        suffix = "_after" if "after" in axis.get_xlabel() else ""
        drawn = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 3]
        means = student[f"{name}{suffix}"].mean("replicate").values
        for k in range(3):
            assert any(np.allclose(y, means[k]) for y in drawn)
    modes = axes[2].lines
    dots = [line for line in modes if line.get_marker() == "."]
    curves = [line for line in modes[1:] if line.get_marker() != "."]
    for k, (dot, curve) in enumerate(zip(dots, curves, strict=True)):
        np.testing.assert_allclose(dot.get_ydata(), student["learned"][k].values.ravel())
        x = np.maximum(curve.get_xdata(), 1e-9)
        np.testing.assert_allclose(curve.get_ydata(), mode_moments(x, ETA, ZETA[k]).mean)
    late = [line for line in axes[5].lines if line.get_marker() == "."]
    np.testing.assert_allclose(late[-1].get_ydata(), student["learned_after"][-1, :, -1].mean("replicate"))
    assert [text.get_text() for text in axes[5].get_legend().get_texts()] == ["100", "300", "1000"]


def test_a_student_needs_several_label_noises(student):
    assert FIGURES["teacher_student"]["figure"](student.isel(zeta=0)) is None


@pytest.mark.thorough
def test_risks_are_drawn_with_their_least():
    tau, teacher = np.array([0.0, 0.4, 0.8, 1.2]), np.linspace(0.6, 1.0, 3)
    random = np.random.default_rng(0)
    draws = {}
    for name, averaged in (("risk", False), ("averaged_risk", True)):
        exact = np.asarray(teacher_student_risk(tau, teacher, 0.5, 32, averaged))
        draws[name] = (("tau", "replicate"), exact[:, None] + 0.1 * random.normal(size=(4, 5)))
    status = {"status": (("tau", "replicate"), np.zeros((4, 5), np.int8))}
    data = xr.Dataset(draws | status, {"tau": tau, "sigma": 0.5, "weakest": 0.6, "strongest": 1.0})
    data.attrs = attributes("risk", {"m": 32, "rank": 3, "draws": 2})
    left, right = FIGURES["risk"]["figure"](data).axes
    for k, (name, averaged) in enumerate((("risk", False), ("averaged_risk", True))):
        curve = next(line for line in left.lines[k * 2 :] if len(line.get_xdata()) > 100)
        expected = teacher_student_risk(curve.get_xdata(), teacher, 0.5, 32, averaged)
        np.testing.assert_allclose(curve.get_ydata(), expected)
        gap = data[name].mean("replicate").values - np.asarray(teacher_student_risk(tau, teacher, 0.5, 32, averaged))
        assert any(len(y := line.get_ydata()) == 4 and np.allclose(y, gap) for line in right.lines)
    least = best_threshold(teacher, 0.5, 32, True)
    assert any(np.allclose(line.get_xdata(), least.tau) for line in left.lines)
    assert FIGURES["risk"]["figure"](data.isel(tau=0)) is None
