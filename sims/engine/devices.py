"""Devices and precision: what JAX is told before its first computation, and which device does which work item."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any


def cores() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_environment(argv: list[str] | None = None) -> None:
    """Environment of the numerical libraries; to be called before numpy or jax is first imported.

    One BLAS thread, because parallelism comes from the cells, and a thread pool of twice the number of CPU devices,
    below which batched LAPACK calls from several devices can wait for each other for ever.
    """
    asked = [int(v) for f, v in zip(argv or [], (argv or [])[1:], strict=False) if f == "--devices" and v.isdigit()]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("NPROC", str(2 * max([cores(), *asked])))


def configure_jax(precision: int | None = None, devices: int | None = None, distributed: bool = False):
    """Configure JAX and return (precision, devices to work on).

    Args:
        precision: 32 or 64; None means 32 on a TPU and 64 elsewhere.
        devices: How many devices; None means all accelerators of this process, or one CPU device per core.
        distributed: Join the processes of `jax.distributed` first.

    Raises: ValueError if there are fewer devices than asked for.
    """
    import jax

    with contextlib.suppress(RuntimeError):  # JAX has begun already: its devices are what they are
        jax.config.update("jax_num_cpu_devices", devices or cores())
    if distributed:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize()
    platform = jax.default_backend()
    precision = precision or (32 if platform == "tpu" else 64)
    jax.config.update("jax_enable_x64", precision == 64)
    jax.config.update("jax_default_matmul_precision", "highest")
    local = jax.local_devices()
    if devices and devices > len(local):
        raise ValueError(f"`devices` must be at most the {len(local)} of {platform}, but got {devices}.")
    return precision, local[:devices]


def scatter(items: Iterable[Any], work: Callable[[Any], Any], devices: list) -> Iterator[tuple[Any, Any]]:
    """(item, work(item)) as they finish. Each device takes whole items from one list, one host thread a device.

    An exception in `work` is raised here; no further item is begun then.
    """
    import jax

    free: queue.SimpleQueue = queue.SimpleQueue()
    for device in devices:
        free.put(device)

    def on_free_device(item):
        device = free.get()
        try:
            with jax.default_device(device):
                return item, work(item)
        finally:
            free.put(device)

    pool = ThreadPoolExecutor(len(devices))
    try:
        for future in as_completed([pool.submit(on_free_device, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
