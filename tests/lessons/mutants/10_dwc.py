"""Wrong answers to the tasks of lesson 10."""

MUTANTS = {
    "reach": [
        ("np.outer(along(H), along(W))", "np.full((H, W), k * k * 1.0)"),  # a forgotten border
        ("np.outer(along(H), along(W))", "np.outer(along(W), along(H))"),
        ("n - 1", "n"),
        ("np.maximum(place - k // 2, 0)", "(place - k // 2)"),
        ("k // 2", "k"),
        ("np.outer(along(H), along(W))", "np.add.outer(along(H), along(W))"),
    ],
    "full": [
        ("w[..., None] * W", "w[..., None] * W.T"),
        ("w[..., None] * W", "w[::-1, ::-1, :, None] * W"),
        ("w[..., None] * W", "w.transpose(1, 0, 2)[..., None] * W"),
        ("w[..., None] * W", "np.einsum('ijc,co->ijo', w, W)"),  # summed over channels
        ("w[..., None] * W", "w[..., None] + W"),
    ],
    "module": [
        ("(T, B, *grid, D)", "(T, B, *grid[::-1], D)"),
        ("every = (0, 1, 2, 3)", "every = (0, 1)"),  # a mean for each place
        ("every = (0, 1, 2, 3)", "every = (0, 1, 2)"),
        ("current.var(every)", "current.var(every, ddof=1)"),
        ("np.sqrt(current.var(every) + 1e-5)", "(current.var(every) + 1e-5)"),
        (" + shift", ""),
        ("padding=len(w) // 2", "padding=1"),
        ("lif(normed)", "lif(current)"),
        ("lif(normed)", "lif(normed, v_threshold=0.5)"),
        ("lif(normed).data", "lif(normed.swapaxes(0, 1)).data.swapaxes(0, 1)"),  # time in the wrong place
    ],
    "depthwise": [
        ("gP[part] += gY * w[i, j]", "gP[part] += gY * w[-1 - i, -1 - j]"),
        ("gP[part] +=", "gP[part] ="),  # the last tap alone
        ("Y += padded[part] * w[i, j]", "Y += padded[part] * w[-1 - i, -1 - j]"),
        ("slice(i, i + H), slice(j, j + W)", "slice(j, j + H), slice(i, i + W)"),  # transposed taps
        ("(padded[part] * gY)", "(padded[part] * Y)"),
        ("gP[..., r : r + H, r : r + W, :]", "gP[..., :H, :W, :]"),
        (".reshape(-1, C).sum(0)", ".reshape(-1, C).mean(0)"),
        ("r = len(w) // 2", "r = 1"),
    ],
}
