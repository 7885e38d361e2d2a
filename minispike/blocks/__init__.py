"""One file for each paper's block; a mixer maps tokens [T, B, N, D] to spikes of the same shape.

stems: sps        mixers: ssa, fourier, wavelet, control        and: mlp, encoder (the residual block)
"""
