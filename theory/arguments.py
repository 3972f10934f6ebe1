"""Arguments of a formula: one sentence when they are wrong, one dtype and one shape when right.

Checks look at concrete values only. A traced value (inside `jit`, `vmap`, `grad`) passes unchecked.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array


def require(ok: ArrayLike, name: str, requirement: str, value: ArrayLike) -> None:
    """One-sentence `ValueError` that names an argument and its first offending value.

    Args:
        ok: Where the requirement holds. Shape (...).
        name: The argument's name.
        requirement: What it must be, to follow the words "must be".
        value: The argument itself, broadcastable to the shape of `ok`.

    Raises: ValueError, "`gamma` must be positive, but got -0.2.", unless `ok` is true everywhere.
    """
    if traced(ok, value):
        return
    ok = np.asarray(ok)
    if not ok.all():
        offender = np.broadcast_to(np.asarray(value), ok.shape)[~ok].flat[0]
        raise ValueError(f"`{name}` must be {requirement}, but got {offender:.6g}.")


def traced(*values: ArrayLike) -> bool:
    """Whether any value is a tracer, whose numbers are not known yet."""
    return any(isinstance(value, jax.core.Tracer) for value in values)


def _require_each(condition, requirement: str, named: dict[str, ArrayLike]) -> None:
    for name, value in named.items():
        if not traced(value):
            require(condition(np.asarray(value)), name, requirement, value)


def positive(**named: ArrayLike) -> None:
    """Requirement that each argument is above zero; infinity is allowed, nan is not."""
    _require_each(lambda x: x > 0, "positive", named)


def nonnegative(**named: ArrayLike) -> None:
    """Requirement that each argument is zero or above; infinity is allowed, nan is not."""
    _require_each(lambda x: x >= 0, "zero or positive", named)


def finite(**named: ArrayLike) -> None:
    """Requirement that each argument is neither infinite nor nan."""
    _require_each(np.isfinite, "finite", named)


def below_one(**named: ArrayLike) -> None:
    """Requirement that each argument lies in [0, 1)."""
    _require_each(lambda x: (x >= 0) & (x < 1), "zero or positive, and below 1", named)


def angle(**named: ArrayLike) -> None:
    """Requirement that each argument lies in [0, pi], with room for pi rounded up in float32."""
    _require_each(lambda x: (x >= 0) & (x <= np.pi * (1 + 1e-6)), "between 0 and pi", named)


def integer(at_least: int, **named: ArrayLike) -> None:
    """Requirement that each argument is a whole number not below `at_least`."""
    requirement = f"a whole number not below {at_least}"
    _require_each(lambda x: (x >= at_least) & (x == np.floor(x)) & np.isfinite(x), requirement, named)


def number(**named: ArrayLike) -> None:
    """Requirement that each argument is a single number."""
    for name, value in named.items():
        if np.ndim(value):
            raise ValueError(f"`{name}` must be a number, but got shape {np.shape(value)}.")


def symmetric(**named: ArrayLike) -> None:
    """Requirement that each argument is a symmetric square matrix of finite numbers, up to rounding."""
    for name, value in named.items():
        shape = np.shape(value)
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise ValueError(f"`{name}` must be a square matrix, but got shape {shape}.")
        if traced(value):
            continue
        matrix = np.asarray(value)
        finite(**{name: matrix})
        skew = np.abs(matrix - matrix.T).max()
        if skew > _rounding(matrix):
            raise ValueError(f"`{name}` must be symmetric, but differs from its transpose by {skew:.6g}.")


def positive_semidefinite(**named: ArrayLike) -> None:
    """Requirement that each argument is a symmetric square matrix without negative eigenvalues, up to rounding."""
    symmetric(**named)
    for name, value in named.items():
        if not traced(value):
            matrix = np.asarray(value)
            least = np.linalg.eigvalsh(matrix).min()
            require(least >= -_rounding(matrix), name, "without negative eigenvalues", least)


def _rounding(matrix: np.ndarray) -> float:
    return 100 * len(matrix) * np.finfo(np.result_type(matrix, np.float32)).eps * np.abs(matrix).max()


def depth_of_network(depth: ArrayLike) -> None:
    """Requirement that `depth` counts layers: 1, 2, 3, ..., or infinity."""
    _require_each(
        lambda x: (x >= 1) & (x == np.floor(x)),
        "a whole number not below 1, or infinity",
        {"depth": depth},
    )


def together(*values: ArrayLike) -> tuple[Array, ...]:
    """Values as floating-point arrays of one dtype and one shape.

    Arrays of floating-point numbers decide the dtype (the widest); Python and NumPy scalars and
    integers follow them, and become JAX's default float where there is no such array.

    Args:
        values: Numbers or arrays whose shapes broadcast.

    Returns:
        As many arrays, broadcast against each other.

    Raises: ValueError if the shapes do not broadcast.
    """
    arrays = with_one_dtype(*values)
    shapes = [array.shape for array in arrays]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"The arguments' shapes do not broadcast: {shapes}.") from None
    return tuple(jnp.broadcast_to(array, shape) for array in arrays)


def with_one_dtype(*values: ArrayLike) -> tuple[Array, ...]:
    """Values as floating-point arrays of one dtype, chosen as in `together`, each of its own shape."""
    dtype = _common_dtype(values)
    return tuple(jnp.asarray(value, dtype=dtype) for value in values)


def _common_dtype(values) -> np.dtype:
    deciding = [
        value.dtype
        for value in values
        if isinstance(value, (np.ndarray, jax.Array))
        and not getattr(value, "weak_type", False)
        and jnp.issubdtype(value.dtype, jnp.floating)
    ]
    if not deciding:
        return jnp.result_type(float)
    return jax.dtypes.canonicalize_dtype(functools.reduce(np.promote_types, deciding))
