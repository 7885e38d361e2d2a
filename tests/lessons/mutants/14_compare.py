"""Wrong answers to the tasks of lesson 14."""

MUTANTS = {
    "images_needed": [
        ("9600", "2400"),  # one standard error
        ("9600", "10000"),
        ("9600", "9599"),
        ("9600", "0.96"),  # half a point as 0.5
    ],
    "paired": [
        ("b, c = len(first),", "c, b = len(first),"),
        ("b + c - (b - c) ** 2 / n", "b + c"),
        ("b + c - (b - c) ** 2 / n", "b + c - (b - c) ** 2"),
        ("sqrt(b + c - (b - c) ** 2 / n) / n", "sqrt(b + c - (b - c) ** 2 / n) / sqrt(n)"),
        (
            "sqrt(b + c - (b - c) ** 2 / n) / n",
            "sqrt((first.mean() * (1 - first.mean()) + second.mean() * (1 - second.mean())) / n)",
        ),  # as if the networks failed independently
        ('"differ": (b + c) / n', '"differ": abs(b - c) / n'),
    ],
    "block_costs": [
        ("4 * brick(D, D)", "3 * brick(D, D)"),  # a forgotten projection
        ("2 * N * N * D", "N * N * D"),
        ("2 * N * N * D", "2 * N * D * D"),
        ("3 * n_out", "2 * n_out"),  # no bias
        ("3 * n_out", "n_out"),  # no batch norm
        ("brick(D, hidden) + brick(hidden, D)", "2 * brick(D, hidden)"),
    ],
    "best_of": [
        ("np.cumsum(chances) ** k", "np.cumsum(chances**k)"),
        ("np.arange(len(F))", "np.arange(1, len(F) + 1)"),  # off by one
        ("np.cumsum(chances) ** k", "1 - (1 - np.cumsum(chances)) ** k"),  # the worst of k
        ("** k", "* k"),
    ],
}
