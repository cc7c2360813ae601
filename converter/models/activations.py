"""Activation functions by the names that configs use, exactly as PyTorch computes them.

Keras' own ``gelu`` rounds its constant to float32, which shows in a float64 model, so the formulas are written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from converter.errors import UnsupportedOption, listed, printable

Tensor = Any
Activation = Callable[[Tensor], Tensor]


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit by the error function (https://arxiv.org/abs/1606.08415)."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent in the dtype of ``x``; Keras' own rounds float64 to float32 on JAX."""
    y = ops.tanh(x)
    return y if y.dtype == x.dtype else 2.0 * ops.sigmoid(2.0 * x) - 1.0


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of ``gelu`` (section 2 of https://arxiv.org/abs/1606.08415)."""
    return 0.5 * x * (1.0 + tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


def gelu_fast(x: Tensor) -> Tensor:
    """``gelu_tanh`` with its constant cut to ten digits, as ``gelu_fast`` has it."""
    return 0.5 * x * (1.0 + tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of ``gelu`` that CLIP was trained with."""
    return x * ops.sigmoid(1.702 * x)


def clipped_gelu(x: Tensor) -> Tensor:
    """``gelu`` cut to [-10, 10]."""
    return ops.clip(gelu(x), -10.0, 10.0)


def mish(x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return x * tanh(ops.softplus(x))


def laplace(x: Tensor) -> Tensor:
    """The Laplace function of MEGA (https://arxiv.org/abs/2209.10655) with its two constants."""
    return 0.5 * (1.0 + ops.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


def hard_swish(x: Tensor) -> Tensor:
    """``x * relu6(x + 3) / 6``."""
    return x * ops.relu6(x + 3.0) / 6.0


def leaky_relu(x: Tensor) -> Tensor:
    """``max(x, 0.01 x)``, PyTorch's default slope."""
    return ops.maximum(x, 0.01 * x)


def relu_squared(x: Tensor) -> Tensor:
    """``relu(x)`` squared."""
    return ops.square(ops.relu(x))


def linear(x: Tensor) -> Tensor:
    """``x`` itself."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_10": clipped_gelu,
    "gelu_fast": gelu_fast,
    "gelu_new": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": ops.relu,
    "relu2": relu_squared,
    "relu6": ops.relu6,
    "leaky_relu": leaky_relu,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "swish": ops.silu,
    "hardswish": hard_swish,
    "mish": mish,
    "laplace": laplace,
    "linear": linear,
    "tanh": tanh,
}


def activation(name: str, field: str = "hidden_act") -> Activation:
    """Finds an activation by its name in a config.

    Args:
        name: what the config says, for example ``"quick_gelu"``.
        field: the config field it comes from, for the message.

    Returns:
        A function of one tensor.

    Raises:
        UnsupportedOption: the activation does not exist, or has its own weights (``prelu``, ``xielu``).
    """
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise UnsupportedOption(
            f"{field} is {printable(str(name))!r}; expected one of {listed(sorted(ACTIVATIONS), 30)}. "
            f"Set {field} in the config to one of these, or keep this model in PyTorch."
        ) from None
