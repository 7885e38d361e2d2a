"""Two ways to check a backward: against finite differences, and against another implementation.

A gradient g is right if, for any direction v, the directional derivative is their inner product:

    [ f(x + εv) − f(x − εv) ] / 2ε  =  ⟨g, v⟩        up to ε² and rounding

One random direction tests all components at once: a wrong component goes unnoticed with probability zero.

How closely the two sides can agree: f, contracted to S = Σ f·gy, is rounded by about 2⁻⁵² Σ|f·gy| on either
side. The division by 2ε makes that 2⁻⁵² Σ|f·gy| / ε at worst, times the number of roundings in a row. So if S
is of order one, an error of 1e-7 in a derivative of 1e-3 is found.
"""

from __future__ import annotations

from collections.abc import Callable

from .autograd import Tensor
from .backend import get_device, get_xp, make_rng, to_device, to_host
from .nn import Parameter

ROUNDINGS = 64  # allowed; through whole models up to 22 occurred


def check_grads(
    f: Callable[..., Tensor], *inputs, eps: float = 1e-6, tol: float = 1e-6, seed: int = 0
) -> None:
    """Compare f's gradients with central finite differences along a random unit direction for each input.

    inputs: float64 arrays, which f receives as Tensors in this order, and Parameters, which f already knows:
    they are perturbed in place and restored. f's output, of any shape, is contracted with a fixed random
    array. Each input has a direction of its own, so that a bias of eight values counts as much as a weight of
    thousands.
    Raises AssertionError, with both numbers, if they differ by more than tol times the larger one, and by
    more than rounding explains: ROUNDINGS times the estimate above, or tol if that is less. The error of
    order ε² is removed first where needed (Richardson extrapolation), so that x³ has slope 0 at 0.
    """
    rng = make_rng(seed)
    tensors, parameters = _split(inputs)
    y = f(*tensors)
    gy = _random_like(rng, y.data)
    for leaf in tensors + parameters:
        if leaf.dtype != "float64":
            raise TypeError(
                f"check_grads needs float64, got {leaf.dtype}: float32 has too few digits for differences"
            )
        leaf.grad = None
    y.backward(gy)
    leaves = tensors + parameters
    grads = [get_xp(leaf.data).zeros_like(leaf.data) if leaf.grad is None else leaf.grad for leaf in leaves]
    for i, (leaf, g) in enumerate(zip(leaves, grads, strict=True)):
        v = _random_like(rng, leaf.data)
        v /= float((v * v).sum()) ** 0.5
        exact = float((g * v).sum())
        numeric, noise = _slope(f, tensors, leaf, v, gy, eps)
        bound = max(tol * max(abs(numeric), abs(exact)), min(tol, noise))
        if not abs(numeric - exact) <= bound:  # perhaps of order ε²: Richardson's step removes that
            numeric = (4 * numeric - _slope(f, tensors, leaf, v, gy, 2 * eps)[0]) / 3
        if not abs(numeric - exact) <= bound:
            raise AssertionError(
                f"input {i} {list(leaf.shape)}: finite difference {numeric:.9g}, backward {exact:.9g}, "
                f"apart by {abs(numeric - exact):.2e} > {bound:.2e}"
            )


def _slope(f, tensors: list[Tensor], leaf: Tensor, v, gy, eps: float) -> tuple[float, float]:
    """Return the central difference of Σ f·gy as leaf moves by ±eps·v, and how far rounding may change it."""
    centre, ends = leaf.data.copy(), []
    try:
        for step in (eps, -eps):
            leaf.data[...] = centre + step * v
            terms = f(*tensors).data * gy
            ends.append(float(terms.sum()))
    finally:
        leaf.data[...] = centre
    return (ends[0] - ends[1]) / (2 * eps), ROUNDINGS * 2**-52 * float(abs(terms).sum()) / eps


def compare(
    f: Callable[..., Tensor], g: Callable[..., Tensor], *inputs, tol: float = 1e-12, seed: int = 0
) -> None:
    """Assert that f and g agree in value and in every gradient, to tol · max(1, largest magnitude).

    inputs: as for check_grads. f and g are two forms of one function, for example fast and plain.
    """
    results = []
    for function in (f, g):
        tensors, parameters = _split(inputs)
        for leaf in parameters:
            leaf.grad = None
        y = function(*tensors)
        y.backward(_random_like(make_rng(seed), y.data))
        results.append(
            [("value", y.data)] + [(f"gradient {i}", x.grad) for i, x in enumerate(tensors + parameters)]
        )
    for (name, a), (_, b) in zip(*results, strict=True):
        if (a is None) != (b is None) or (a is not None and a.shape != b.shape):
            raise AssertionError(
                f"{name}: one is {getattr(a, 'shape', None)}, the other {getattr(b, 'shape', None)}"
            )
        if a is not None:
            difference, size = float(abs(a - b).max()), max(1.0, float(abs(b).max()))
            if not difference <= tol * size:
                raise AssertionError(f"{name} differs by {difference:.3e}, more than {tol:g} · {size:.3g}")


def _split(inputs) -> tuple[list[Tensor], list[Parameter]]:
    tensors = [Tensor(x.copy(), requires_grad=True) for x in inputs if not isinstance(x, Parameter)]
    return tensors, [x for x in inputs if isinstance(x, Parameter)]


def _random_like(rng, x):
    return to_device(rng.standard_normal(to_host(x).shape).astype(to_host(x).dtype), get_device(x).name)
