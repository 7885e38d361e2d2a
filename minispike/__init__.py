"""minispike: spiking transformers from scratch, on NumPy or CuPy arrays.

The learning path, simple to hard; a file imports only from those above it:

    backend      which array module                     nn          layers, and the one brick: Spiking
    parallel     threads, memory                        gradcheck   gradients against finite differences
    autograd     Tensor, Function, backward, trace      visible     which patches of an image are visible
    ops/         operations, forward next to backward   blocks/     one file for each paper's block
    surrogate    g and g' of a spike                    configs     the named models' numbers
    neuron       LIF over time, and BPTT by hand        models      whole networks by name
    fused        batch norm and LIF as one op           optim       SGD, AdamW, cosine with warm-up
                                                        train       fit, evaluate
                                                        masked      pre-training on masked images

The wings, which use it:

    measure/     energy, price, profile, viz, inside: operations, joules, fewer spikes; time, memory; figures
    files/       picklemachine, torchfile, checkpoint, interop: PyTorch's files, our own, the authors' names
    runs/        recipes, folder, memory, session, compare, own, show, cli: the command line

Shapes, everywhere: T time steps, B batch, H×W grid, C channels, N = H·W tokens, D model width, h heads,
d = D/h. Time first, channels last: images [B, H, W, C], stem maps [T, B, H, W, C], tokens [T, B, N, D]. In a
comment, `# [T, B, N, D]` is the shape of what its line has made. In backward, gy is the gradient that arrives
and gx the one that goes on: gy = ∂L/∂y, gx = ∂L/∂x.
"""

from . import backend, kernels, ops, optim, surrogate
from .autograd import Function, Tensor, no_grad, trace
from .backend import to_device, to_host
from .files.checkpoint import load, save
from .gradcheck import check_grads, compare
from .models import create_model, list_models
from .neuron import lif, lif_unrolled
from .nn import LIF, BatchNorm, Conv2d, DepthwiseConv2d, Linear, Module, Parameter, Spiking
from .parallel import set_threads
from .train import evaluate, fit

__all__ = [
    "LIF", "BatchNorm", "Conv2d", "DepthwiseConv2d", "Function", "Linear", "Module", "Parameter", "Spiking",
    "Tensor", "check_grads", "compare", "create_model", "evaluate", "fit", "lif", "lif_unrolled",
    "list_models", "load", "no_grad", "ops", "optim", "save", "set_threads", "surrogate", "to_device",
    "to_host", "trace",
]  # fmt: skip

backend.TWINS |= {"cpu": kernels.on_cpu, "cuda": kernels.on_cuda}  # made when first used
