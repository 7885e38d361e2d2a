"""Wrong answers to the tasks of lesson 09."""

MUTANTS = {
    "sums": [
        ("H // r, r, W // r, r", "W // r, r, H // r, r"),
        ("K.reshape(*K.shape[:-2], H // r, r, W // r, r,", "K.reshape(*K.shape[:-2], r, H // r, r, W // r,"),
        ("H // r, r, W // r, r", "H // r, W // r, r, r"),  # consecutive tokens, not cells of the grid
        (".sum((-4, -2))", ".mean((-4, -2))"),
        (".sum((-4, -2))", ".max((-4, -2))"),
    ],
    "order": [
        ("rows[[1, 0, 3, 2]].ravel()", "rows.ravel()"),
        ("rows[[1, 0, 3, 2]].ravel()", "np.roll(rows.ravel(), 1)"),
        ("rows[[1, 0, 3, 2]].ravel()", "np.roll(rows.ravel(), 4)"),  # all rows one down: cells are cut
        ("rows[[1, 0, 3, 2]].ravel()", "rows.T.ravel()"),  # the diagonal stays
        ("rows[[1, 0, 3, 2]]", "rows[[1, 0, 3, 3]]"),
    ],
    "neighbours": [
        ("found[:, j] =", "found[j] ="),  # who is seen, not who sees
        (
            "changed = x.copy()",
            "changed = x.copy() if j == 0 else changed",
        ),  # the samples before stay changed
        ("changed[:, j] = other[:, j]", "changed[j % len(x)] = other[j % len(x)]"),  # time, not batch
        (".any((0, 2, 3))", ".all((0, 2, 3))"),
        (".any((0, 2, 3))", "[0].any((1, 2))"),  # the first step alone
        ("changed[:, j] = other[:, j]", "changed[0, j] = other[0, j]"),
        ("changed = x.copy()", "changed = x"),
        ("(mixer(changed) != before)", "(mixer(x) != before)"),
    ],
    "pool": [
        (" + back.swapaxes(-1, -2) @ Q", ""),  # one place of K_A
        ("weights.swapaxes(-1, -2) @ gI + back.swapaxes(-1, -2) @ Q", "2 * weights.swapaxes(-1, -2) @ gI"),
        ("c = 0.125 / r**2", "c = 0.125"),
        ("c = 0.125 / r**2", "c = 0.125 / r"),
        (".repeat(r, -3).repeat(r, -2)", ".repeat(r, -2).repeat(r, -2)[..., : H // r, :, :].repeat(r, -3)"),
        ("gK_A.reshape(*lead, H // r, W // r, d).repeat(r, -3).repeat(r, -2)", "gK_A.repeat(r * r, -2)"),
        ("gK = gK_A.reshape", "gK = (gK_A / r**2).reshape"),  # as for a mean
        ("gQ = c * back @ K_A", "gQ = back @ K_A"),
        (".sum((-4, -2))", ".mean((-4, -2))"),
    ],
}
