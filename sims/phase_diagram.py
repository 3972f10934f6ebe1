"""The main job: one experiment swept, judged and drawn.

``python -m sims.phase_diagram [TOPIC[/EXPERIMENT]] [--preset laptop] [--<axis> LO HI N | V V V] ...``
writes ``<out>/<topic>/<experiment>/`` with ``dataset.nc``, ``verdict.json``, ``figure.pdf`` and ``figure.png``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sims.engine.devices import configure_jax, prepare_environment

DEFAULT_TOPIC = "transfer"


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence and status 2."""

    def error(self, message):
        self.exit(2, f"{message[0].upper()}{message[1:].rstrip('.')}.\n")


def choose(name: str):
    """(topic, experiment) of "topic" or "topic/experiment".

    Raises: ValueError if there is no such thing.
    """
    from sims.engine.experiment import experiments

    topic, _, wanted = name.partition("/")
    known = experiments(topic)
    if wanted and wanted not in known:
        raise ValueError(f"`experiment` must be one of {', '.join(known)}, but got {wanted}.")
    return topic, known[wanted] if wanted else next(iter(known.values()))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that every front door has."""
    parser.add_argument("--preset", default="laptop", help="size of the job: smoke, laptop or paper (%(default)s)")
    parser.add_argument("--replicates", type=int, help="independent draws per cell")
    parser.add_argument("--seed", type=int, default=0, help="root of all random numbers (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="compute again what is stored already")
    parser.add_argument("--precision", type=int, choices=(32, 64), help="bits of a number (64; 32 on a TPU)")
    parser.add_argument("--devices", type=int, help="devices to work on (all accelerators, or one a CPU core)")
    parser.add_argument("--figures", action=argparse.BooleanOptionalAction, default=True, help="draw the figures")
    parser.add_argument("--ladders", action=argparse.BooleanOptionalAction, help="run the ladders of the order claims")


def parser_for(name: str, experiment) -> Parser:
    """The command line of one experiment: its parameters and settings are options."""
    parser = Parser(prog="python -m sims.phase_diagram", description=experiment.title, allow_abbrev=False)
    parser.add_argument("topic", nargs="?", default=name, metavar="TOPIC[/EXPERIMENT]", help="(%(default)s)")
    add_run_options(parser)
    parser.add_argument("--block", type=int, help="cells per call; bounds the memory and changes no number")
    parser.add_argument(
        "--distributed", action="store_true", help="share the work with the processes of jax.distributed"
    )
    parser.add_argument("--list", action="store_true", help="list topics and experiments, and end")
    parser.add_argument("--cite", action="store_true", help="print the BibTeX of the experiment's sources, and end")
    group = parser.add_argument_group("parameters of the theory (LO HI N, or values; 3.0 is a value, 3 a count)")
    for key, parameter in experiment.parameters.items():
        group.add_argument(f"--{key}", nargs="+", metavar="V", help=_plain(parameter.label))
    group = parser.add_argument_group("settings of the simulation")
    for key, setting in experiment.settings.items():
        kind = str if isinstance(setting.value, str) else float
        group.add_argument(
            f"--{key}", type=kind, help=f"{setting.words} ({setting.value})", metavar=kind.__name__.upper()
        )
    return parser


def _plain(label: str) -> str:
    return label.translate(str.maketrans("", "", "$\\{}")).replace("mathrm", "").replace("%", "%%")


def values_of(name: str, words: Sequence[str], scale: str):
    """Axis values from the words of an option: LO HI N (N a whole number without a point), or the values themselves.

    Raises: ValueError if a word is no number.
    """
    import numpy as np

    for word in words:
        try:
            float(word)
        except ValueError:
            raise ValueError(f"`{name}` must be given as numbers, but got {word}.") from None
    low, high = float(words[0]), float(words[-2]) if len(words) > 1 else None
    if len(words) == 3 and words[2].isdigit() and int(words[2]) >= 2 and low < high:
        spaced = np.geomspace if scale == "log" and low > 0 else np.linspace
        return spaced(low, high, int(words[2]))
    return np.array([float(word) for word in words])


def writable(folder: Path) -> Path:
    """The folder, made if need be.

    Raises: ValueError if it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"`out` must be a folder that can be written, but got {folder} ({error.strerror}).") from None


