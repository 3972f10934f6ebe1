"""The audit of a model from the command line: its symmetries, its charges under an optimizer, and a figure.

``python -m sims.noether --model transformer`` audits an example; ``--model package.module:function`` a function of
your own that returns (loss, params, batches).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from sims.engine.devices import configure_jax, prepare_environment
from sims.phase_diagram import Parser, writable

BATCHES = 60


def example(name: str, seed: int):
    """(loss, parameters, batches) of a network that reads digits, of a small audited one, or of a person's function.

    Raises: ValueError if there is no such thing.
    """
    import jax

    from sims.digits import batches
    from sims.noether.models import MODELS, build
    from sims.noether.networks import NETWORKS, network

    if ":" in name:
        module, _, function = name.partition(":")
        try:
            made = getattr(importlib.import_module(module), function)()
        except (ImportError, AttributeError) as error:
            raise ValueError(f"`model` must name a function that can be imported, but got {name} ({error}).") from None
        if not (isinstance(made, tuple) and len(made) == 3):
            raise ValueError(f"`model` must return (loss, params, batches), but {name} returned {type(made).__name__}.")
        return made
    if name in NETWORKS:
        start, loss = network(name)
        stacked = batches(jax.random.key(seed + 1), BATCHES, 32)
        return loss, start(jax.random.key(seed)), [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(BATCHES)]
    if name in MODELS:
        loss, params, make_batches = build(name, seed)
        return loss, params, make_batches(BATCHES, seed)
    known = ", ".join((*NETWORKS, *MODELS))
    raise ValueError(f"`model` must be package.module:function or one of {known}, but got {name}.")


def parser() -> Parser:
    """The options."""
    out = Parser(prog="python -m sims.noether", description="Audit the symmetries of a model.", allow_abbrev=False)
    out.add_argument("--model", default="transformer", help="an example, or package.module:function (%(default)s)")
    out.add_argument("--optimizer", default="heavy ball", help="SGD, heavy ball, Nesterov, decoupled decay or AdamW")
    out.add_argument("--declared", help="the optimizer whose law is tried (that of --optimizer)")
    out.add_argument("--learning_rate", type=float, default=0.05, help="learning rate (%(default)s)")
    out.add_argument("--momentum", type=float, default=0.9, help="momentum (%(default)s)")
    out.add_argument("--weight_decay", type=float, default=0.01, help="weight decay (%(default)s)")
    out.add_argument("--next_rate", type=float, help="learning rate of the forecast (that of the run)")
    out.add_argument("--next_steps", type=int, default=1000, help="steps of the forecast (%(default)s)")
    out.add_argument("--seed", type=int, default=0, help="seed of an example and of the audit (%(default)s)")
    out.add_argument("--precision", type=int, choices=(32, 64), help="bits of a number (64; 32 on a TPU)")
    out.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    return out


def main(argv: list[str] | None = None) -> int:
    started = time.monotonic()
    options = parser().parse_args(argv)
    try:
        prepare_environment()
        configure_jax(options.precision)
        folder = writable(options.out / "noether" / "audit")
        report = audit(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    from figures.noether.audit import audit as audit_figure
    from figures.noether.audit import save_figure

    print(report)
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1))
    written = save_figure(audit_figure(report.to_dict()), folder)
    print(f"Written to {folder}: {', '.join(['report.json', *written])}.")
    print(f"{time.monotonic() - started:.0f} s.")
    return 0


def audit(options):
    """The report that the options ask for.

    Raises: ValueError for what cannot be audited.
    """
    from sims.noether.report import symmetry_report
    from sims.noether.setup import OPTIMIZERS, law_of, optimizer
    from theory.noether.optimizer import check

    for name in ("optimizer", "declared"):
        value = getattr(options, name)
        if value is not None and value not in OPTIMIZERS:
            raise ValueError(f"`{name}` must be one of {', '.join(OPTIMIZERS)}, but got {value}.")
    hyper = options.learning_rate, options.momentum, options.weight_decay
    law = law_of(options.declared or options.optimizer, *hyper)
    check(law)
    loss, params, batches = example(options.model, options.seed)
    return symmetry_report(
        loss, params, optimizer(options.optimizer, *hyper), batches, law, next_rate=options.next_rate,
        next_steps=options.next_steps, seed=options.seed,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
