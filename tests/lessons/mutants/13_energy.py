"""Wrong answers to the tasks of lesson 13."""

MUTANTS = {
    "loses": [
        ("6", "5"),
        ("6", "5.12"),  # the quotient, not rounded up
        ("6", "7"),
    ],
    "fan_out": [
        ("(w != 0).sum(-1)", "np.full((kh, kw, C), w.shape[-1])"),  # weights of 0 are added, too
        ("if 0 <= row < H and 0 <= column < W", "if row < H and column < W"),  # wraps round at the border
        ("p * stride + i - padding", "p + i - padding"),  # a forgotten stride
        ("(H + 2 * padding - kh) // stride + 1", "H"),  # right at stride 1 with a 3×3 kernel only
        ("reached[i, j]", "reached[i, j].sum()"),  # of all channels
        ("range((W + 2 * padding - kw) // stride + 1)", "range((H + 2 * padding - kh) // stride + 1)"),
    ],
    "attention_additions": [
        ("((A != 0) @ v)", "(A @ v)"),  # an integer, added one by one
        ("q @ k.T", "(q @ k.T > 0)"),  # coincidences of a pair counted once
        ("(A != 0) @ v", "(A != 0).T @ v"),
        ("A.sum()", "(q.sum() * k.sum())"),
        ('"sums": ((A != 0) @ v).sum()', '"sums": (A != 0).sum() * v.sum()'),
        ('"sums": ((A != 0) @ v).sum()', '"sums": ((A @ v) != 0).sum()'),
    ],
    "three_counts": [
        ("price = 0.9 if spikes else 4.6", "price = 4.6"),
        ("price = 0.9 if spikes else 4.6", "price = 0.9"),
        ("abs(x) * fan", "(x != 0) * fan"),  # a 2 is added twice
        ("(w != 0).sum(1)", "w.shape[1]"),
        ("(w != 0).sum(1)", "(w != 0).sum(0).mean()"),
        ('"paper": 4.6 * macs', '"paper": 4.6 * share * macs'),
        ("(x != 0).mean()", "x.mean()"),  # the rate, not the active share
        ("x.size * w.shape[1]", "x.shape[1] * w.shape[1]"),
    ],
    "expected_additions": [
        ("N * N * d", "N * d * d"),
        ("triples * p * p +", "triples * p +"),
        ("1 - (1 - p * p) ** d", "1 - p * p"),
        ("(1 - (1 - p * p) ** d)", "p * p"),  # as if every A_ij were added coincidence by coincidence
        ("(1 - p * p) ** d", "(1 - p * p) ** N"),
    ],
}
