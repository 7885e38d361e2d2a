"""Modules: things with parameters. And the one brick of all four papers, `Spiking`.

A module's parameters are found by walking its attributes in the order in which they were set. A list of
modules counts as attributes 0, 1, …; a plain array is a buffer (saved and moved, not trained). Layers draw
their weights in float64 from the generator they are given; `.to(dtype="float32")`, which create_model calls,
makes them fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod, sqrt

from . import backend
from .autograd import Tensor, running, where
from .fused import norm_lif
from .neuron import Neuron, lif
from .ops import batch_norm, broadcast_to, conv2d, depthwise_conv2d, linear, relu

# ---------------------------------------------------------------- Module


@contextmanager
def mode(module: Module, training: bool) -> Iterator[None]:
    """Put the module in training or eval mode inside the block; afterwards it is as it was before."""
    before = [(each, each.training) for _, each in module.named_modules()]
    module.train(training)
    try:
        yield
    finally:
        for each, was in before:
            each.training = was


class Parameter(Tensor):
    """A Tensor that is trained. Its `.data` may be written in place between backward and the next forward."""

    __slots__ = ()

    def __init__(self, data):
        super().__init__(data, requires_grad=True)


class Module:
    """A function with parameters: subclasses set attributes in __init__ and define forward."""

    training = True

    def __call__(self, *args, **kwargs):
        with running(self):
            return self.forward(*args, **kwargs)

    def named_modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module (path "") and everything inside it, in order of definition."""
        yield path, self
        for name, value in vars(self).items():
            inside = value if isinstance(value, list) else [value]
            for i, child in enumerate(inside):
                if isinstance(child, Module):
                    place = f"{name}.{i}" if isinstance(value, list) else name
                    yield from child.named_modules(f"{path}.{place}" if path else place)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (path, parameter) in order of definition."""
        return ((path, value) for path, _, _, value in self._arrays() if isinstance(value, Parameter))

    def parameters(self) -> list[Parameter]:
        """Return all parameters, in order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def num_params(self) -> int:
        """Return the number of trained values."""
        return sum(prod(p.shape) for p in self.parameters())

    def train(self, training: bool = True) -> Module:
        """Make batch norm use the batch's own statistics (with False: the running ones); return self."""
        for _, module in self.named_modules():
            module.training = training
        return self

    def eval(self) -> Module:
        """Make batch norm use its running statistics, so that no sample depends on another; return self."""
        return self.train(False)

    def to(self, device: str | None = None, dtype: str | None = None) -> Module:
        """Move to "cpu" or "cuda", convert to "float32" or "float64"; return self. Gradients are dropped.

        Make the optimizer afterwards, because it keeps its averages where the parameters are.
        """
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
        for _, module, name, value in list(self._arrays()):
            array = value.data if isinstance(value, Parameter) else value
            array = backend.to_device(array, device) if device else array
            array = array.astype(dtype) if dtype and array.dtype != dtype else array
            if isinstance(value, Parameter):
                value.data, value.grad = array, None
            else:
                setattr(module, name, array)
        return self

    def state_dict(self) -> dict[str, backend.Array]:
        """Return {path: array} of every parameter and buffer: the arrays themselves, not copies."""
        return {path: v.data if isinstance(v, Parameter) else v for path, _, _, v in self._arrays()}

    def load_state_dict(self, state: dict[str, backend.Array]) -> None:
        """Copy arrays into the parameters and buffers, in place, converted to this model's dtype and device.

        Raises ValueError, before anything is written, that names every missing, unexpected or misshapen
        entry.
        """
        own = self.state_dict()
        wrong = [f"missing {path} {list(own[path].shape)}" for path in own if path not in state]
        wrong += [f"unexpected {path} {list(state[path].shape)}" for path in state if path not in own]
        wrong += [
            f"{path} is {list(state[path].shape)}, expected {list(array.shape)}"
            for path, array in own.items()
            if path in state and tuple(state[path].shape) != tuple(array.shape)
        ]
        if wrong:
            raise ValueError(f"load_state_dict of {type(self).__name__}: " + "; ".join(wrong))
        for path, array in own.items():
            array[...] = backend.to_device(backend.asarray(state[path]), backend.get_device(array).name)

    def _arrays(self) -> Iterator[tuple[str, Module, str, Parameter | backend.Array]]:
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) or backend.is_array(value):
                    yield f"{path}.{name}" if path else name, module, name, value


# ---------------------------------------------------------------- linear maps


class Map(Module):
    """A linear map with a weight, whose last axis is the output channels, and maybe a bias."""

    bias: Parameter | None = None


