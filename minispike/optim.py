"""Optimizers and a schedule, from simple to complex. Optimizers change `Parameter.data` in place."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, inf, pi

from .backend import Array, asarray, get_device, get_xp, to_device, twin
from .nn import Module, Parameter


class SGD:
    """Stochastic gradient descent:        v = momentum·v + g        p −= lr·v"""

    numbers, averages = ("lr",), ("v",)  # what a step changes: single numbers, and arrays for each parameter

    def __init__(self, parameters: list[Parameter], lr: float = 0.1, momentum: float = 0.0):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        if not self.parameters:
            raise ValueError(f"{type(self).__name__} got no parameters")
        check_range("lr", lr, 0)
        check_range("momentum", momentum, 0, 1)
        self.v = [get_xp(p.data).zeros_like(p.data) for p in self.parameters]

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for p, v in zip(self.parameters, self.v, strict=True):
            if p.grad is not None:
                v *= self.momentum
                v += p.grad
                p.data -= self.lr * v

    def gather(self) -> Array:
        """Return all gradients in one flat array, 0 where a parameter has none."""
        xp = get_xp(self.parameters[0].data)
        each = (xp.zeros_like(p.data) if p.grad is None else p.grad for p in self.parameters)
        return xp.concatenate([g.reshape(-1) for g in each])

    def zero_grad(self) -> None:
        """Forget the gradients, before the next backward adds new ones."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Return {name: array} of all that the next step needs: "lr", "v.0", "v.1", …, not copied."""
        state = {name: asarray(getattr(self, name)) for name in self.numbers}
        return state | {f"{name}.{i}": a for name in self.averages for i, a in enumerate(getattr(self, name))}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Copy what `state_dict` gave into this optimizer. ValueError where names or shapes differ."""
        own = self.state_dict()
        odd = sorted(own.keys() ^ state.keys())[:5]
        odd = odd or [name for name in own if tuple(own[name].shape) != tuple(state[name].shape)][:5]
        if odd:
            raise ValueError(f"this is not the state of such an {type(self).__name__}: see {', '.join(odd)}")
        for name in self.numbers:
            setattr(self, name, asarray(state[name]).item())
        for name, array in own.items():
            if name not in self.numbers:
                array[...] = to_device(asarray(state[name]), get_device(array).name)


class AdamW(SGD):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in PyTorch's arithmetic:

    p −= lr·weight_decay·p                           only weights (p.ndim >= 2), not biases or batch norm
    m += (1 − β₁)(g − m)        v += (1 − β₂)(g² − v)
    p −= lr · m̂ / (√v̂ + eps)                                  m̂ = m/(1 − β₁ᵗ)        v̂ = v/(1 − β₂ᵗ)

    lr_scales: a factor on lr for each parameter, as `layer_scales` makes them for fine-tuning.

    Data, gradients, m and v of all parameters lie in four flat arrays, those with the same rate and decay
    next to each other, so that a step is a few operations on long arrays. `p.data` becomes a view of its
    part.
    """

    numbers, averages = ("lr", "t"), ("v", "m")

    def __init__(
        self,
        parameters: list[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        lr_scales: list[float] | None = None,
    ):
        super().__init__(parameters, lr)
        self.lr_scales = lr_scales or [1.0] * len(self.parameters)
        self.m = [get_xp(p.data).zeros_like(p.data) for p in self.parameters]
        self.betas, self.eps, self.weight_decay, self.t = betas, eps, weight_decay, 0
        for beta in betas:
            check_range("betas", beta, 0, 1)
        check_range("eps", eps, 0)
        check_range("weight_decay", weight_decay, 0)
        if len(self.lr_scales) != len(self.parameters):
            raise ValueError(f"{len(self.lr_scales)} lr_scales for {len(self.parameters)} parameters")
        self._lay_out()

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self.t += 1
        self.gather()
        beta1, beta2 = self.betas
        update = twin(adamw, self.flat[0])
        for at, scale, decays in self._runs():
            lr = self.lr * scale
            keep = 1 - lr * self.weight_decay if decays else 1.0
            rate, correction = lr / (1 - beta1**self.t), 1 - beta2**self.t
            update(*(each[at] for each in self.flat), keep, 1 - beta1, 1 - beta2, rate, correction, self.eps)

    def gather(self) -> Array:
        """Copy all gradients into one flat array, of which each `p.grad` becomes a view; return it."""
        if any(p.data.base is not self.flat[0] for p in self.parameters):
            self._lay_out()  # model.to() or another optimizer has given them other arrays
        gradients, xp = self.flat[1], get_xp(self.flat[1])
        found = {i: self.parameters[i].grad for i in self.places}
        if any(g is not None and g.base is not gradients for g in found.values()):
            none = [xp.zeros_like(self.parameters[i].data) if g is None else g for i, g in found.items()]
            xp.concatenate([g.reshape(-1) for g in none], out=gradients)
        for i, at in self.places.items():
            if found[i] is not None:
                self.parameters[i].grad = gradients[at].reshape(found[i].shape)
        return gradients

    def _lay_out(self) -> None:
        """Put data, gradients, m and v of all parameters into flat arrays: first what decays."""
        kinds = {(get_device(p.data).name, p.dtype.name) for p in self.parameters}
        if len(kinds) > 1:
            found = ", ".join(f"{dtype} on {device}" for device, dtype in sorted(kinds))
            raise ValueError(f"AdamW needs parameters of one dtype on one device, got {found}")
        first, total = self.parameters[0].data, sum(p.data.size for p in self.parameters)
        self.flat = [get_xp(first).empty(total, first.dtype) for _ in range(4)]
        data, _, flat_m, flat_v = self.flat
        self.places, start = {}, 0
        for i in sorted(range(len(self.parameters)), key=self._kind):
            p = self.parameters[i]
            self.places[i] = at = slice(start, start + p.data.size)
            start = at.stop
            m, v = (to_device(each[i], get_device(first).name) for each in (self.m, self.v))
            for flat, array in ((data, p.data), (flat_m, m), (flat_v, v)):
                flat[at] = array.reshape(-1)
            p.data, self.m[i], self.v[i] = (flat[at].reshape(p.shape) for flat in (data, flat_m, flat_v))

    def _kind(self, i: int) -> tuple[bool, float]:
        return self.parameters[i].ndim < 2, self.lr_scales[i]

    def _runs(self) -> Iterator[tuple[slice, float, bool]]:
        """Yield (place, lr scale, whether it decays) of neighbours of one kind that have gradients."""
        run, kind = None, None
        for i, at in self.places.items():
            if self.parameters[i].grad is None:
                continue
            if run and run.stop == at.start and kind == self._kind(i):
                run = slice(run.start, at.stop)
                continue
            if run:
                yield run, kind[1], not kind[0]
            run, kind = at, self._kind(i)
        if run:
            yield run, kind[1], not kind[0]


def adamw(p, g, m, v, keep, to_g, to_square, rate, correction, eps) -> None:
    """Move parameters p by their gradients g, in place; see AdamW. All arrays are flat.

    keep = 1 − lr·weight_decay    to_g = 1 − β₁    to_square = 1 − β₂    rate = lr/(1 − β₁ᵗ)
    correction = 1 − β₂ᵗ
    """
    p *= keep
    m += to_g * (g - m)
    v += to_square * (g * g - v)
    p -= rate * m / (get_xp(p).sqrt(v / correction) + eps)


def check_range(name: str, value: float, low: float, below: float = inf) -> None:
    """Raise ValueError unless low <= value < below."""
    if not low <= value < below:
        raise ValueError(f"{name} must lie in [{low}, {below}), got {value}")


def cosine_with_warmup(
    epoch: float, *, epochs: int, lr: float, min_lr: float = 0.0, warmup: int = 0, warmup_lr: float = 0.0
) -> float:
    """Return the learning rate at an epoch (0, 1, …; fractions allowed).

    epoch < warmup:  warmup_lr + (lr − warmup_lr)·epoch/warmup
    later:           min_lr + ½(lr − min_lr)(1 + cos(π·epoch/epochs)), at the absolute epoch
    """
    if epoch < warmup:
        return warmup_lr + (lr - warmup_lr) * epoch / warmup
    return min_lr + 0.5 * (lr - min_lr) * (1 + cos(pi * epoch / epochs))


def layer_scales(model: Module, decay: float = 0.75) -> list[float]:
    """Return a factor on the learning rate for each parameter of a model with stem, blocks and head.

    The factor is 1 for the head. Each layer closer to the image multiplies it by `decay`: last block, …,
    first block, stem. So fine-tuning changes early layers least (layer-wise decay, arXiv 2106.08254).
    """
    depth = len(model.blocks)
    steps_down = {"stem": depth + 1, "head": 0} | {f"blocks.{i}": depth - i for i in range(depth)}

    def layer(path: str) -> str:
        part, number, *_ = path.split(".")
        return f"{part}.{number}" if part == "blocks" else part

    return [decay ** steps_down[layer(path)] for path, _ in model.named_parameters()]
