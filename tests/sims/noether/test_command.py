"""The audit from the command line: an example, a person's own function, and what it refuses."""

import json

import jax.numpy as jnp
import pytest

from sims.noether.__main__ import main


def of_my_own():
    """What a person's function returns: a scale-invariant loss of one vector."""

    def loss(params, batch):
        return jnp.sum((batch @ params["w"]) ** 2) / jnp.sum(params["w"] ** 2)

    grid = jnp.arange(60.0 * 4 * 3).reshape(60, 4, 3)
    return loss, {"w": jnp.array([1.0, 2.0, 0.5])}, list(jnp.sin(grid))


@pytest.mark.thorough
def test_it_audits_a_function_and_writes_report_and_figure(tmp_path, capsys):
    options = ["--optimizer", "decoupled decay", "--declared", "heavy ball", "--learning_rate", "0.01"]
    assert main(["--model", f"{__name__}:of_my_own", *options, "--out", str(tmp_path)]) == 0
    folder = tmp_path / "noether" / "audit"
    assert sorted(p.name for p in folder.iterdir()) == ["figure.pdf", "figure.png", "report.json"]
    report = json.loads((folder / "report.json").read_text())
    assert [f["name"] for f in report["families"]] == ["scale: w"]
    assert report["coupling"] == "The decay is decoupled, not coupled as declared."
    assert "scale: w" in capsys.readouterr().out


def no_triple():
    return 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nope"], "`model` must be package.module:function or one of mlp, cnn, transformer"),
        (["--model", "nowhere:f"], "`model` must name a function that can be imported, but got nowhere:f"),
        (["--model", f"{__name__}:no_triple"], "`model` must return (loss, params, batches), but"),
        (["--optimizer", "Lion"], "`optimizer` must be one of SGD, heavy ball"),
        (["--learning_rate", "-1"], "`eta` must be positive, but got -1."),
        (["--momentum", "1.5", "--model", "mlp_relu"], "`momentum` must be zero or positive, and below 1"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, words, tmp_path, capsys):
    assert main([*options, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(words)