class Linear(Map):
    """y = x W + b on the last axis: [..., in] -> [..., out], W [in, out].

    W starts normal with standard deviation 0.02 and b at 0, as in the authors' Linear layers. (Their
    truncation, at 100 deviations, cuts nothing.) Their networks for ImageNet and events have convolutions of
    size 1 instead, which start as PyTorch's do; that ours start alike everywhere is our choice.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool = True, *, rng):
        self.weight = Parameter(0.02 * backend.make_rng(rng).standard_normal((n_in, n_out)))
        if bias:
            self.bias = Parameter(backend.zeros(n_out))
        self.out_channels = n_out

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Conv2d(Map):
    """A k×k convolution, no bias, padded to keep the size at stride 1: [..., H, W, in] -> [..., H', W', out].

    The weight [k, k, in, out] starts uniform within ±1/√(k·k·in), PyTorch's default.
    """

    def __init__(
        self, n_in: int, n_out: int, k: int = 3, stride: int = 1, padding: int | None = None, *, rng
    ):
        bound = 1 / sqrt(k * k * n_in)
        self.weight = Parameter(backend.make_rng(rng).uniform(-bound, bound, (k, k, n_in, n_out)))
        self.stride, self.padding = stride, k // 2 if padding is None else padding
        self.out_channels = n_out

    def forward(self, x):
        return conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class DepthwiseConv2d(Map):
    """A k×k convolution of each channel by itself, padded as Conv2d: [..., H, W, C] -> [..., H', W', C].

    The weight [k, k, C] starts uniform within ±1/k, PyTorch's default for one input channel.
    """

    def __init__(self, channels: int, k: int = 3, stride: int = 1, padding: int | None = None, *, rng):
        self.weight = Parameter(backend.make_rng(rng).uniform(-1 / k, 1 / k, (k, k, channels)))
        self.stride, self.padding = stride, k // 2 if padding is None else padding
        self.out_channels = channels

    def forward(self, x):
        return depthwise_conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


# ---------------------------------------------------------------- normalisation and neuron


class BatchNorm(Module):
    """Batch norm over every axis but the last, T and B together; weight is γ, bias is β. See ops/norm.py."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        self.weight, self.bias = Parameter(backend.ones(channels)), Parameter(backend.zeros(channels))
        self.running_mean, self.running_var = backend.zeros(channels), backend.ones(channels)
        self.momentum, self.eps = momentum, eps

    def forward(self, x, repeats: int = 1):
        running = self.running_mean, self.running_var
        settings = {"training": self.training, "momentum": self.momentum, "eps": self.eps, "repeats": repeats}
        return batch_norm(x, self.weight, self.bias, *running, **settings)

    def fold(self):
        """Return (scale, shift) [C] such that batch norm in eval mode is scale·x + shift."""
        scale = self.weight.data / (self.running_var + self.eps) ** 0.5
        return scale, self.bias.data - self.running_mean * scale


class LIF(Module):
    """A layer of leaky integrate-and-fire neurons, one for each position of x [T, …] behind the time axis.

    constants: tau=2.0, v_threshold=1.0, v_reset=0.0, detach_reset=True, surrogate=Sigmoid(4.0), smooth=False;
    see neuron.Neuron. Each can be read as an attribute: layer.tau.
    """

    def __init__(self, *constants, **named):
        self.constants = Neuron(*constants, **named)

    tau = property(lambda self: self.constants.tau)
    v_threshold = property(lambda self: self.constants.v_threshold)
    v_reset = property(lambda self: self.constants.v_reset)
    detach_reset = property(lambda self: self.constants.detach_reset)
    surrogate = property(lambda self: self.constants.surrogate)
    smooth = property(lambda self: self.constants.smooth)

    def forward(self, x):
        return lif(x, **vars(self.constants))


class ReLU(Module):
    """max(x, 0) in place of a neuron: the non-spiking twin of a model is made of it. It knows no time."""

    def forward(self, x):
        return relu(x)


# ---------------------------------------------------------------- the brick


class Spiking(Module):
    """LIF(BN(map x)), the *brick*: every sub-layer of all four papers.

    x: [T, …] spikes or integers (for the stem's first brick: the image) -> spikes [T, …, map.out_channels].
    T: only for the first brick of a static image, which is [1, …]. The map and BN run once and their output
    is fed to the neuron T times; the running variance counts each value T times.

    Batch norm and LIF run as one op. Where `norm` or `neuron` is of any other class, even a subclass, the
    brick calls it: neuron(norm(map x)).
    """

    def __init__(self, map: Module, neuron: Module | None = None):
        self.map, self.norm, self.neuron = map, BatchNorm(map.out_channels), neuron or LIF()

    def forward(self, x, T: int = 1):
        return self.fire(self.map(x), T)

    def fire(self, y, T: int = 1) -> Tensor:
        """Return the spikes [T, …] of the map's output y [T, …] or [1, …]."""
        if T > 1 and len(y) != 1:
            raise ValueError(
                f"{where()}only a static input [1, …] is repeated T = {T} times, got {len(y)} steps"
            )
        if type(self.norm) is BatchNorm and type(self.neuron) is LIF:
            return norm_lif(y, self.norm, self.neuron, T)
        y = broadcast_to(y, (T, *y.shape[1:])) if T > 1 else y
        return self.neuron(self.norm(y))
