"""Operations that move or sum values; each one's gradient moves them back: its transpose."""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, unbroadcast, where
from ..backend import Array, get_xp

# ---------------------------------------------------------------- move


class Reshape(Function):
    """y = x in another shape        gx = gy in x's shape"""

    def forward(self, x, shape):
        self.shape = x.shape
        return x.reshape(shape)

    def backward(self, gy):
        return gy.reshape(self.shape)


class Transpose(Function):
    """y = x with its axes permuted        gx = gy with the inverse permutation"""

    def forward(self, x, axes):
        self.inverse = tuple(sorted(range(len(axes)), key=axes.__getitem__))
        return x.transpose(axes)

    def backward(self, gy):
        return gy.transpose(self.inverse)


class BroadcastTo(Function):
    """y = x repeated along new or length-1 axes (a view)        gx = gy summed over them"""

    def forward(self, x, shape):
        self.shape = x.shape
        return self.xp.broadcast_to(x, shape)

    def backward(self, gy):
        return unbroadcast(gy, self.shape)


class GetItem(Function):
    """y = x[index]        gx = 0, with gx[index] = gy        (ints and slices: no element twice)"""

    def forward(self, x, index):
        self.shape, self.index = x.shape, index
        return x[index]

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        gx[self.index] = gy
        return gx


class Take(Function):
    """y = x[:, rows]        gx = 0, with gx[:, rows] = gy        (no row twice)"""

    def forward(self, x, rows):
        if any_twice(rows % x.shape[1]):
            raise ValueError(
                f"{where()}take needs {len(rows)} different rows of {x.shape[1]}, one came twice"
            )
        self.shape, self.rows = x.shape, self.xp.asarray(rows)
        return x[:, self.rows]

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        gx[:, self.rows] = gy
        return gx


class Put(Function):
    """y = 0, with y[:, rows] = x        gx = gy[:, rows]        (the transpose of Take)"""

    def forward(self, x, rows, n):
        if any_twice(rows % n):
            raise ValueError(f"{where()}put needs {len(rows)} different places of {n}, one came twice")
        self.rows = self.xp.asarray(rows)
        y = self.xp.zeros((x.shape[0], n, *x.shape[2:]), x.dtype)
        y[:, self.rows] = x
        return y

    def backward(self, gy):
        return gy[:, self.rows]


def any_twice(rows: Array) -> bool:
    """Return whether a number from 0 on comes twice."""
    return bool(get_xp(rows).bincount(rows, minlength=1).max() > 1)


class Stack(Function):
    """y = inputs side by side along a new axis        gxᵢ = gy[i] along it"""

    def forward(self, *xs, axis):
        self.axis = axis
        return self.xp.stack(xs, axis)

    def backward(self, gy):
        return tuple(self.xp.moveaxis(gy, self.axis, 0))


def reshape(x, shape: tuple[int, ...]) -> Tensor:
    """Return x in another shape; one entry may be −1."""
    return Reshape.apply(x, shape=shape)


def transpose(x, axes: tuple[int, ...]) -> Tensor:
    """Return x with its axes permuted: y's axis i is x's axis axes[i]. All axes are named."""
    if sorted(axes) != list(range(len(x.shape))):
        raise ValueError(f"{where()}transpose of {list(x.shape)} needs each axis once, got {axes}")
    return Transpose.apply(x, axes=tuple(axes))


def broadcast_to(x, shape: tuple[int, ...]) -> Tensor:
    """Return x repeated to `shape`, without copying."""
    return BroadcastTo.apply(x, shape=tuple(shape))


def getitem(x, index) -> Tensor:
    """Return x[index] for an index of ints, slices, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    simple = all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)
    if not simple:
        raise ValueError(f"{where()}a Tensor is indexed by ints and slices, got {index!r}")
    return GetItem.apply(x, index=index)


def take(x, rows) -> Tensor:
    """Return some rows of x [T, n, ...]: rows [m], different integers, the same at every t -> [T, m, ...].

    rows: on the host, or where x is.
    Raises ValueError if a row is named twice: its gradient would be that of one of the two alone.
    """
    return Take.apply(x, rows=rows)


def put(x, rows, n: int) -> Tensor:
    """Lay rows x [T, m, ...] into zeros [T, n, ...] at the places that `take` would take them from.

    Raises ValueError if a place is named twice: the last row would win, and both would get its gradient.
    """
    return Put.apply(x, rows=rows, n=n)


def stack(xs, axis: int = 0) -> Tensor:
    """Return tensors of one shape stacked along a new axis."""
    return Stack.apply(*xs, axis=axis)


# ---------------------------------------------------------------- sum


class Sum(Function):
    """y = Σ x over some axes        gx = gy repeated over them"""

    def forward(self, x, axis, keepdims):
        self.shape = x.shape
        self.kept = tuple(1 if i in axis else n for i, n in enumerate(x.shape))
        return x.sum(axis, keepdims=keepdims)

    def backward(self, gy):
        return self.xp.broadcast_to(gy.reshape(self.kept), self.shape)


def sum(x, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Return the sum over one axis, several, or (None) all of them."""
    return Sum.apply(x, axis=_axes(x, axis), keepdims=keepdims)


def mean(x, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """Return the mean over one axis, several, or (None) all of them."""
    return sum(x, axis, keepdims) * (1 / prod(x.shape[i] for i in _axes(x, axis)))


def _axes(x, axis) -> tuple[int, ...]:
    ndim = len(x.shape)
    axes = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if not all(-ndim <= i < ndim for i in axes):
        raise ValueError(f"{where()}axis {axis} is outside an array of shape {list(x.shape)}")
    return tuple(i % ndim for i in axes)
