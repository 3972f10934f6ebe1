"""`Experiment`: one closed form tied to one simulation. Everything else is derived from it.

A topic's module `sims/<topic>.py` lists its experiments in `EXPERIMENTS`; the first is its main one. The registry is
the folder itself: a topic is a name that both `theory` and `sims` have.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.arguments import require

Array = Any
Cells = Mapping[str, Array]
Prediction = Callable[[Cells, Mapping, Hashable], Array]

STATUS = {
    0: "finished",
    1: "not converged: the simulation ended before its own convergence test was met",
    2: "diverged: the simulation left the finite numbers where the theory is finite",
}


@dataclass(frozen=True)
class Domain:
    """The values a parameter may take, with the words an error message uses."""

    words: str
    holds: Callable[[np.ndarray], np.ndarray]


ANY = Domain("finite", np.isfinite)
POSITIVE = Domain("positive", lambda x: np.isfinite(x) & (x > 0))
NONNEGATIVE = Domain("non-negative", lambda x: np.isfinite(x) & (x >= 0))
BELOW_ONE = Domain("from 0 to below 1", lambda x: (x >= 0) & (x < 1))
ANGLE = Domain("an angle between 0 and pi (radians)", lambda x: (x >= 0) & (x <= np.pi))


def whole(least: int) -> Domain:
    """The whole numbers from `least` on."""
    return Domain(f"a whole number, {least} or more", lambda x: (x >= least) & (x % 1 == 0))


@dataclass(frozen=True)
class Parameter:
    """A parameter of the theory: an axis of the sweep, or, with one value, a fixed number.

    Args:
        values: Default value or values.
        label: Name on a figure, in mathtext.
        unit: Unit, "1" if dimensionless.
        scale: "linear" or "log": how a figure and `LO HI N` space it.
        domain: The values it may take.
        snap: `snap(values, settings)` maps a wish to realisable values (gamma to n/d) before the grid is formed.
        role: What the simulation gets. "cell": one value per cell, shape (cells,). "shared": one scalar for the whole
            block, so that what depends on it alone is computed once. "static": a Python number, found in the settings
            given to `sizes`; one compilation per value.
    """

    values: float | Sequence[float]
    label: str
    _: KW_ONLY
    unit: str = "1"
    scale: str = "linear"
    domain: Domain = ANY
    snap: Callable[[np.ndarray, Mapping], np.ndarray] | None = None
    role: str = "cell"


@dataclass(frozen=True)
class Setting:
    """A number (or a choice of words) of the simulation that a person may change."""

    value: float | int | str
    words: str
    _: KW_ONLY
    domain: Domain = ANY
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """A quantity that simulation and theory both give.

    Args:
        label: Name on a figure, in mathtext.
        unit: Unit, "1" if dimensionless.
        dims: Inner dimensions: name -> coordinates, or a function of the settings that gives them.
    """

    label: str
    _: KW_ONLY
    unit: str = "1"
    dims: Mapping[str, Any] = field(default_factory=dict)


def everywhere(cells: Cells, settings: Mapping) -> np.ndarray:
    """The region of validity that holds every cell."""
    return np.ones(np.shape(next(iter(cells.values()))), bool)


@dataclass(frozen=True)
class Claim:
    """What an output is held to; `sims.engine.agreement` judges it.

    Args:
        output: The output it speaks of.
        sentence: The claim in words.
        twins: Deliberately wrong formulas that the same data must reject: name -> a function like `predict` that
            returns this output's array alone, or the name of one more array that `simulate` returns.
        where: Region of validity, `where(cells, settings)` -> mask over the cells.
        floor: Absolute error that the simulation's own accuracy allows, in the output's unit.
        rounding: The same for rounding, in machine epsilons of the run's precision times the output's unit.
    """

    output: str
    sentence: str
    _: KW_ONLY
    twins: Mapping[str, Prediction | str] = field(default_factory=dict)
    where: Callable[[Cells, Mapping], np.ndarray] = everywhere
    floor: float = 0.0
    rounding: float = 0.0

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Mean(Claim):
    """The Monte-Carlo mean equals the theory."""


@dataclass(frozen=True)
class Pathwise(Claim):
    """Every draw equals the theory, to `tolerance` times the size of the output's terms."""

    _: KW_ONLY
    tolerance: float


@dataclass(frozen=True)
class Bound(Claim):
    """No draw exceeds `upper` in absolute value; every twin does."""

    _: KW_ONLY
    upper: float


@dataclass(frozen=True)
class Phase(Claim):
    """The mean has the theory's sign in at least `share` of the cells that are two standard errors from zero."""

    _: KW_ONLY
    share: float = 0.98


@dataclass(frozen=True)
class Rank(Claim):
    """The cells stand in the theory's order: Spearman's rank correlation of a draw and the theory exceeds `least`.

    For a theory that orders the cells without giving their values. Twins are other scores, whose rank correlation with
    the same draws must be lower.
    """

    _: KW_ONLY
    least: float = 0.0


