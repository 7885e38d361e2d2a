"""The fast storey: for each op a *twin*, a subclass that computes the same in another way.

The learning path imports nothing from here. It knows a table {op: twin} for each device (backend.TWINS),
which minispike/__init__ fills with the functions below. A twin overrides forward and backward, and inherits
cost, fan-out and name. It may decline inputs (`takes`); then the form that it is a subclass of is asked.

    unfolded     the convolution as one product, in array code, for every device
    transforms   half of a Fourier transform, and Haar by pairs, in array code, for every device
    compiled     how loops are compiled, by Numba: pip install "minispike[fast]"
    loops        the loops of host
    host         batch norm with neurons, neurons alone, moments and the max-pool, for NumPy arrays
    cuda         the same for CuPy arrays, by the kernels of kernels.cu
    event_loops  the loops of events
    events       products with spikes, for NumPy arrays
"""

from __future__ import annotations


def in_array_code() -> dict:
    """Return {op: its twin} for any device's arrays."""
    from .transforms import Fourier, HalfFourier, PairwiseHaar, Wavelet
    from .unfolded import Convolve2d, UnfoldedConvolve2d

    return {Convolve2d: UnfoldedConvolve2d, Fourier: HalfFourier, Wavelet: PairwiseHaar}


def on_cuda() -> dict:
    """Return {op: its twin} for CuPy arrays."""
    from . import cuda

    return in_array_code() | cuda.TWINS


def on_cpu() -> dict:
    """Return {op: its twin} for NumPy arrays."""
    from . import events, host

    return in_array_code() | host.TWINS | events.TWINS
