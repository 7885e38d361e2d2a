"""Wrong answers to the tasks of lesson 01."""

MUTANTS = {
    "current": [
        ("2.0", "1.999"),
        ("2.0", "2.0019"),
        ("2.0", "1.0"),
    ],
    "step": [
        (">= v_threshold", "> v_threshold"),
        ("(V - rest)", "V"),
        ("np.where(S, rest, H)", "H"),  # a forgotten reset
        ("H - v_threshold * S", "H - S"),
        ("np.where(S, rest, H)", "np.where(S, 0.0, H)"),
    ],
    "steps_to_fire": [
        ("1 - 1 / c", "1 / c"),
        ("ceil(", "round("),
        ("log(1 - 1 / tau)", "log(1 / tau)"),
        ("log(1 - 1 / c) /", "1 + log(1 - 1 / c) /"),  # off by one step
    ],
    "bptt": [
        ("1 - S[t]", "1 + 0 * S[t]"),  # a forgotten reset
        ("gH[t] / tau", "gH[t]"),
        ("reversed(range(len(H)))", "range(len(H))"),
        ("gV = gH[t] * (1 - 1 / tau)", "gV = gH[t]"),
        ("(-v_threshold if v_reset is None", "(-1 if v_reset is None"),
        ("if not detach", "if detach"),
        ("gV * dV_dH", "dV_dH"),
    ],
    "forward_in_time": [
        ("trace * (1 - S)", "trace"),  # a forgotten reset
        ("trace[t] += 1 / tau", "trace[t] += 1"),
        ("np.array(H - 1)", "np.array(H)"),
        ("trace = trace * (1 - 1 / tau)", "trace = trace / tau"),
    ],
}