@dataclass(frozen=True)
class Order(Claim):
    """The discrepancy vanishes as `setting` ** `order` along a ladder of its values.

    `axes`, `settings` and `replicates` are those of the ladder's own small runs. The orders one above and one below
    are twins by nature.
    """

    _: KW_ONLY
    setting: str
    values: tuple[float, ...]
    order: float
    replicates: int
    axes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One closed form and the simulation of the same system.

    Args:
        name: The experiment's name within its topic.
        title: A human title.
        sources: BibTeX entries.
        axes: The theory's parameters that are swept.
        fixed: The theory's other parameters; each can be set or swept as well.
        settings: The numbers of the simulation that a person may change.
        sizes: `sizes(settings)` -> the static shapes and choices (hashable).
        theory_sizes: `theory_sizes(sizes)` -> those of them that the closed forms depend on: the rungs of a ladder in
            any other size then share one compiled theory.
        simulate: `simulate(key, cells, settings, sizes)` -> {output: array of shape (cells, inner dims)}: one replicate
            over a block of cells, jittable. Numeric settings arrive traced. A cell's value must not depend on which
            other cells are in the block. It may return `status`, `<output>_theory` (a prediction that depends on
            the very draw) and the arrays that twins name.
        predict: `predict(cells, settings, sizes)` -> {output: array}: the closed form; broadcasts.
        outputs: What they return.
        claims: What the outputs are held to.
        presets: "smoke", "laptop", "paper": overrides of axes, fixed, settings, `replicates` and `ladders`.
        batched: False for host loops: `simulate` is then called cell by cell, outside jit, with scalars.
        block: The most cells in one block; bounds the memory.
        validate: `validate(values, settings)` raises ValueError where parameters and settings do not fit together.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    axes: Mapping[str, Parameter]
    simulate: Callable[..., Mapping[str, Array]]
    predict: Callable[..., Mapping[str, Array]]
    outputs: Mapping[str, Output]
    claims: tuple[Claim, ...]
    presets: Mapping[str, Mapping[str, Any]]
    fixed: Mapping[str, Parameter] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    sizes: Callable[[Mapping], Hashable] = lambda settings: ()
    theory_sizes: Callable[[Hashable], Hashable] = lambda sizes: sizes
    batched: bool = True
    block: int = 1024
    validate: Callable[[Mapping, Mapping], None] | None = None

    def role(self, name: str) -> str:
        """What the simulation gets of a parameter; a fixed one is shared by its block unless it is static."""
        parameter = self.parameters[name]
        return "shared" if name in self.fixed and parameter.role == "cell" else parameter.role

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Axes and fixed parameters, in the order that identifies a cell."""
        return {**self.axes, **self.fixed}


@dataclass(frozen=True)
class Job:
    """An experiment with every number decided: what `run` executes."""

    experiment: Experiment
    values: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]
    replicates: int
    seed: int = 0
    precision: int = 64
    preset: str = ""
    ladders: bool = True


def configure(
    experiment: Experiment,
    preset: str = "laptop",
    overrides: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    precision: int = 64,
) -> Job:
    """The job that a preset and a person's overrides (axes, fixed, settings, `replicates`) make of an experiment.

    Raises: ValueError, one sentence naming the argument and the value, for anything that cannot be run.
    """
    if preset not in experiment.presets:
        raise ValueError(f"`preset` must be one of {', '.join(experiment.presets)}, but got {preset}.")
    wish = {**experiment.presets[preset], **(overrides or {})}
    unknown = set(wish) - {*experiment.parameters, *experiment.settings, "replicates", "ladders"}
    if unknown:
        raise ValueError(f"`{min(unknown)}` is no parameter or setting of {experiment.name}.")

    settings = {name: wish.get(name, s.value) for name, s in experiment.settings.items()}
    for name, setting in experiment.settings.items():
        if setting.choices:
            if settings[name] not in setting.choices:
                raise ValueError(f"`{name}` must be one of {', '.join(setting.choices)}, but got {settings[name]}.")
        else:
            require(setting.domain.holds(np.asarray(settings[name])), name, setting.domain.words, settings[name])
            settings[name] = type(setting.value)(settings[name])

    values = {}
    for name, parameter in experiment.parameters.items():
        wished = np.atleast_1d(np.asarray(wish.get(name, parameter.values), float))
        if not wished.size:
            raise ValueError(f"`{name}` must have at least one value, but got none.")
        require(parameter.domain.holds(wished), name, parameter.domain.words, wished)
        values[name] = np.unique(parameter.snap(wished, settings) if parameter.snap else wished)
    if experiment.validate:
        experiment.validate(values, settings)

    replicates = wish.get("replicates", 20)
    require(replicates >= 1 and replicates % 1 == 0, "replicates", whole(1).words, replicates)
    require(seed >= 0 and seed % 1 == 0, "seed", whole(0).words, seed)
    require(precision in (32, 64), "precision", "32 or 64", precision)
    return Job(experiment, values, settings, int(replicates), seed, precision, preset, wish.get("ladders", True))


def in_columns(cells: Cells) -> dict[str, Array]:
    """Every parameter with one value a cell, shape (cells,), the shared ones too."""
    size = max(jnp.size(v) for v in cells.values())
    return {name: jnp.broadcast_to(v, (size,)) for name, v in cells.items()}


def per_cell(one: Callable[..., Mapping[str, Array]], one_by_one: bool = False) -> Callable[..., Mapping[str, Array]]:
    """Lift `one(key, cell, settings, sizes)` to a block of cells.

    Each cell's key is folded from the bits of its parameters, so that a cell draws the same numbers in every block
    and every grid. `one_by_one` where long sums side by side would have a last bit that depends on their number.
    """

    def simulate(key, cells, settings, sizes):
        columns = in_columns(cells)

        def cell(values):
            k = key
            for name in sorted(values):
                bits = jax.lax.bitcast_convert_type(values[name].astype(jnp.float32), jnp.uint32)
                k = jax.random.fold_in(k, bits)
            return one(k, values, settings, sizes)

        return jax.lax.map(cell, columns) if one_by_one else jax.vmap(cell)(columns)

    return simulate


def cell_by_cell(one: Callable, cells, together: int = 1):
    """`one` of every cell, so many side by side; the others follow, each with bits that do not depend on how many.

    Args:
        one: From a pytree of leaves of shape (cells,) to a pytree of leaves of shape (cells, ...).
        cells: The numbers of all cells.
        together: One on a CPU, where products over many cells have a last bit that depends on their number; many on a
            GPU. Cells side by side share what `one` draws.
    """

    def lifted(cell):
        return jax.tree.map(lambda x: x[0], one(jax.tree.map(lambda x: x[None], cell)))

    return jax.lax.map(lifted, cells, batch_size=together if together > 1 else None)


def by_sizes(experiment: Experiment, cells: Cells, settings: Mapping) -> Iterator[tuple[np.ndarray, dict, Hashable]]:
    """(rows, settings with the static parameters, sizes) of the cells that share one compilation; columns are flat."""
    static = [name for name in experiment.parameters if experiment.role(name) == "static"]
    columns = (
        np.stack([cells[name] for name in static]) if static else np.empty((0, np.size(next(iter(cells.values())))))
    )
    for value in np.unique(columns, axis=1).T if static else [()]:
        rows = np.flatnonzero((columns == np.reshape(value, (-1, 1))).all(axis=0))
        here = {**settings, **dict(zip(static, map(float, value), strict=True))}
        yield rows, here, experiment.sizes(here)


def traced(settings: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The numeric settings as scalars of JAX's default types."""
    numbers = {name: v for name, v in settings.items() if not isinstance(v, str)}
    return {name: jnp.asarray(v, jnp.int32 if isinstance(v, int) else float) for name, v in numbers.items()}


