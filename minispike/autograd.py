"""Reverse-mode automatic differentiation: a Tensor remembers what made it, and backward walks back.

    y = f(x)        loss = L(y)        ∂L/∂x = f'(x)ᵀ · ∂L/∂y        in code: gx = f.backward(gy)

A Function is a small class whose instance is the context: `forward` keeps on `self` what `backward` will
need, and nothing else. A graph holds Functions, not their inputs' data, so an activation that no backward
needs is freed as soon as forward is done with it.

In this file: Tensor and Function; `backward`; `trace`, the one way to look inside a running model.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .backend import Array, asarray, get_device, twin

# ---------------------------------------------------------------- Tensor


class Tensor:
    """An array that can be differentiated: `data`, its gradient `grad` (a plain array), and its `creator`.

    data: array of float32 or float64 (a list or number becomes a NumPy array), on any device; not copied.
    Raises TypeError for any other dtype: integers have no gradient, and a silent cast could hide a mistake.
    """

    __slots__ = ("data", "grad", "requires_grad", "creator", "__weakref__")
    __array_ufunc__ = None  # so that `array + tensor` comes to Tensor.__radd__

    def __init__(self, data, requires_grad: bool = False):
        self.data: Array = asarray(data)
        if self.data.dtype.name not in ("float32", "float64"):
            raise TypeError(
                f"{where()}a Tensor holds float32 or float64, got {self.data.dtype} of shape "
                f"{list(self.data.shape)}; convert it first, for example x.astype('float32')"
            )
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.creator: Function | None = None

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        made_by = f", made by {self.creator.name}" if self.creator else ""
        return f"Tensor({self.data}{made_by})"

    def __bool__(self) -> bool:
        raise TypeError("a Tensor is neither true nor false: compare its .data, or its .item()")

    def __array__(self, *_, **__):
        raise TypeError("a Tensor does not turn into an array by itself: use .data (and to_host for a GPU's)")

    def item(self) -> float:
        """Return a one-element tensor's value as a Python float."""
        return float(self.data.item())

    def detach(self) -> Tensor:
        """Return the same data as a constant: no gradient flows through it."""
        return Tensor(self.data)

    def backward(self, gy: Array | None = None) -> None:
        """Add ∂self/∂leaf to the `.grad` of every leaf that requires a gradient, then free the graph.

        gy: the gradient that arrives at this tensor, in its shape and dtype; for a scalar the default is 1.
        """
        if not self.requires_grad:
            raise RuntimeError("backward on a tensor that requires no gradient")
        if gy is None:
            if self.data.size != 1:
                raise ValueError(f"backward on shape {list(self.shape)} needs a gradient gy of that shape")
            gy = get_device(self.data).xp.ones_like(self.data)
        if gy.shape != self.shape or gy.dtype != self.dtype:
            raise ValueError(f"backward expected gy {_describe(self.data)}, got {_describe(gy)}")
        if self.creator is None:
            self.grad = gy.copy() if self.grad is None else self.grad + gy
        else:
            _backward(self.creator, gy)


def as_tensor(x) -> Tensor:
    """Return x if it is a Tensor, else a constant Tensor of it."""
    return x if isinstance(x, Tensor) else Tensor(x)


# ---------------------------------------------------------------- Function


class Function:
    """One differentiable operation. Subclasses write two methods over plain arrays:

        forward(self, *arrays, **constants) -> y     keeps what backward needs as attributes of self
        backward(self, gy) -> gx or (gx, …)          one gradient per input, in that input's shape

    `self.xp` is the inputs' array module, `self.constants` the given keywords. `self.needs[i]` says whether
    input i needs a gradient. If it does not, backward may return None for it, and forward need not keep what
    only that gradient would use. An input may also be a Python number, which is a constant.

    A subclass of an op is a *twin*, a faster form of it: it overrides forward and backward, and keeps the
    op's name. `apply` runs the twin that the arrays' device has (backend.twin), if the twin takes these
    inputs; called alone, a Function is the form that one reads.
    """

    name = "Function"  # what reports and messages call it
    xp = None
    needs: tuple[bool, ...] = (True,) * 8  # when called alone, as in a test: all
    number = -1  # its place in the order in which functions were applied
    constants: dict = {}
    sources: tuple | None = None  # for each input: the Function that made it, a leaf Tensor, or None

    def __init_subclass__(cls) -> None:
        if Function in cls.__bases__:
            cls.name = cls.__name__

    @staticmethod
    def takes(*arrays, **constants) -> bool:
        """Return whether this form of an op is for these inputs. If not, the form above it is asked."""
        return True

    @classmethod
    def apply(cls, *inputs, **constants) -> Tensor:
        """Run forward on the inputs' arrays; if any input needs a gradient, record the step in the graph."""
        inputs = tuple(float(x) if isinstance(x, (int, float)) else as_tensor(x) for x in inputs)
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if not tensors:
            raise ValueError(f"{where()}{cls.name} needs at least one Tensor or array")
        xp = _common_xp(cls.name, tensors)
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        form = twin(cls, tensors[0].data)
        while not form.takes(*arrays, **constants):
            form = form.__base__
        function = form()
        function.xp = xp
        recording = _grad_enabled.get()
        function.needs = tuple(recording and isinstance(x, Tensor) and x.requires_grad for x in inputs)
        function.constants = constants
        y = Tensor(function.forward(*arrays, **constants))
        if any(function.needs):
            function.number = next(_counter)
            function.sources = tuple(
                (x.creator or x, x.shape, x.dtype) if need else None
                for x, need in zip(inputs, function.needs, strict=True)
            )
            y.creator, y.requires_grad = function, True
        for callback in _callbacks.get():
            callback(function, inputs, y, module_path())
        return y


