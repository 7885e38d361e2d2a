"""Wrong answers to the tasks of lesson 16."""

MUTANTS = {
    "best_without_mixing": [
        ("0.693147", "0.5"),
        ("0.693147", "1.0"),  # in bits
        ("0.693147", "0.69"),
    ],
    "an_order": [
        ("0.5 - digits", "digits"),
        ("0.5 - digits", "-digits"),  # equal pairs are undecided
        ("0.5 - digits", "0.5 + 0 * digits"),
        ("return digits, 0.5 - digits", "return np.zeros(10), np.ones(10)"),  # always "same": 50 %
    ],
    "mix_backward": [
        ('"tbnd,tbmd->nm"', '"tbnd,tbmd->mn"'),  # transposed
        ("M.T @ gy", "M @ gy"),
        ('np.einsum("tbnd,tbmd->nm", gy, x)', 'np.einsum("tbnd,tbmd->nm", gy, x) / x.shape[1]'),
    ],
    "max_mix": [
        ("> x[t, b, best, d]", ">= x[t, b, best, d]"),  # the last maximum, not the first
        ("gx[t, b, best, d] += gy", "gx[t, b, best, d] = gy"),
        ("divmod(n, W)", "divmod(n, H)"),
        ("row + 2)", "row + 1)"),  # off by one
        ("gx[t, b, best, d] += gy[t, b, n, d]", "gx[t, b, n, d] += gy[t, b, n, d]"),
    ],
}
