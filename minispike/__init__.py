"""minispike: spiking transformers from scratch, on NumPy or CuPy arrays.

Reading order, simple to hard; a file imports only from what stands above it:

    backend      which array module; threads            blocks/   one file for each paper's block
    autograd     Tensor, Function, backward, trace      models    whole networks by name, from configs
    ops/         operations, forward beside backward    optim     SGD, AdamW, cosine with warm-up
    surrogate    g and g' of a spike                    train     fit, evaluate
    neuron       LIF over time, and BPTT by hand        masked    pre-training on masked images
    fused        batch norm and LIF in one pass         energy    operations, rates and joules, counted
    visible      which patches of an image exist        profile   time and memory, layer by layer
    nn           layers, and the one brick: Spiking

Beside them stand gradcheck (proofs), viz (pictures), for files torchfile, checkpoint and interop, and for the
command line recipes, run (a folder that survives) and trainer.

Shapes, everywhere: T time steps, B batch, H×W grid, C channels, N = H·W tokens, D model width, h heads,
d = D/h. Time first, channels last: images [B, H, W, C], stem maps [T, B, H, W, C], tokens [T, B, N, D].
In a comment, `# [T, B, N, D]` is the shape of what its line has made. In backward, gy is the gradient that
arrives and gx the one that goes on.
"""

from . import ops, optim, surrogate
from .autograd import Function, Tensor, no_grad, trace
from .backend import to_device, to_host
from .gradcheck import check_grads, compare
from .models import create_model, list_models
from .neuron import lif, lif_unrolled
from .nn import LIF, BatchNorm, Conv2d, DepthwiseConv2d, Linear, Module, Parameter, Spiking
from .parallel import set_threads
from .train import evaluate, fit

__all__ = [
    "LIF", "BatchNorm", "Conv2d", "DepthwiseConv2d", "Function", "Linear", "Module", "Parameter", "Spiking",
    "Tensor", "check_grads", "compare", "create_model", "evaluate", "fit", "lif", "lif_unrolled",
    "list_models", "no_grad", "ops", "optim", "set_threads", "surrogate", "to_device", "to_host", "trace",
]  # fmt: skip
