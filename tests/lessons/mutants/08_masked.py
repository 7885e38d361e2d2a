"""Wrong answers to the tasks of lesson 08."""

MUTANTS = {
    "factor": [
        ("return 4", "return 3"),
        ("return 4", "return 0.25"),
        ("return 4", "return 4 / 3"),
        ("return 4", "return 16"),
    ],
    "enough": [
        ('return "kv"', 'return "qkv"'),
        ('return "kv"', 'return "k"'),
        ('return "kv"', 'return "v"'),
        ('return "kv"', 'return "qv"'),
        ('return "kv"', 'return ""'),
    ],
    "hidden_loss": [
        ("(patches.shape[-1] - 1)", "patches.shape[-1]"),  # the biased variance
        ("[hidden]", ""),  # over all patches
        ("~visible", "visible"),
        ("np.sqrt(variance + 1e-6)", "np.sqrt(variance)"),  # a flat patch
        ("+ 1e-6", "+ 1e-3"),
        ("patches.mean(-1", "patches.mean(1"),
        ("** 2).mean()", "** 2).sum()"),
        ("** 2).mean()", "** 2).sum(-1).mean()"),
    ],
    "masked_norm_backward": [
        (" - g.mean((0, 1))", ""),
        (" - unit * (g * unit).mean((0, 1))", ""),
        ("g.mean((0, 1))", "gz.mean((0, 1, 2, 3))"),  # of all places
        ("gamma / sigma", "gamma"),
        ("gamma / sigma", "gamma / sigma**2"),
        ("rows.mean((0, 1))", "x.mean((0, 1, 2, 3))"),  # counts hidden places
        ("rows.var((0, 1))", "rows.var((0, 1), ddof=1)"),
    ],
}
