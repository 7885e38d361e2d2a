"""Wrong answers to the tasks of lesson 06."""

MUTANTS = {
    "haar": [
        ("/ 2**0.5", "/ 2"),
        ("u - v", "v - u"),
        ("[u + v, u - v]", "[u - v, u + v]"),
        ("for axis in (-1, -2):", "for axis in (-1,):"),  # columns forgotten
        ("for axis in (-1, -2):", "for axis in (0, 1):"),  # right for [H, W] alone
        ("np.concatenate([u + v, u - v])", "np.stack([u + v, u - v], 1).reshape(x.shape)"),  # not sorted
        ("x[0::2], x[1::2]", "x[: len(x) // 2], x[len(x) // 2 :]"),  # pairs of halves, not neighbours
    ],
    "taps": [
        ("+= low[j]", "= low[j]"),  # taps that meet in one column
        ("- j) % n] += low", "+ j) % n] += low"),  # taps in the wrong order
        ("A[n // 2 + k, (2 * k + L // 2 - j) % n]", "A[n // 2 + k, (2 * k + 1 + L // 2 - j) % n]"),
        ("A[k, (2 * k", "A[k, (k"),
        ("+= high[j]", "+= low[j] * (-1) ** j"),
        ("return A", "return A.T"),
        ("A[k, (2 * k + L // 2 - j)", "A[k, (2 * k + 1 - j)"),  # right for Haar alone
    ],
    "backward": [
        ("reversed(range(levels))", "range(levels)"),
        ("reversed(range(levels))", "reversed(range(min(levels, 1)))"),
        ("np.stack([p + q, p - q], -3)", "np.concatenate([p + q, p - q], -3)"),
        ("/ 2**0.5\n        p, q", "/ 2\n        p, q"),
        ("h, w = H >> level, W >> level", "h, w = W >> level, H >> level"),
        ("np.stack([p + q, p - q], -2)", "np.stack([p - q, p + q], -2)"),
        ("h, w = H >> level, W >> level", "h, w = H, W"),
    ],
    "mixture": [
        ("W_i.T @ gY", "W_i @ gY"),
        ("W_i.T @ gY", "np.linalg.solve(W_i, gY)"),  # the inverse
        ("(gY * y).sum()", "(gY * y).mean()"),
        ("a_i * (W_i.T", "(W_i.T"),
        ("(gY * y).sum()", "(gY * X).sum()"),
        ("each = [W_i @ X", "each = [W_i.T @ X"),
        ("(gY * y).sum()", "a[0] * (gY * y).sum()"),
    ],
}
