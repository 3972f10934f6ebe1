"""What README says is so: its commands are those of CI, its examples run, its pictures and experiments exist."""

import re
from pathlib import Path

import pytest

from sims.engine.experiment import experiments, topics

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_test_command():
    ci = (ROOT / ".ci" / "run").read_text()
    words = re.search(r"^(python3 -m venv \.venv && .*pytest.*)$", README, re.M).group(1)
    for part in words.split(" && "):
        assert part.replace("pip install", "pip install --quiet") in ci or part in ci


def test_the_example_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "recommend" in b)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("linear probe 0.77")


def test_the_transformer_example_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "critical_initialization" in b)
    with pytest.raises(ValueError, match=r"No critical point exists.*2\.19048 is needed"):
        exec(compile(example, "README.md", "exec"), {})
    assert "unit_variance sigma_w = 1.8247" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_balance_example_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "balance_report" in b)
    exec(compile(example, "README.md", "exec"), {})
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("downstream: delta = -")
    assert second == "upstream"


@pytest.mark.thorough
def test_the_symmetry_example_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "symmetry_report" in b)
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("26 charges over 60 steps")
    assert "The decay is decoupled, not coupled as declared." in out


@pytest.mark.thorough
def test_the_collapse_example_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "collapse_report" in b)
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "units 0 and 3   1.36  -0.00581" in out
    assert "low=Array(0.19373543" in out


@pytest.mark.thorough
def test_the_example_of_sgd_after_convergence_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "global_displacement" in b)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("['oscillating' 'overdamped'] PerStep(angle=Array(0.32175055")


@pytest.mark.thorough
def test_the_example_of_self_supervised_learning_runs(capsys):
    example = next(b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "byol_critical_decay" in b)
    exec(compile(example, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "16 outputs learn 6 of 64 directions (dimensional collapse)" in out
    assert out.rstrip().endswith("spinodal=Array(0.16228817, dtype=float64))")


def test_pictures_and_experiments_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file()
    table = README.split("## What is there")[1].split("##")[0]
    for topic in topics():
        for name in experiments(topic):
            assert f"`{topic}/{name}`" in table or f"`{name}`" in table, name