def study(job, folder: Path, *, ladders: bool, command: str = "", **options):
    """Run a job and its ladders, judge the claims, and write `dataset.nc` and `verdict.json`.

    Returns: (dataset with the verdict in its attributes, verdict, summaries of the sweeps).
    """
    from sims.engine.agreement import assess
    from sims.engine.experiment import Order
    from sims.engine.run import ladder, run, write

    dataset, summary = run(job, folder, command=command, **options)
    summaries, rungs = [summary], {}
    for index, claim in enumerate(job.experiment.claims if ladders else ()):
        if isinstance(claim, Order):
            results = [run(rung, folder / "ladders", **options) for rung in ladder(job, claim)]
            rungs[index] = [rung for rung, _ in results]
            summaries += [s for _, s in results]
    verdict = assess(dataset, job.experiment, rungs)
    dataset.attrs["verdict"] = verdict.to_json()
    if options.get("share", (0, 1))[0] == 0:
        write(dataset, folder / "dataset.nc")
        (folder / "verdict.json").write_text(verdict.to_json() + "\n")
    return dataset, verdict, summaries


def overrides(experiment, options: Mapping) -> dict:
    """What a person asked for, over the preset."""
    wish = {k: options[k] for k in (*experiment.settings, "replicates") if options.get(k) is not None}
    for key, parameter in experiment.parameters.items():
        if options.get(key) is not None:
            wish[key] = values_of(key, options[key], parameter.scale)
    return wish


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    prepare_environment(argv)
    started = time.monotonic()
    name = argv[0] if argv and not argv[0].startswith("-") else DEFAULT_TOPIC
    try:
        from sims.engine.experiment import configure, experiments, topics

        topic, experiment = choose(name)
        options = vars(parser_for(name, experiment).parse_args(argv))
        if options["topic"] != name:  # the topic came after an option
            topic, experiment = choose(options["topic"])
            options = vars(parser_for(options["topic"], experiment).parse_args(argv))
        if options["list"]:
            for known in topics():
                for entry in experiments(known).values():
                    print(f"{known}/{entry.name}: {entry.title}. Axes: {', '.join(entry.axes)}.")
            return 0
        if options["cite"]:
            print("\n".join(experiment.sources))
            return 0
        precision, devices = configure_jax(options["precision"], options["devices"], options["distributed"])
        job = configure(
            experiment, options["preset"], overrides(experiment, options), seed=options["seed"], precision=precision
        )
        folder = writable(options["out"] / topic / experiment.name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    import jax

    share = (jax.process_index(), jax.process_count())
    cells = math.prod(len(v) for v in job.values.values())
    if share[0] == 0:
        print(f"{experiment.title}: {cells} cells x {job.replicates} replicates, preset {job.preset}, seed {job.seed}.")
    ladders = job.ladders if options["ladders"] is None else options["ladders"]
    try:
        dataset, verdict, summaries = study(
            job, folder, ladders=ladders, command=" ".join(["python -m sims.phase_diagram", *argv]), devices=devices,
            block=options["block"], fresh=options["fresh"], share=share,
        )  # fmt: skip
    except KeyboardInterrupt:
        print(f"Interrupted. What was finished is kept in {folder}; the same command goes on from there.")
        return 130
    if share[0] == 0:
        written = []
        if options["figures"]:
            from figures.gallery import draw

            written = draw(topic, dataset, folder)
        print(verdict.table())
        print("\n".join(_merged(summaries)))
        lost = int((dataset["status"] > 0).sum())
        if lost:
            print(f"Replicates without a value, because they diverged or did not converge: {lost}.")
        print(f"Written to {folder}: {', '.join(['dataset.nc', 'verdict.json', *written])}.")
        print(f"{time.monotonic() - started:.0f} s on {len(devices)} {devices[0].platform} device(s).")
    return 0


def _merged(summaries):
    """One summary of several sweeps: parts are foreign if no sweep knew them."""
    total = summaries[0]
    for other in summaries[1:]:
        total.computed += other.computed
        total.reused += other.reused
        total.unreadable += other.unreadable
    return total.sentences()


if __name__ == "__main__":
    sys.exit(main())
