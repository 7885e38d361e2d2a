"""Compiled loops for events.py: products with spikes, which add rows of W where there is a spike.

    y[r] = Σ_c x[r, c] w[c]        for most c, x[r, c] = 0

A dense product multiplies by all these zeros. Here the places of a row's spikes, its *events*, are listed
first; then their rows of w are added up, 32 outputs at a time, in the processor's registers (`Lanes`). What
makes this fast: sums that never leave the registers, two at a time; w packed so that the 32 entries of
neighbouring rows lie together; lists that are made once for 64 rows and all outputs.

A gradient of w adds rows of gy in the same way: gw[c] = Σ_r x[r, c] gy[r], by lists of each channel's rows.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .compiled import compile_with

exactly = compile_with(fastmath=False)
inlined = compile_with(fastmath=False, inline="always")  # a call would send Lanes through memory
f32, i32, u64 = np.float32, np.int32, np.uint64

# ---------------------------------------------------------------- 32 floats in registers

WIDTH = 32
VECTOR = ir.VectorType(ir.FloatType(), WIDTH)


class Lanes(types.Type):
    """A Numba type: 32 float32, which the compiler keeps in registers (four of AVX2's, two of AVX-512's)."""

    def __init__(self):
        super().__init__(name="Lanes")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, VECTOR)


def _address(context, builder, array_type, array, place):
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), VECTOR.as_pointer())


@intrinsic
def load(_, array, place):
    """Return the 32 entries of a flat float32 array from a place on."""

    def generate(context, builder, signature, values):
        return builder.load(_address(context, builder, signature.args[0], *values), align=4)

    return lanes(array, types.intp), generate


@intrinsic
def store(_, array, place, value):
    """Write the 32 entries of a flat float32 array from a place on."""

    def generate(context, builder, signature, values):
        array, place, value = values
        builder.store(value, _address(context, builder, signature.args[0], array, place), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def plus(_, a, b):
    """Return a + b, lane by lane."""
    return lanes(lanes, lanes), lambda context, builder, signature, values: builder.fadd(*values)


@intrinsic
def plus_times(_, total, a, factor):
    """Return total + a · factor, lane by lane, rounded once where the processor can."""

    def generate(context, builder, signature, values):
        total, a, factor = values
        first = builder.insert_element(
            ir.Constant(VECTOR, ir.Undefined), factor, ir.Constant(ir.IntType(32), 0)
        )
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        factors = builder.shuffle_vector(first, first, everywhere)
        product = builder.fmul(a, factors, flags=("contract",))
        return builder.fadd(total, product, flags=("contract",))

    return lanes(lanes, lanes, types.float32), generate


# ---------------------------------------------------------------- events


@exactly
def to_bytes(x, small, start, stop):
    """Write x, flat float32, as uint8; return (the entries that are not 0, the largest), or (−1, 0).

    −1: an entry is no whole number from 0 to 255.
    """
    active, largest = 0, 0
    for first in range(start, stop, 4096):
        last = min(stop, first + 4096)
        piece, out = x[first:last], small[first:last]
        if round_to_bytes(piece, out):
            return -1, 0
        for i in range(out.size):
            active += out[i] != 0
        most = np.uint8(0)
        for i in range(out.size):
            most = max(most, out[i])
        largest = max(largest, most)
    return active, largest


@exactly
def round_to_bytes(x, small):
    wrong = i32(0)
    for i in range(x.size):
        b = i32(x[i] if (x[i] >= f32(0)) & (x[i] <= f32(255)) else f32(0))
        small[i] = b
        wrong |= i32(f32(b) != x[i])
    return wrong


@exactly
def list_events(row, place, step, where, n):
    """Write place + c·step for each entry c of a row that is not 0, from where[n] on; return the next n.

    There is no branch: each place is written, and n goes on where there is a spike. n is unsigned, because
    Numba would look whether a signed one is negative.
    """
    for c in range(row.size):
        where[n] = place
        n += u64(row[c] != 0)
        place += step
    return n


@inlined
def add_events(total, table, offset, where, values, first, last, binary):
    """Return total + Σ_e values[e] · (the 32 entries of `table` from offset + where[e] on)."""
    e = first
    if binary:
        if (last - first) % 2:
            total = plus(total, load(table, offset + where[e]))
            e += 1
        if e < last:
            other = load(table, offset + where[e + 1])
            total = plus(total, load(table, offset + where[e]))
            e += 2
            while e < last:
                total = plus(total, load(table, offset + where[e]))
                other = plus(other, load(table, offset + where[e + 1]))
                e += 2
            total = plus(total, other)
    else:
        while e < last:
            total = plus_times(total, load(table, offset + where[e]), values[e])
            e += 1
    return total


# ---------------------------------------------------------------- linear maps


@exactly
def linear(x, packed, bias, binary, y, start, stop):
    """y = x w + b for some rows: x uint8 [R, C], packed w [D/32, C, 32], bias [D], D a multiple of 32."""
    C, D, rows = x.shape[1], y.shape[1], 64
    where, values = np.empty(rows * C + 1, np.int32), np.empty(rows * C + 1, np.float32)
    begins = np.empty(rows + 1, np.int64)
    table, out = packed.reshape(-1), y.reshape(-1)
    for first in range(start, stop, rows):
        n, last = u64(0), min(stop, first + rows)
        for r in range(first, last):
            begins[r - first] = n
            n = list_events(x[r], i32(0), i32(WIDTH), where, n)
            if not binary:
                for e in range(begins[r - first], n):
                    values[e] = x[r, where[e] // WIDTH]
        begins[last - first] = n
        for d in range(0, D, WIDTH):
            b = load(bias, d)
            for r in range(first, last):
                e, end = begins[r - first], begins[r - first + 1]
                store(out, r * D + d, add_events(b, table, d * C, where, values, e, end, binary))


@exactly
def linear_gradient(x, gy, binary, gw, start, stop):
    """gw[c] = Σ_r x[r, c] gy[r] for some channels: x uint8 [R, C], gy [R, D] -> gw [C, D]."""
    R, D, rows, C = len(x), gy.shape[1], 512, stop - start
    where, values = np.empty(rows * C + 1, np.int32), np.empty(rows * C + 1, np.float32)
    begins, piece = np.empty(C + 1, np.int64), np.empty(rows * WIDTH, np.float32)
    gradients, out = gy.reshape(-1), gw.reshape(-1)
    for first in range(0, R, rows):
        last = min(R, first + rows)
        sort_by_channel(x, first, last, start, stop, WIDTH, first, where, values, begins)
        for d in range(0, D, WIDTH):
            for r in range(first, last):
                store(piece, (r - first) * WIDTH, load(gradients, r * D + d))
            for c in range(C):
                place = (start + c) * D + d
                g = load(out, place)
                store(out, place, add_events(g, piece, 0, where, values, begins[c], begins[c + 1], binary))


@exactly
def sort_by_channel(x, first, last, start, stop, step, origin, where, values, begins):
    """List the events of some rows of x by channel, from start to stop: where = (row − origin)·step."""
    C = stop - start
    counts, active = np.zeros(C, np.int32), np.empty(C + 1, np.int32)
    for r in range(first, last):
        count_active(x[r][start:stop], counts)
    begins[0] = 0
    for c in range(C):
        begins[c + 1] = begins[c] + counts[c]
        counts[c] = begins[c]  # from now on: where its next event goes
    for r in range(first, last):
        row = x[r][start:stop]
        for i in range(list_events(row, i32(0), i32(1), active, u64(0))):
            c = active[i]
            place = counts[c]
            where[place], values[place] = (r - origin) * step, row[c]
            counts[c] = place + 1


@exactly
def count_active(row, counts):
    for c in range(row.size):
        counts[c] += row[c] != 0


# ---------------------------------------------------------------- convolutions


@exactly
def convolve(x, packed, bias, binary, kh, kw, stride, padding, y, start, stop):
    """Convolve some images: x uint8 [n, H, W, C], packed w [D/32, kh·kw·C, 32] -> y [n, H', W', D].

    A window's kw places of one image row are neighbours, so their events are one range of that row's list.
    An event at column q and channel c has the number q·C + c there; in the window that begins at column q₀,
    row i of the kernel, it meets row (i·kw − q₀)·C + q·C + c of w.
    """
    _, H, W, C = x.shape
    _, rows, columns, D = y.shape
    where, values = np.empty(H * W * C + 1, np.int32), np.empty(H * W * C + 1, np.float32)
    begins, table, out = np.empty((H, W + 1), np.int64), packed.reshape(-1), y.reshape(-1)
    for image in range(start, stop):
        n = u64(0)
        for row in range(H):
            for q in range(W):
                begins[row, q], pixel = n, x[image, row, q]
                n = list_events(pixel, i32(q * C * WIDTH), i32(WIDTH), where, n)
                if not binary:
                    for e in range(begins[row, q], n):
                        values[e] = pixel[where[e] // WIDTH - q * C]
            begins[row, W] = n
        for d in range(0, D, WIDTH):
            b = load(bias, d)
            for p in range(rows):
                for q in range(columns):
                    left, total = q * stride - padding, b
                    first, last = max(0, left), min(W, left + kw)
                    for i in range(kh):
                        row = p * stride + i - padding
                        if 0 <= row < H and first < last:
                            offset = d * kh * kw * C + (i * kw - left) * C * WIDTH
                            e, end = begins[row, first], begins[row, last]
                            total = add_events(total, table, offset, where, values, e, end, binary)
                    store(out, ((image * rows + p) * columns + q) * D + d, total)


@exactly
def convolve_gradient(x, gy, binary, kh, kw, stride, padding, gw, start, stop):
    """gw[i, j, c] += Σ x gy over some images: x uint8 [n, H, W, C], gy [n, H', W', D] -> gw [kh, kw, C, D].

    gy lies in a frame of zeros, with stride − 1 zeros between its places. Then an event at (row, q) meets the
    tap (i, j) at the frame's place (row + kh − 1 − i, q + kw − 1 − j), wherever it lies.
    """
    _, H, W, C = x.shape
    _, rows, columns, D = gy.shape
    wide, channels = W + kw - 1, x.reshape(-1, C)
    frame = np.zeros((H + kh - 1) * wide * WIDTH, np.float32)
    where, values = np.empty(H * W * C + 1, np.int32), np.empty(H * W * C + 1, np.float32)
    begins, gradients, out = np.empty(C + 1, np.int64), gy.reshape(-1), gw.reshape(-1)
    for image in range(start, stop):
        origin = image * H * W
        sort_by_channel(channels, origin, origin + H * W, 0, C, 1, origin, where, values, begins)
        for e in range(begins[C]):  # from the place in the image to that in the frame
            where[e] = (where[e] // W * wide + where[e] % W) * WIDTH
        for d in range(0, D, WIDTH):
            for p in range(rows):
                for q in range(columns):
                    place = (p * stride + kh - 1 - padding) * wide + q * stride + kw - 1 - padding
                    g = load(gradients, ((image * rows + p) * columns + q) * D + d)
                    store(frame, place * WIDTH, g)
            for i in range(kh):
                for j in range(kw):
                    offset = ((kh - 1 - i) * wide + kw - 1 - j) * WIDTH
                    for c in range(C):
                        place = ((i * kw + j) * C + c) * D + d
                        g, e, end = load(out, place), begins[c], begins[c + 1]
                        store(out, place, add_events(g, frame, offset, where, values, e, end, binary))
