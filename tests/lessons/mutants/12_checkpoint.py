"""Wrong answers to the tasks of lesson 12."""

MUTANTS = {
    "to_infinity": [
        ("return 30", "return 31"),  # the sign
        ("return 30", "return 23"),  # the exponent's lowest bit
        ("return 30", "return 29"),
        ("return 30", "return 22"),
    ],
    "tensor_of": [
        ("(8 + n + offset", "(n + offset"),
        ("(8 + n + offset", "(8 + offset"),
        ('"little"', '"big"'),
        ('kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]', 'kind = "<f4"'),
        ('"F64": "<f8"', '"F64": ">f8"'),
        ('.reshape(entry["shape"])', ""),
        ("8 + n + offset", "8 + len(file[8 : 8 + n].decode()) + offset"),  # characters are not bytes
    ],
    "strides": [
        ("[ours[3], ours[2], ours[0], ours[1]]", "[n_in * kh * kw, kh * kw, kw, 1]"),  # if bytes had moved
        ("[ours[3], ours[2], ours[0], ours[1]]", "[ours[3], ours[2], ours[1], ours[0]]"),
        ("[kw * n_in * n_out, n_in * n_out, n_out, 1]", "[1, kh, kh * kw, kh * kw * n_in]"),
        ("ours = [kw *", "ours = [kh *"),
        (
            "[kw * n_in * n_out, n_in * n_out, n_out, 1]",
            "[4 * kw * n_in * n_out, 4 * n_in * n_out, 4 * n_out, 4]",
        ),
    ],
    "machine": [
        (
            "stack, marks, memo = [], [], {}",
            "import pickle\n    return np.array(pickle.loads(program.tobytes()))",
        ),
        (
            "del stack[-2:]\n                stack.append(-1)",
            "args = stack.pop()\n                stack[-1] = abs(*args)",  # it calls
        ),
        ("del stack[-2:]", "del stack[-1:]"),
        ("memo[arg] = stack[-1]", "memo[arg] = stack.pop()"),
        ("stack.append(memo[arg])", "pass"),
        ("stack[at - 1].extend(stack[at:])", "stack[at - 1].extend(stack[at:][::-1])"),
        ("stack[at - 1].extend(stack[at:])", "stack[at - 1].append(stack[at:])"),
        ("marks.append(len(stack))", "marks = [len(stack)]"),  # marks are nested
    ],
}