@functools.cache
def compiled(function: Callable) -> Callable:
    """The function jitted, its last argument (`sizes`) static; the same for every run."""
    return jax.jit(function, static_argnums=-1)


def evaluate(experiment: Experiment, formula: Callable, cells: Cells, settings: Mapping) -> dict[str, np.ndarray]:
    """A closed form (`predict`, or a twin of it) in every cell: {output: (cells, inner dims)}; a twin's is named ""."""
    count = np.size(next(iter(cells.values())))
    out: dict[str, np.ndarray] = {}
    for rows, here, sizes in by_sizes(experiment, cells, settings):
        # As in a simulation, two cells at least: XLA compiles a block of one another way, with another last bit.
        padded = np.resize(rows, max(len(rows), 2))
        columns = {name: jnp.asarray(v[padded], float) for name, v in cells.items()}
        values = compiled(formula)(columns, traced(here), experiment.theory_sizes(sizes))
        for name, value in (values if isinstance(values, Mapping) else {"": values}).items():
            inner = np.shape(value)[1:]
            full = np.broadcast_to(value, (len(padded), *inner))
            out.setdefault(name, np.full((count, *inner), np.nan))[rows] = full[: len(rows)]
    return out


def topics() -> list[str]:
    """The names that `theory` and `sims` share."""
    import sims
    import theory

    names = [{module.name for module in pkgutil.iter_modules(package.__path__)} for package in (theory, sims)]
    return sorted(set.intersection(*names))


def experiments(topic: str) -> dict[str, Experiment]:
    """The experiments of one topic, its main one first.

    Raises: ValueError if there is no such topic.
    """
    if topic not in topics():
        raise ValueError(f"`topic` must be one of {', '.join(topics())}, but got {topic}.")
    module = importlib.import_module(f"sims.{topic}")
    return {experiment.name: experiment for experiment in module.EXPERIMENTS}
