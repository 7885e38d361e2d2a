"""Wrong answers to the tasks of lesson 15."""

MUTANTS = {
    "of_ones_and_twos": [
        ("1.0, 2.0", "1.0, 1.0"),  # as if a 2 were added once
        ("1.0, 2.0", "1.0, 4.0"),
        ("1.0, 2.0", "5.0, 10.0"),  # the fan-out
        ("1.0, 2.0", "1.0"),
    ],
    "price": [
        ('"gx": sign * fan / macs', '"gx": np.sign(x) * fan / macs'),  # 0 has no slope
        ('"gx": sign * fan / macs', '"gx": sign * fan'),
        ('"gx": sign * fan / macs', '"gx": np.ones_like(x) * fan / macs'),
        ("(abs(x) * fan)", "(x * fan)"),
        ("(abs(x) * fan)", "((x != 0) * fan)"),  # a 2 is added twice
        ('"gx": sign * fan / macs', '"gx": fan / macs'),  # not in the shape of x
    ],
    "growth": [
        ("q.sum(0)", "q.sum()"),
        ("q.sum(0)", "k.sum(0)"),
        ("np.broadcast_to(q.sum(0), k.shape)", "q.sum(0) * (1 - k)"),  # only where k is 0 now
        ("np.broadcast_to(q.sum(0), k.shape)", "np.full(k.shape, float(len(q)))"),
    ],
    "budgeted": [
        ("weight * (price - budget) * above", "weight * price * above"),  # jumps at the budget
        ("weight * (price - budget) * above", "weight * (price - budget)"),
        ('"slope": weight * above', '"slope": weight'),
        ('"slope": weight * above', '"slope": 1.0 * above'),
        ("price > budget", "price < budget"),
    ],
    "spent_by_neurons": [
        ("gV * (1 - S[t])", "gV"),  # a forgotten reset
        ("fan * Sigmoid", "S[t] * fan * Sigmoid"),  # as if only spikes paid
        ("gX[t] = gH / tau", "gX[t] = gH"),
        ("gH * (1 - 1 / tau)", "gH / tau"),  # right at τ = 2
        ("V = H[t] * (1 - S[t])", "V = H[t] - S[t]"),
        ("reversed(range(len(X)))", "range(len(X))"),
        ("g_prime(H[t] - 1)", "g_prime(H[t])"),
    ],
}