_counter = itertools.count()


def _common_xp(name: str, tensors: list[Tensor]):
    first = tensors[0].data
    device = get_device(first)
    for x in tensors[1:]:
        if get_device(x.data) is not device or x.data.dtype != first.dtype:
            raise TypeError(
                f"{where()}{name} got {_describe(first)} together with {_describe(x.data)}: "
                "move or convert one of them"
            )
    return device.xp


def _describe(x: Array) -> str:
    return f"{x.dtype}{list(x.shape)} on {get_device(x).name}"


def unbroadcast(gx: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its input was broadcast: the adjoint of broadcasting."""
    if gx.shape == shape:
        return gx
    new = gx.ndim - len(shape)
    axes = (*range(new), *(new + i for i, n in enumerate(shape) if n == 1 < gx.shape[new + i]))
    return (gx.sum(axes) if axes else gx).reshape(shape)


# ---------------------------------------------------------------- backward


def _backward(last: Function, gy: Array) -> None:
    """Visit the ancestors of `last` from newest to oldest: at each one, all its gradients have arrived.

    Functions are numbered as they are made, so a heap gives the order without recursion. Gradients are added
    into a new array, never into one that another op may hold.
    """
    heap, pending = [(-_kept(last).number, last)], {last: gy}
    while heap:
        _, function = heapq.heappop(heap)
        arrived = pending.pop(function)
        gxs = function.backward(arrived)
        sources, name = function.sources, function.name
        function.__dict__.clear()  # what it kept for backward is freed here
        for source, gx in zip(sources, gxs if isinstance(gxs, tuple) else (gxs,), strict=True):
            if source is None:
                continue
            origin, shape, dtype = source
            if gx.shape != shape or gx.dtype != dtype:
                raise ValueError(
                    f"{name}.backward returned {_describe(gx)} for an input of {dtype}{list(shape)}: "
                    "a gradient has its input's shape and dtype"
                )
            if isinstance(origin, Tensor):
                origin.grad = _owned(gx, arrived) if origin.grad is None else origin.grad + gx
            elif origin in pending:
                pending[origin] = pending[origin] + gx
            else:
                pending[origin] = gx
                heapq.heappush(heap, (-_kept(origin).number, origin))


def _kept(function: Function) -> Function:
    """Return the function. RuntimeError if an earlier backward has freed what it kept."""
    if function.sources is None:
        raise RuntimeError(f"backward met {function.name} twice: its arrays were freed the first time")
    return function


def _owned(gx: Array, arrived: Array) -> Array:
    """Return gx as an array of the leaf's own: copy a view, and what an op only passed on (Add)."""
    return gx.copy() if gx.base is not None or gx is arrived else gx


_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside the block: functions keep nothing for backward."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


def is_grad_enabled() -> bool:
    """Return whether operations are being recorded for backward."""
    return _grad_enabled.get()


# ---------------------------------------------------------------- looking inside

_callbacks: ContextVar[tuple[Callable, ...]] = ContextVar("callbacks", default=())
_modules: ContextVar[tuple] = ContextVar("modules", default=())
_paths: ContextVar[dict | None] = ContextVar("paths", default=None)  # of modules, within a trace


@contextmanager
def trace(callback: Callable) -> Iterator[None]:
    """Report every Function.apply inside the block: callback(function, inputs, output, path).

    inputs, output: Tensors (or Python numbers).    path: the running module's place in the model, for example
    "blocks.0.mixer.q.map". Works under no_grad too. Blocks may be nested: each callback sees every call.
    """
    callbacks, paths = _callbacks.set((*_callbacks.get(), callback)), _paths.set({})
    try:
        yield
    finally:
        _callbacks.reset(callbacks)
        _paths.reset(paths)


@contextmanager
def running(module) -> Iterator[None]:
    """Note inside the block that `module` is running, for traces and error messages."""
    token = _modules.set((*_modules.get(), module))
    try:
        yield
    finally:
        _modules.reset(token)


def module_path() -> str:
    """Return the running module's path inside the outermost one, or "" if none is running."""
    stack, paths = _modules.get(), _paths.get()
    if not stack:
        return ""
    known = {} if paths is None else paths.setdefault(stack[0], {})
    if stack[-1] not in known:
        known.update(reversed([(module, path) for path, module in stack[0].named_modules()]))
    return known.get(stack[-1], type(stack[-1]).__name__)


def where() -> str:
    """Return "path (Class): " of the running module, or "" if none is running, to begin an error message."""
    if not _modules.get():
        return ""
    path, name = module_path(), type(_modules.get()[-1]).__name__
    return f"{path} ({name}): " if path else f"{name}: "
