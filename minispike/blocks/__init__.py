"""One file for each paper's block; a mixer maps tokens [T, B, N, D] to spikes of the same shape.

stems: sps, scs      mixers: ssa, fourier, wavelet, control, sasa (and dwc, its convolution), softmax
and: mlp, encoder (the residual block), decoder (blocks without spikes, for pre-training)
"""
