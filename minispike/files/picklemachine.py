"""The stack machine that a pickle is a program for, without the power to import.

A pickle builds objects on a stack. Most of its instructions push constants and fill containers; two can do
anything, because an ordinary unpickler imports what GLOBAL names and calls what REDUCE finds on the stack:

    GLOBAL torch._utils _rebuild_tensor_v2   →  push a function, found by its name
    REDUCE                                   →  call it with the arguments on the stack

Here GLOBAL pushes an `Inert` record of the name. REDUCE calls the few functions that its caller has listed by
name (of a tensor, an OrderedDict, a Size); of any other call it makes a record, too. So whatever a pickle
holds, the part around it stays readable, and nothing is executed.

Memory is bounded by about 100 bytes per byte of pickle, and PROGRAM limits the pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

PROGRAM = 2**22  # bytes of a pickle, 4 MiB: a tensor takes about 150, so 20,000 tensors fit


class FileFormatError(ValueError):
    """A file that cannot be read as what it claims to be. The message says which file, and why."""


@dataclass(eq=False, slots=True)
class Inert:
    """Something that a pickle asked for and did not get: its name, and what would have been done with it.

    args: of a call.    state: what would have become its attributes.    items: what it would have contained.
    """

    name: str
    args: tuple = ()
    state: Any = None
    items: list | tuple = ()


def run_pickle(program: bytes | BytesIO, calls: dict[str, Callable], persistent: Any = None) -> Any:
    """Run a pickle on a machine that imports nothing; return what is left on the stack.

    program: the pickle, or a stream that is left just behind it.
    calls: the globals that may be called, "module.name": function. All others become Inert.
    persistent: resolves persistent ids, which refer to data outside the pickle.
    """
    stack: list = []
    marks: list[int] = []  # the position on the stack of each open MARK
    memo: dict[int, Any] = {}
    start, copied = None, 0

    def since_mark() -> list:
        at = marks.pop()
        values = stack[at:]
        del stack[at:]
        return values

    for opcode, arg, at in pickletools.genops(program):
        start = at if start is None else start
        if at - start > PROGRAM:
            raise FileFormatError(f"its pickle is larger than {PROGRAM:,} bytes: more than tensors need")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                if len(stack) != 1 or marks:
                    raise FileFormatError("the pickle ends with a stack of more than one value")
                return stack.pop()
            # constants
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "INT" | "LONG" | "FLOAT":
                stack.append(arg)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE":
                stack.append(arg)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                stack.append(arg)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(_text_of_python_2(arg))
            # containers
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append(Inert("builtins.set"))
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(_top(stack, n))]
            case "LIST":
                stack.append(since_mark())
            case "DICT":
                stack.append(_set({}, since_mark()))
            case "FROZENSET":
                stack.append(Inert("builtins.frozenset", items=since_mark()))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                values = since_mark()
                _extend(stack[-1], values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                values = since_mark()
                _set(stack[-1], values)
            # the stack itself, and the memo
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                marks.pop() if marks and marks[-1] == len(stack) else stack.pop()
            case "POP_MARK":
                since_mark()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            # names and calls: where an ordinary unpickler imports and executes
            case "GLOBAL":
                stack.append(Inert(arg.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise FileFormatError("a global whose name is not text")
                stack.append(Inert(f"{module}.{name}"))
                copied += (len(module) + len(name)) // 8
            case "EXT1" | "EXT2" | "EXT4":
                stack.append(Inert(f"copyreg.extension_{arg}"))
            case "REDUCE" | "NEWOBJ":
                args, function = stack.pop(), stack.pop()
                stack.append(call(function, args, calls))
                copied += sum(len(a) for a in args if isinstance(a, (list, tuple)) and function.name in calls)
            case "NEWOBJ_EX":
                named, args, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(call(function, (args, named), {}))
            case "OBJ":
                function, *args = since_mark()
                stack.append(call(function, tuple(args), {}))
            case "INST":
                stack.append(Inert(arg.replace(" ", "."), tuple(since_mark())))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Inert):
                    stack[-1].state = state
                elif not isinstance(stack[-1], (dict, np.ndarray)):  # their attributes are left out
                    raise FileFormatError(f"state for a {type(stack[-1]).__name__}")
            case "BINPERSID":
                if persistent is None:
                    raise FileFormatError("refers to data outside the pickle")
                stack.append(persistent(stack.pop()))
            case _:
                raise FileFormatError(f"the pickle instruction {opcode.name}, which torch.save never writes")
        if copied > at - start:  # by fetching one long list or name from the memo again and again
            raise FileFormatError("its calls copy more than the file holds")
    raise FileFormatError("the pickle has no end")


def call(function: Any, args: Any, calls: dict[str, Callable]) -> Any:
    """Call a function that `calls` lists by its name; of any other call return an Inert record."""
    if not isinstance(function, Inert) or not isinstance(args, tuple):
        raise FileFormatError(f"calls a {type(function).__name__}")
    if function.name in calls:
        return calls[function.name](*args)
    return Inert(function.name, args)


def ordered_dict(pairs: Any = ()) -> dict:
    """Return what collections.OrderedDict(pairs) means."""
    result: dict = {}
    for key, value in pairs:
        _set(result, [key, value])
    return result


# ---------------------------------------------------------------- what the instructions share


def _top(stack: list, n: int) -> list:
    if len(stack) < n:
        raise FileFormatError("the pickle takes from an empty stack")
    return stack[-n:]


def _text_of_python_2(text: str) -> str | bytes:
    """Return a string of Python 2 as text, where it is UTF-8, else as bytes; pickletools gives Latin-1."""
    data = text.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _extend(target: Any, values: list) -> None:
    if isinstance(target, Inert):
        target.items = target.items or []
        target.items += values
    elif isinstance(target, list):
        target += values
    else:
        raise FileFormatError(f"appends to a {type(target).__name__}")


def _set(target: Any, values: list) -> Any:
    """Set target[key] = value for alternating keys and values, no key twice, and return the target.

    Text, bytes and numbers are keys. Any other key that Python can hash (a tuple, a tensor, an object) is
    wrapped in an Inert: hashing tuples that are nested a million deep would overflow C's stack.
    """
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if isinstance(target, Inert):
        _extend(target, pairs)
        return target
    for key, value in pairs:
        if not isinstance(target, dict) or isinstance(key, (list, dict)):
            raise FileFormatError(f"sets an item of a {type(target).__name__} by a {type(key).__name__}")
        if not isinstance(key, (str, bytes, int, float, Inert, type(None))):
            key = Inert("a key", (key,))
        if key in target:
            name = key.name if isinstance(key, Inert) else str(key)[:80]
            raise FileFormatError(f"has two entries of one name, {name}")
        target[key] = value
    return target
