"""Wrong answers to the tasks of lesson 07."""

MUTANTS = {
    "or_of_nine": [
        ("1 - 0.5 ** (1 / 9)", "0.5 ** (1 / 9)"),
        ("1 - 0.5 ** (1 / 9)", "1 / 9"),
        ("1 - 0.5 ** (1 / 9)", "0.5 / 9"),
        ("1 - 0.5 ** (1 / 9)", "1 - 0.5 ** (1 / 4)"),
        ("1 - 0.5 ** (1 / 9)", "0.075"),
    ],
    "halve": [
        (".transpose(0, 1, 2, 4, 3, 5, 6)", ""),  # a reshape alone
        ("(0, 1, 2, 4, 3, 5, 6)", "(0, 1, 2, 4, 5, 3, 6)"),  # columns before rows
        ("(0, 1, 2, 4, 3, 5, 6)", "(0, 1, 2, 4, 6, 3, 5)"),  # channels before places
        ("H // 2, 2, W // 2, 2, C", "2, H // 2, 2, W // 2, C"),
        ("w.reshape(4 * C, -1)", "w.transpose(1, 0, 2, 3).reshape(4 * C, -1)"),
    ],
    "coverage": [
        ("max(begin, 0)", "begin"),  # a negative index counts from the end
        ("p * stride - padding", "p * stride"),
        ("// stride + 1", "// stride"),
        ("2 * padding", "padding"),
        ("begin + k]", "begin + stride]"),
        ("np.outer(along(H), along(W))", "np.outer(along(W), along(H))"),
        ("np.outer(along(H), along(W))", "np.add.outer(along(H), along(W))"),
    ],
    "strided_backward": [
        ("gx[at] += gy", "gx[at] = gy"),  # overlapping windows
        ("gx[:, padding : padding + H, padding : padding + W]", "gx[:, :H, :W]"),
        ("w[i, j].T", "w[k - 1 - i, k - 1 - j].T"),  # turned round, as a convolution of mathematics
        ("padded[at], gy)", "padded[at], gy) / len(x)"),
        ("gw[i, j] = ", "gw[j, i] = "),
        ("slice(i, i + stride * h, stride)", "slice(i, i + h)"),
    ],
}
