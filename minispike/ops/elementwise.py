"""Elementwise operations. Inputs broadcast; a gradient is summed back to its input's shape."""

from __future__ import annotations

from ..autograd import Function, Tensor, unbroadcast

# ---------------------------------------------------------------- of two inputs


def _shape(x) -> tuple[int, ...]:
    return getattr(x, "shape", ())  # a Python number has none


class Add(Function):
    """y = x + w        gx = gy        gw = gy"""

    def forward(self, x, w):
        self.shapes = _shape(x), _shape(w)
        return x + w

    def backward(self, gy):
        gx = unbroadcast(gy, self.shapes[0]) if self.needs[0] else None
        gw = unbroadcast(gy, self.shapes[1]) if self.needs[1] else None
        return gx, gw


class Sub(Function):
    """y = x − w        gx = gy        gw = −gy"""

    def forward(self, x, w):
        self.shapes = _shape(x), _shape(w)
        return x - w

    def backward(self, gy):
        gx = unbroadcast(gy, self.shapes[0]) if self.needs[0] else None
        gw = -unbroadcast(gy, self.shapes[1]) if self.needs[1] else None
        return gx, gw


class Mul(Function):
    """y = x · w        gx = gy · w        gw = gy · x"""

    def forward(self, x, w):
        self.shapes = _shape(x), _shape(w)
        self.x = x if self.needs[1] else None  # each input is kept only for the other's gradient
        self.w = w if self.needs[0] else None
        return x * w

    def backward(self, gy):
        gx = unbroadcast(gy * self.w, self.shapes[0]) if self.needs[0] else None
        gw = unbroadcast(gy * self.x, self.shapes[1]) if self.needs[1] else None
        return gx, gw


class Div(Function):
    """y = x / w        gx = gy / w        gw = −gy · y / w"""

    def forward(self, x, w):
        self.shapes = _shape(x), _shape(w)
        y = x / w
        self.w = w
        self.y = y if self.needs[1] else None
        return y

    def backward(self, gy):
        gx = gy / self.w
        gw = unbroadcast(-gx * self.y, self.shapes[1]) if self.needs[1] else None
        return unbroadcast(gx, self.shapes[0]), gw


def add(x, w) -> Tensor:
    """Return x + w."""
    return Add.apply(x, w)


def sub(x, w) -> Tensor:
    """Return x − w."""
    return Sub.apply(x, w)


def mul(x, w) -> Tensor:
    """Return x · w, element by element."""
    return Mul.apply(x, w)


def div(x, w) -> Tensor:
    """Return x / w, element by element."""
    return Div.apply(x, w)


# ---------------------------------------------------------------- of one input


class Neg(Function):
    """y = −x        gx = −gy"""

    def forward(self, x):
        return -x

    def backward(self, gy):
        return -gy


class Power(Function):
    """y = xᵖ        gx = gy · p · xᵖ⁻¹        (p a constant)"""

    def forward(self, x, p):
        self.x, self.p = x, p
        return x**p

    def backward(self, gy):
        return gy * (self.p * self.x ** (self.p - 1)) if self.p else 0 * gy  # x⁰ is 1, at x = 0 too


class Exp(Function):
    """y = eˣ        gx = gy · y"""

    def forward(self, x):
        self.y = self.xp.exp(x)
        return self.y

    def backward(self, gy):
        return gy * self.y


class Log(Function):
    """y = ln x        gx = gy / x"""

    def forward(self, x):
        self.x = x
        return self.xp.log(x)

    def backward(self, gy):
        return gy / self.x


class Tanh(Function):
    """y = tanh x        gx = gy · (1 − y²)"""

    def forward(self, x):
        self.y = self.xp.tanh(x)
        return self.y

    def backward(self, gy):
        return gy * (1 - self.y * self.y)


class Rectify(Function):
    """y = max(x, 0)        gx = gy where x > 0"""

    def forward(self, x):
        self.positive = x > 0
        return self.xp.maximum(x, 0)

    def backward(self, gy):
        return gy * self.positive


def neg(x) -> Tensor:
    """Return −x."""
    return Neg.apply(x)


def power(x, p: float) -> Tensor:
    """Return x to the constant power p."""
    return Power.apply(x, p=float(p))


def exp(x) -> Tensor:
    """Return eˣ."""
    return Exp.apply(x)


def log(x) -> Tensor:
    """Return the natural logarithm of x."""
    return Log.apply(x)


def tanh(x) -> Tensor:
    """Return the hyperbolic tangent of x."""
    return Tanh.apply(x)


def relu(x) -> Tensor:
    """Return max(x, 0)."""
    return Rectify.apply(x)
