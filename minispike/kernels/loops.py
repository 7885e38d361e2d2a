"""Compiled loops for host.py: batch norm with neurons, moments and the max-pool, by Numba.

The loops keep to six rules, because what is natural here is slow or wrong:

    time outside, channels inside      a loop over neighbouring values becomes vector instructions
    several short loops                one loop over many arrays does not: any two of them might overlap
    whole arrays with ranges           Numba does not know that a slice x[:, a:b] is contiguous
    long rows                          a call costs as much as some hundred values. So neighbouring positions
                                       make one row, and what holds for a channel is repeated side by side
    rows from 0 on                     in a loop from `first` on it looks for negative indices
    no fastmath on the way to a spike  fused multiply-adds would flip spikes. Numba hands its flags on: a
                                       helper compiles with those of its first caller. So `exactly` says
                                       fastmath=False everywhere, and shares no helper with `roughly`

Constants come in one small array of the data's dtype, because a Python float would turn float32 arithmetic
into float64. Each helper stands in this file, because a cache on disk notices only changes of the caller's.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compile_with

ROWS = 512  # a running sum of float32 begins again after so many rows; the parts are added in float64,
FEW = 16  # and in moments, on which all spikes depend, after so many
BLOCK = 2048  # values of V that a block of neighbouring positions holds: they stay in the first cache

exactly = compile_with(fastmath=False)
roughly = compile_with(fastmath={"contract", "reassoc", "arcp", "nsz"})  # NaN and ∞ stay what they are

# ---------------------------------------------------------------- neurons, forward


@exactly
def side_by_side(row, n):
    """Return n copies of a row [C], one behind the other: what n neighbouring positions need."""
    copies = np.empty((n, row.size), row.dtype)
    copies[:] = row
    return copies.ravel()


@exactly
def charge(x, mean, scale, shift, v, constants, soft, h):
    """H of one step for a block of neurons from their X and V; V becomes the potential after the reset."""
    tau, v_threshold, rest = constants[0], constants[1], constants[2]
    for c in range(h.size):
        h[c] = v[c] + (((x[c] - mean[c]) * scale[c] + shift[c]) - (v[c] - rest)) / tau
    if soft:
        for c in range(h.size):
            v[c] = h[c] - v_threshold if h[c] >= v_threshold else h[c]
    else:
        for c in range(h.size):
            v[c] = rest if h[c] >= v_threshold else h[c]


@exactly
def fire(h, constants, s):
    for c in range(h.size):
        s[c] = 1 if h[c] >= constants[1] else 0


@exactly
def normalise_and_fire(x, mean, scale, shift, constants, soft, s, start, stop):
    """S[t] for the positions from start to stop: x [T or 1, positions·C] -> s [T, positions·C]."""
    T, C = len(s), mean.size
    step = max(1, BLOCK // C)
    mean, scale, shift = side_by_side(mean, step), side_by_side(scale, step), side_by_side(shift, step)
    h, v = np.empty(step * C, x.dtype), np.empty(step * C, x.dtype)
    for first in range(start, stop, step):
        a, b = first * C, min(stop, first + step) * C
        v[:] = constants[2]
        for t in range(T):
            charge(x[t % len(x), a:b], mean, scale, shift, v, constants, soft, h[: b - a])
            fire(h[: b - a], constants, s[t, a:b])


# ---------------------------------------------------------------- neurons, backward


@exactly
def back_through_time(x, gy, gx, mean, scale, shift, constants, soft, detached, kind, start, stop):
    """Write the gradient of LIF's input into gx [T or 1, positions·C], for the positions of a span.

    Returns gx's two column sums [2, C] in float64: Σ gx and Σ gx (x − μ). H is computed again.
    """
    T, C = len(gy), mean.size
    step = max(1, BLOCK // C)
    mean, scale, shift = side_by_side(mean, step), side_by_side(scale, step), side_by_side(shift, step)
    h, slope = np.empty((T, step * C), x.dtype), np.empty(step * C, x.dtype)
    v, gv, g = np.empty(step * C, x.dtype), np.empty(step * C, x.dtype), np.empty(step * C, x.dtype)
    parts, sums, added = np.zeros((2, step * C), x.dtype), np.zeros((2, C)), 0
    for first in range(start, stop, step):
        a, b = first * C, min(stop, first + step) * C
        n = b - a
        v[:], gv[:] = constants[2], 0
        for t in range(T):
            charge(x[t % len(x), a:b], mean, scale, shift, v, constants, soft, h[t, :n])
        for t in range(T - 1, -1, -1):
            g_prime(h[t, :n], constants, kind, slope)
            place = gx[t % len(x), a:b]
            if len(x) == T or t == T - 1:
                step_back(h[t, :n], gy[t, a:b], slope, gv, constants, soft, detached, place)
            else:
                step_back(h[t, :n], gy[t, a:b], slope, gv, constants, soft, detached, g[:n])
                add(g[:n], place)
            if len(x) == T or t == 0:
                add_to_sums(place, x[t % len(x), a:b], mean, parts)
        added += len(x)
        if added + len(x) > ROWS or first + step >= stop:
            for c in range(step * C):
                sums[0, c % C] += parts[0, c]
                sums[1, c % C] += parts[1, c]
            parts[:], added = 0, 0
    return sums


@roughly
def step_back(h, gy, slope, gv, constants, soft, detached, g):
    """gX = gH / τ of one step into g, from gS and gV; gV becomes that of the step before. See neuron.py."""
    tau, v_threshold, rest, leak = constants[0], constants[1], constants[2], constants[3]
    zero = constants[2] - constants[2]
    if detached:
        for c in range(g.size):
            gh = gy[c] * slope[c] + (gv[c] if soft or h[c] < v_threshold else zero)
            g[c] = gh / tau
            gv[c] = gh * leak
    else:
        for c in range(g.size):
            through_reset = (-v_threshold if soft else rest - h[c]) * slope[c]
            gh = gy[c] * slope[c] + gv[c] * through_reset + (gv[c] if soft or h[c] < v_threshold else zero)
            g[c] = gh / tau
            gv[c] = gh * leak


@roughly
def g_prime(h, constants, kind, slope):
    """The surrogate's slope at H − v_threshold, for the five of surrogate.py, by their number in KINDS."""
    v_threshold, alpha = constants[1], constants[4]
    one, half, quarter = constants[5], constants[6], constants[7]
    if kind == 0 and h.itemsize == 4:  # Sigmoid: α e / (1 + e)², e = exp(−α|u|)
        for c in range(h.size):
            e = exp_float32(-abs(alpha * (h[c] - v_threshold)))
            q = one / (one + e)
            slope[c] = alpha * e * q * q
    elif kind == 0:
        for c in range(h.size):
            y = math.tanh(half * alpha * (h[c] - v_threshold))
            slope[c] = quarter * alpha * (one - y * y)
    elif kind == 1:  # ATan
        for c in range(h.size):
            z = constants[8] * (h[c] - v_threshold)  # πα/2
            slope[c] = half * alpha / (one + z * z)
    elif kind == 2:  # Triangle
        for c in range(h.size):
            slope[c] = max(one - one, alpha - alpha * alpha * abs(h[c] - v_threshold))
    elif kind == 3:  # Rectangle
        for c in range(h.size):
            slope[c] = alpha if abs(h[c] - v_threshold) < half / alpha else one - one
    else:  # FastSigmoid
        for c in range(h.size):
            z = one + alpha * abs(h[c] - v_threshold)
            slope[c] = half * alpha / (z * z)


