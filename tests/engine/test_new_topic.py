"""The topic that CONTRIBUTING.md adds works as it stands there, with figure, verdict and nothing else."""

import re
import textwrap
from pathlib import Path

import sims
import theory
from sims import phase_diagram
from sims.engine.experiment import topics

ROOT = Path(__file__).resolve().parents[2]
THEORY = '''
"""Variance of a Gaussian."""


def variance(scale):
    return scale**2
'''


def test_a_newcomer_adds_a_topic(tmp_path, monkeypatch, capsys):
    example = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S).group(1)
    for package, text in ((theory, THEORY), (sims, textwrap.dedent(example))):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "my_theory.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    assert "my_theory" in topics()
    assert phase_diagram.main(["my_theory", "--preset", "smoke", "--out", str(tmp_path / "results")]) == 0
    written = {p.name for p in (tmp_path / "results/my_theory/phase_diagram").iterdir()}
    assert {"dataset.nc", "verdict.json", "figure.pdf", "figure.png"} <= written
    printed = capsys.readouterr().out
    assert "AGREES" in printed
    assert "twin rejected: s for s^2" in printed
