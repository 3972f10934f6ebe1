"""CPU time of a jitted function, for ratios within one run: the machine's clock is of no use on a busy one."""

import time

import jax
import numpy as np


def cpu_ms(function, *arguments, repeats=7):
    """Median CPU milliseconds of all threads, compilation left out."""
    function = jax.jit(function)
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(function(*arguments))
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times))