f32, i32 = np.float32, np.int32


@roughly
def exp_float32(a):
    """e^a for a <= 0, to two units in the last place: 2^n e^r with n whole and |r| <= ½ ln 2.

    Below −87 the result would leave float32's normal numbers; it stays at e^−87, which is 1e-38.
    """
    a = a if a > f32(-87) else f32(-87)
    n = i32(a * f32(1.44269504) - f32(0.5))  # rounds to the nearest, because it cuts towards 0
    r = a - f32(n) * f32(0.693359375) - f32(n) * f32(-2.12194440e-4)  # ln 2 in two parts, the first exact
    p = f32(1 / 720) * r + f32(1 / 120)
    p = p * r + f32(1 / 24)
    p = p * r + f32(1 / 6)
    p = p * r + f32(1 / 2)
    p = p * r + f32(1)
    p = p * r + f32(1)
    return p * i32((n + 127) << 23).view(f32)


@roughly
def add(x, total):
    for c in range(x.size):
        total[c] += x[c]


@roughly
def add_to_sums(g, x, mean, parts):
    sum_g, sum_gx = parts[0], parts[1]
    for c in range(g.size):
        sum_g[c] += g[c]
    for c in range(g.size):
        sum_gx[c] += g[c] * (x[c] - mean[c])


@roughly
def spread(x, gx, along, mean_g, mean, scale, start, stop):
    """gx = (gx − mean_g − (x − μ) along) scale for some rows: what batch norm's backward adds to them."""
    for r in range(start, stop):
        g, row = gx[r], x[r]
        for c in range(g.size):
            g[c] = (g[c] - mean_g[c] - (row[c] - mean[c]) * along[c]) * scale[c]


# ---------------------------------------------------------------- moments


@roughly
def add_differences(x, centre, total):
    for c in range(x.size):
        total[c] += x[c] - centre[c]


@roughly
def add_squares(x, centre, total):
    for c in range(x.size):
        d = x[c] - centre[c]
        total[c] += d * d


@exactly
def add_and_clear(part, total):
    for c in range(part.size):
        total[c] += part[c]
        part[c] = 0


