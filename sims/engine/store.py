"""The store: finished (cell, replicate) pairs in atomic parts, found again by what they are.

A part lies in `parts/<identity>/` and lists the cells and replicates it holds. The identity is a hash of the settings,
the seed, the precision and the simulation's own code: a changed simulation finds none of its old parts, an edited
comment finds all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile)


def identity(code: str, settings: Mapping, seed: int, precision: int) -> str:
    """The name under which results of this code with these numbers are kept."""
    text = json.dumps([code, sorted(settings.items()), seed, precision, jax.__version__])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def jaxpr_version(traced: ClosedJaxpr) -> str:
    """Hash of a traced simulation: its operations, and the bytes of every array it captured."""
    digest = hashlib.sha256()

    def visit(value):
        if isinstance(value, ClosedJaxpr | Jaxpr):
            for const in getattr(value, "consts", ()):
                digest.update(np.asarray(const).tobytes() if hasattr(const, "dtype") else repr(const).encode())
            for equation in value.eqns:
                visit(tuple(equation.params.values()))
        elif isinstance(value, tuple | list):
            for item in value:
                visit(item)

    digest.update(re.sub(r" at 0x[0-9a-f]+", "", str(traced)).encode())
    visit(traced)
    return digest.hexdigest()


def source_version(function: Callable) -> str:
    """Hash of the project sources that a host-loop simulation imports, the engine left out."""
    roots = ("theory", "sims", inspect.getmodule(function).__name__.split(".")[0])
    seen: dict[str, str] = {}

    def visit(name):
        if name in seen or name.split(".")[0] not in roots or name.startswith("sims.engine"):
            return
        module = importlib.import_module(name)
        seen[name] = inspect.getsource(module) if getattr(module, "__file__", None) else ""
        if hasattr(module, "__path__") and name not in ("theory", "sims"):
            for inner in pkgutil.iter_modules(module.__path__, name + "."):
                visit(inner.name)
        for value in vars(module).values():
            owner = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if isinstance(owner, str) and owner in sys.modules:
                visit(owner)

    visit(inspect.getmodule(function).__name__)
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


class Store:
    """The parts below one folder.

    Args:
        folder: Where `parts` lies; made when the first part is written.

    `unreadable` counts parts that were damaged and are redone; `foreign` those of another identity, left alone.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder) / "parts"
        self.unreadable = 0

    def foreign(self, identities: set[str]) -> int:
        """How many parts belong to other identities than these."""
        return sum(1 for part in self.folder.glob("*/*.npz") if part.parent.name not in identities)

    def load(self, identity: str) -> Iterator[dict[str, np.ndarray]]:
        """Every readable part of an identity. A damaged one is set aside as `.damaged` and counted."""
        for path in sorted((self.folder / identity).glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as part:
                    yield {name: part[name] for name in part.files}
            except READ_ERRORS:
                self.unreadable += 1
                with contextlib.suppress(OSError):
                    path.replace(path.with_suffix(".damaged"))

    def save(self, identity: str, part: Mapping[str, np.ndarray]) -> None:
        """Write one part under a temporary name, then rename it: a reader sees all of it or nothing."""
        folder = self.folder / identity
        folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        temporary = folder / f".{name}.tmp"
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **part)
            os.replace(temporary, folder / f"{name}.npz")
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self, identity: str) -> None:
        """Forget the parts of an identity, so that they are computed afresh."""
        for path in (self.folder / identity).glob("*.npz"):
            path.unlink(missing_ok=True)
