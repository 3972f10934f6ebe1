"""Square roots, decays and roots of equations whose values and gradients are safe at their edges."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def safe_sqrt(x: ArrayLike) -> Float[Array, "..."]:
    r"""Square root of the positive part, :math:`\sqrt{\max(x, 0)}`, with gradient 0 at and below 0.

    Args:
        x: Any number. Shape (...).

    Returns:
        The root. Shape (...).

    Valid: everywhere; the gradient at 0 is 0 instead of infinite.
    Source: derived here.
    Checked: values and gradients on both sides of 0.
    """
    x = jnp.asarray(x)
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def positive_root(linear: Float[Array, "..."], constant: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Root :math:`x \ge 0` of :math:`x^2 = a x + c`, free of cancellation for either sign of a.

    .. math:: x = \tfrac12\big[a + \sqrt{a^2 + 4c}\big] = \frac{2c}{\sqrt{a^2 + 4c} - a}

    Args:
        linear: The coefficient a, any sign. Shape (...).
        constant: The coefficient c, zero or positive. Shape (...).

    Returns:
        The root. Shape (...).

    Valid: every a and c >= 0; relative error of a few ulp.
    Source: the quadratic formula; its second form is used for a < 0.
    Checked: mpmath (1e-14 relative), float32, gradients on both sides of a = 0.
    """
    root = safe_sqrt(linear**2 + 4 * constant)
    denominator = root + jnp.abs(linear)
    denominator = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(linear >= 0, (linear + root) / 2, 2 * constant / denominator)


def newton(function, start: Float[Array, "..."], steps: int) -> Float[Array, "..."]:
    r"""Root of an elementwise function after a fixed number of Newton steps.

    The gradient is that of the implicit function theorem: the iterations are not differentiated,
    only one last step is, and it is exact at a root.

    .. math:: x \leftarrow x - f(x) / f'(x)

    Args:
        function: f, elementwise; it may close over traced parameters.
        start: First iterate, on the side where a convex or concave f converges monotonely.
        steps: Number of steps, fixed.

    Returns:
        The root. Shape of `start`.

    Valid: simple roots; derivatives of first order.
    Source: Newton's method; derived here.
    Checked: through the two fixed points that use it, with mpmath and finite differences.
    """

    def step(x):
        value, slope = jax.jvp(function, (x,), (jnp.ones_like(x),))
        return x - value / slope

    start = jax.lax.stop_gradient(start)
    root = jax.lax.fori_loop(0, steps, lambda _, x: jax.lax.stop_gradient(step(x)), start)
    return step(jax.lax.stop_gradient(root))


def increasing_root(function, low: Float[Array, "..."], high: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Root of an elementwise function that is negative just above `low` and positive just below `high`.

    By bisection; the gradient is that of the implicit function theorem.

    Args:
        function: f, elementwise; it may close over traced parameters.
        low: Lower end. Shape (...).
        high: Upper end. Shape (...).

    Returns:
        The root; `high` where f is negative throughout. Shape (...).

    Valid: one change of sign, derivatives of first order; f finite at the root.
    Source: bisection; derived here.
    Checked: through the formulas that use it.
    """
    low, high = jax.lax.stop_gradient((low, high))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = jax.lax.stop_gradient(function(middle)) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    root = sum(jax.lax.fori_loop(0, jnp.finfo(low.dtype).nmant + 8, halve, (low, high))) / 2
    value, slope = jax.jvp(function, (root,), (jnp.ones_like(root),))
    return root - (value - jax.lax.stop_gradient(value)) / jax.lax.stop_gradient(slope)


def mean_decay(x: Array) -> Array:
    r""":math:`(1 - e^{-x})/x` for x >= 0, with its slope at 0."""
    small = x < 0.02
    near = jnp.where(small, x, 0.0)
    series = jnp.ones_like(x)
    for order in range(8, 1, -1):
        series = 1 - near / order * series
    far = jnp.where(small, 1.0, x)
    return jnp.where(small, series, -jnp.expm1(-far) / far)
