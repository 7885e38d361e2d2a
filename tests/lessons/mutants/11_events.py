"""Wrong answers to the tasks of lesson 11."""

MUTANTS = {
    "how_many": [
        ("return 11", "return 12"),
        ("return 11", "return 5"),  # a change of brightness of 1, divided by θ
        ("return 11", "return 10"),
        ("return 11", "return 11.99"),
    ],
    "address": [
        ("(127 - x)", "x"),
        ("(127 - y)", "(128 - y)"),
        ("<< 1", "<< 2"),
        ("(1 - p.astype(int))", "p.astype(int)"),
        ("(127 - x) << 8 | (127 - y) << 1", "(127 - y) << 8 | (127 - x) << 1"),
        ("<< 8", "<< 7"),
    ],
    "by_time": [
        ("np.add.at(frames, (frame, y, x, p.astype(int)), 1)", "frames[frame, y, x, p.astype(int)] += 1"),
        ("(frame, y, x, p", "(frame, y, x, ~p"),
        ("np.minimum(elapsed // (elapsed.max() // T), T - 1)", "elapsed * T // (elapsed.max() + 1)"),
        ("elapsed = t - t.min()", "elapsed = t"),
        ("t.min()", "t[0]"),  # the first in the list is not the earliest
        (
            "np.minimum(elapsed // (elapsed.max() // T), T - 1)",
            "np.minimum(np.arange(len(t)) // max(len(t) // T, 1), T - 1)",  # by number
        ),
    ],
    "soft_frames": [
        ("x, channel), 1 - r)", "x, channel), r)"),
        ("np.add.at(frames, (early, y, x, channel), 1 - r)", "frames[early, y, x, channel] += 1 - r"),
        (
            "gF[early + 1, y, x, channel] - gF[early, y, x, channel]",
            "gF[early, y, x, channel] - gF[early + 1, y, x, channel]",
        ),
        (
            "gF[early + 1, y, x, channel] - gF[early, y, x, channel]",
            "r * gF[early + 1, y, x, channel] + (1 - r) * gF[early, y, x, channel]",  # of a weight
        ),
        ("np.floor(u)", "np.round(u - 0.001)"),
        ("p.astype(int)", "1 - p"),
    ],
}
