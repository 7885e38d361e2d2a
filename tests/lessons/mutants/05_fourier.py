"""Wrong answers to the tasks of lesson 05."""

MUTANTS = {
    "rank": [
        ("stay = 2 - N % 2", "stay = 2"),  # right for even N alone
        ("stay *= 2 - D % 2", "stay *= 2"),
        ("return (N * D + stay) // 2", "return (N * D + 2) // 2"),
        ("return (N + stay) // 2", "return N // 2"),
        ("return (N * D + stay) // 2", "return (N // 2 + 1) * (D // 2 + 1)"),  # as if both axes lost a half
        ("return (N + stay) // 2", "return N"),
    ],
    "mix": [
        ("from_cosines - from_sines}", "from_cosines + from_sines}"),
        ("from_cosines - from_sines}", "from_cosines}"),
        ("np.sin(angle[n]) / n**0.5", "np.sin(angle[n]) / n"),
        ("/ n**0.5", "* 1.0"),  # no scale
        ("(N, D)", "(D, D)"),
        ("2 * np.pi", "np.pi"),
        ("np.arange(n), np.arange(n)", "np.arange(n), np.arange(1, n + 1)"),  # tokens counted from 1
        ("C_N @ X @ C_D", "C_N @ X"),
    ],
    "twice": [
        ("np.roll(np.flip(X, -2), 1, -2)", "np.flip(X, -2)"),  # token 0 moves
        ("1, -2", "-1, -2"),
        ("X, -2", "X, -1"),
        ("(X + np.roll(np.flip(X, -2), 1, -2)) / 2", "X"),
        (") / 2", ")"),
        ("X + np", "X - np"),
        ("-2), 1, -2", "0), 1, 0"),  # right for [N, D] alone
    ],
    "power": [
        ("2 * real * gY", "real * gY"),
        ("+ F.imag.T @ (2 * imaginary * gY)", ""),
        ("F.real.T @ (2 * real * gY) + ", "F.real.T @ (2 * real * gY) - "),
        (', norm="ortho"', ""),
        ("real**2 + imaginary**2", "(real**2 + imaginary**2) ** 0.5"),
        ("real**2 + imaginary**2", "real**2 - imaginary**2"),  # the square, not the squared length
        ("(2 * real * gY)", "(2 * X * gY)"),
        ("X.shape[-2]", "X.shape[0]"),
    ],
}
