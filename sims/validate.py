"""The report: every claim of every topic, with its ladders and twins.

``python -m sims.validate [TOPIC ...]`` writes ``<out>/report/index.html`` and ``report.json`` and ends with status 1
if any claim disagrees.
"""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from sims.engine.devices import configure_jax, prepare_environment
from sims.phase_diagram import Parser, add_run_options, choose, study, writable

COLOURS = {"agrees": "#009E73", "disagrees": "#D55E00", "undecided": "#E69F00", "outside validity": "#999999"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Validation report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} pre {{ background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px }}
td, th {{ text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }}
</style></head><body><h1>Validation report</h1><p>{summary}</p>
<table><tr><th>experiment</th><th>claim</th><th>verdict</th></tr>{rows}</table>{sections}</body></html>
"""


def page(results: Sequence[tuple[str, str, object, str]]) -> str:
    """The report as one HTML page; figures are linked, not copied."""
    rows, sections, count = [], [], {}
    for name, title, verdict, figure in results:
        for j in verdict.judgements:
            count[j.outcome] = count.get(j.outcome, 0) + 1
            colour = COLOURS[j.outcome]
            rows.append(
                f'<tr><td><a href="#{name}">{name}</a></td><td>{html.escape(j.sentence)}</td>'
                f'<td style="color:{colour}"><b>{j.outcome}</b></td></tr>'
            )
        picture = f'<img src="{figure}" alt="{html.escape(title)}">' if figure else ""
        sections.append(f'<h2 id="{name}">{html.escape(title)}</h2>{picture}<pre>{html.escape(verdict.table())}</pre>')
    summary = ", ".join(f"{n} {outcome}" for outcome, n in count.items())
    return PAGE.format(summary=summary, rows="".join(rows), sections="".join(sections))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    prepare_environment(argv)
    parser = Parser(prog="python -m sims.validate", description=__doc__, allow_abbrev=False)
    parser.add_argument("topics", nargs="*", metavar="TOPIC[/EXPERIMENT]", help="all of them if none is given")
    add_run_options(parser)
    options = parser.parse_args(argv)
    try:
        from figures.gallery import draw
        from sims.engine.experiment import configure, experiments, topics

        chosen = []
        for name in options.topics or topics():
            topic, experiment = choose(name)
            chosen += [(topic, e) for e in ([experiment] if "/" in name else experiments(topic).values())]
        precision, devices = configure_jax(options.precision, options.devices)
        wish = {} if options.replicates is None else {"replicates": options.replicates}
        jobs = [
            (topic, configure(e, options.preset, wish, seed=options.seed, precision=precision)) for topic, e in chosen
        ]
        report = writable(options.out / "report")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    results = []
    for topic, job in jobs:
        folder = writable(options.out / topic / job.experiment.name)
        ladders = job.ladders if options.ladders is None else options.ladders
        command = " ".join(["python -m sims.validate", *argv])
        dataset, verdict, _ = study(job, folder, ladders=ladders, command=command, devices=devices, fresh=options.fresh)
        drawn = draw(topic, dataset, folder) if options.figures else []
        figure = next((os.path.relpath(folder / name, report) for name in drawn if name.endswith(".png")), "")
        results.append(
            (f"{topic}/{job.experiment.name}", job.experiment.title, verdict, os.path.relpath(figure, report))
        )
        print(f"{topic}/{job.experiment.name}\n{verdict.table()}")
    (report / "report.json").write_text(
        json.dumps({name: asdict(v) for name, _, v, _ in results}, indent=1, default=float)
    )
    (report / "index.html").write_text(page(results))
    print(f"Written to {report}: index.html, report.json.")
    return 1 if any(verdict.disagrees for _, _, verdict, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