@exactly
def moments(x, start, stop):
    """Return mean and Σ(x − mean)² of some rows of x [rows, C], in float64: [2, C].

    Blocks of rows that stay in the cache: first each block's mean m, as the first row plus the mean
    difference to it, then the squares about m. Blocks are merged after Chan, Golub & LeVeque 1979: with n
    rows so far and k new ones, whose mean is d away,

        mean += d k/(n + k)        Σ += Σ_block + d² n k/(n + k)
    """
    C = x.shape[1]
    step = max(1, min(ROWS, 16 * BLOCK // C))
    found, total, squares = np.zeros((2, C)), np.zeros(C), np.zeros(C)
    part, m = np.zeros(C, x.dtype), np.empty(C, x.dtype)
    for first in range(start, stop, step):
        last = min(stop, first + step)
        n, k = first - start, last - first
        total[:], squares[:] = 0, 0
        for at in range(first, last, FEW):
            for r in range(at, min(last, at + FEW)):
                add_differences(x[r], x[first], part)
            add_and_clear(part, total)
        for c in range(C):
            m[c] = x[first, c] + total[c] / k
        for at in range(first, last, FEW):
            for r in range(at, min(last, at + FEW)):
                add_squares(x[r], m, part)
            add_and_clear(part, squares)
        for c in range(C):
            exact = x[first, c] + total[c] / k  # m is this, rounded
            rounding, d = exact - m[c], exact - found[0, c]
            found[0, c] += d * k / (n + k)
            found[1, c] += max(0.0, squares[c] - k * rounding * rounding) + d * d * (n * k / (n + k))
    return found


# ---------------------------------------------------------------- depthwise convolution


@roughly
def depthwise(x, w, stride, padding, y, start, stop):
    """y += each channel of some images x [n, H, W, C] convolved with its kernel w [kh, kw, C]."""
    kh, kw, _ = w.shape
    _, H, W, _ = x.shape
    for b in range(start, stop):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for i in range(kh):
                    for j in range(kw):
                        row, column = p * stride + i - padding, q * stride + j - padding
                        if 0 <= row < H and 0 <= column < W:
                            add_product(x[b, row, column], w[i, j], y[b, p, q])


@roughly
def depthwise_back(x, w, gy, stride, padding, gx, start, stop):
    """gx += the windows' gradients, for some images; return gw [kh, kw, C] of them, in float64.

    gw is summed up within a row of windows in the data's dtype, and from row to row in float64.
    """
    kh, kw, _ = w.shape
    _, H, W, _ = x.shape
    part, gw = np.zeros(w.shape, x.dtype), np.zeros(w.shape)
    for b in range(start, stop):
        for p in range(gy.shape[1]):
            for q in range(gy.shape[2]):
                for i in range(kh):
                    for j in range(kw):
                        row, column = p * stride + i - padding, q * stride + j - padding
                        if 0 <= row < H and 0 <= column < W:
                            add_product(gy[b, p, q], w[i, j], gx[b, row, column])
                            add_product(gy[b, p, q], x[b, row, column], part[i, j])
            for i in range(kh):
                for j in range(kw):
                    add_and_clear(part[i, j], gw[i, j])
    return gw


@roughly
def add_product(a, b, total):
    for c in range(a.size):
        total[c] += a[c] * b[c]


# ---------------------------------------------------------------- max-pool


@exactly
def max_pool(x, k, stride, padding, y, winner, start, stop):
    """Pool some images x [n, H, W, C] -> y [n, H', W', C]; winner gets the first maximum's tap."""
    _, H, W, _ = x.shape
    for b in range(start, stop):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                best, number = y[b, p, q], winner[b, p, q]
                best[:], number[:] = -np.inf, 0
                for i in range(k):
                    for j in range(k):
                        row, column = p * stride + i - padding, q * stride + j - padding
                        if 0 <= row < H and 0 <= column < W:
                            take_larger(x[b, row, column], np.uint8(i * k + j), best, number)


@exactly
def take_larger(x, tap, best, number):
    """Compare one tap with the best so far. A select would become a branch; taps come in growing order."""
    for c in range(x.size):
        number[c] = max(number[c], np.uint8(np.uint8(x[c] > best[c]) * tap))
    for c in range(x.size):
        best[c] = np.maximum(x[c], best[c])  # NaN stays


@exactly
def max_pool_back(g, winner, k, stride, padding, gx, start, stop):
    """Give each window's gradient to its winner, for some images: g [n, H', W', C] -> gx [n, H, W, C]."""
    _, H, W, _ = gx.shape
    for b in range(start, stop):
        gx[b] = 0
        for p in range(g.shape[1]):
            for q in range(g.shape[2]):
                for i in range(k):
                    for j in range(k):
                        row, column = p * stride + i - padding, q * stride + j - padding
                        if 0 <= row < H and 0 <= column < W:
                            give(g[b, p, q], winner[b, p, q], np.uint8(i * k + j), gx[b, row, column])


@roughly
def give(g, winner, tap, gx):
    for c in range(g.size):
        gx[c] += g[c] if winner[c] == tap else g[c] - g[c]


# ---------------------------------------------------------------- AdamW


@exactly
def adamw(p, g, m, v, constants):
    """What optim.adamw does to a piece that fits the cache, in its order of operations."""
    keep, to_g, to_square, rate, correction, eps = constants
    for i in range(p.size):
        m[i] += to_g * (g[i] - m[i])
    for i in range(p.size):
        v[i] += to_square * (g[i] * g[i] - v[i])
    for i in range(p.size):
        p[i] = p[i] * keep - rate * m[i] / (np.sqrt(v[i] / correction) + eps)
