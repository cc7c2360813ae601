"""Rotary positions (https://arxiv.org/abs/2104.09864): query and key are turned by an angle that grows with the place."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import Block, attention
from converter.models.parts import Make, Raw, rows_of

Tensor = Any
Array = np.ndarray[Any, Any]
Turn = tuple[Tensor, Tensor]


class RotaryBlock(Block):
    """A block whose query and key are turned; what it is given as ``bias`` is the turn, and nothing is added to scores."""

    def attend(self, x: Tensor, bias: Any, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself, each token turned by its place."""
        return attention(
            self, x, x, None, self.spec.heads, self.drop_attention, training, turn=lambda heads: turned(heads, bias)
        )


class TurnedBlock(Block):
    """A block whose query and key are turned; what it is given as ``bias`` are the turn and the mask's bias."""

    def attend(self, x: Tensor, bias: Any, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself, each token turned by its place."""
        turn, mask = bias
        heads, drop = self.spec.heads, self.drop_attention
        return attention(self, x, x, mask, heads, drop, training, turn=lambda heads: turned(heads, turn))


def turned(x: Tensor, turn: Turn) -> Tensor:
    """``(batch, length, heads, head)`` turned: the two halves of a head are the two coordinates of each point.

    The turn is ``(length, head)``, or ``(batch, length, head)`` where each text has its own.
    """
    cosines, sines = (ops.expand_dims(ops.cast(ops.convert_to_tensor(part), x.dtype), -2) for part in turn)
    first, second = ops.split(x, 2, axis=-1)
    return x * cosines + ops.concatenate([-second, first], axis=-1) * sines


def patch_centres(rows: int, columns: int) -> Array:
    """The centres of an image's patches, row by row, with the image from -1 to 1 on either axis.

    Returns:
        ``(rows * columns, 2)``, y and x, in float32 as in PyTorch for any dtype of the model.
    """
    one = np.float32(1)
    centres = [np.arange(0.5, size, dtype=np.float32) / np.float32(size) for size in (rows, columns)]
    return np.float32(2) * np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2) - one


def moved(centres: Tensor, shift: float | None, jitter: float | None, rescale: float | None, seeds: Any) -> Tensor:
    """Centres as training moves them, all at random: DINOv3's augmentation of positions.

    Args:
        centres: ``(patches, 2)``.
        shift: how far either coordinate goes at most; None: nowhere.
        jitter: by what either coordinate is stretched at most, and the inverse at least; None: by nothing.
        rescale: the same for both at once.
        seeds: what random numbers are drawn from.

    Returns:
        ``(patches, 2)``.
    """

    def between(count: int, limit: float) -> Tensor:
        return keras.random.uniform((1, count), -limit, limit, dtype="float32", seed=seeds)

    if shift is not None:
        centres = centres + between(2, shift)
    for count, most in ((2, jitter), (1, rescale)):
        if most is not None:
            centres = centres * ops.exp(between(count, math.log(most)))
    return centres


def cosine_and_sine(angles: Tensor) -> Turn:
    """Both of a tensor, in its dtype; Keras' own round float64 to float32 on JAX."""
    if keras.backend.backend() != "jax":
        return ops.cos(angles), ops.sin(angles)
    import jax.numpy as jnp

    return jnp.cos(angles), jnp.sin(angles)


def patch_numbers(rows: int, columns: int) -> Array:
    """Row and column of each patch, counted from 0, row by row: ``(rows * columns, 2)`` in float32."""
    return np.indices((rows, columns), np.float32).reshape(2, -1).T


def grid_turn(places: Tensor, head: int, base: float, before: int, unit: float = 2 * math.pi) -> Turn:
    """Cosines and sines for patches: a quarter of a head by the row, a quarter by the column, and the same again.

    Args:
        places: of the patches ``(patches, 2)``, in float32; an array, or a tensor where training moved them.
        head: width of a head.
        base: of the frequencies.
        before: tokens before the patches, which are not turned.
        unit: by what angle 1 turns at the highest frequency.

    Returns:
        Two of ``(before + patches, head)``.

    Raises:
        UnsupportedOption: the heads have a width that cannot be turned.
    """
    if head % 4:
        raise UnsupportedOption(
            f"num_attention_heads makes heads of width {head}; rotary positions of images need a multiple of 4. "
            "Correct the config."
        )
    steps = (np.arange(head // 4) * (4 / head)).astype(np.float32)
    frequency = np.float32(1) / (base ** steps.astype(np.float64)).astype(np.float32)
    zeros = np.zeros_like(frequency)
    # As a product of matrices whose zeros leave each coordinate to its own quarter.
    by_axis = np.stack([np.concatenate([frequency, zeros] * 2), np.concatenate([zeros, frequency] * 2)])
    angles = (np.float32(unit) * places) @ by_axis
    still = np.zeros((before, head), np.float32)
    if isinstance(angles, np.ndarray):
        # Rounded correctly, as nine in ten of PyTorch's own float32 cosines are.
        exact = np.concatenate([still, angles]).astype(np.float64)
        return np.cos(exact).astype(np.float32), np.sin(exact).astype(np.float32)
    return cosine_and_sine(ops.concatenate([still, angles], axis=0))


class Frequencies(Raw):
    """The frequencies of a head's points, where a checkpoint stores them: not trained, and those of the file count.

    Args:
        head: width of a head, an even number.
        base: of the frequencies of a new model.
    """

    def __init__(self, head: int, base: float) -> None:
        super().__init__((head // 2,))
        self.base = base

    def build(self, make: Make) -> None:
        """Creates the tensor, which mixed precision does not cast."""
        values = falling(2 * self.shape[0], self.base)
        self.value = self.weights[""] = make("", self.shape, "constant", values, autocast=False, trainable=False)

    def turn(self, position_ids: Tensor, dtype: str) -> Turn:
        """Cosines and sines for tokens ``(batch, length)``, of angles in float32 as in PyTorch, rounded as ``dtype`` asks.

        Returns:
            Two of ``(batch, length, head)``, float32.
        """
        places = ops.expand_dims(ops.cast(position_ids, "float32"), -1)
        angles = places * ops.cast(self.value, "float32")
        # In float64, in which JAX can be had only where the model is in it, rounded correctly.
        waves = cosine_and_sine(ops.cast(angles, "float64") if dtype == "float64" else angles)
        cosines, sines = (ops.cast(ops.concatenate([wave, wave], axis=-1), "float32") for wave in waves)
        return cosines, sines


def falling(head: int, base: float) -> Array:
    """The frequencies of the points of a head, ``base ** (-2 i / head)``: ``(head / 2,)``, float32."""
    steps = np.arange(0, head, 2, dtype=np.float32) / np.float32(head)
    return np.float32(1) / (base ** steps.astype(np.float64)).astype(np.float32)


def text_turn(position_ids: Tensor, positions: int, head: int, base: float) -> Turn:
    """Cosines and sines for tokens, in float32 as in PyTorch whatever the model is in.

    They are rows of a table, so that every backend and every runtime has the same, rounded correctly.

    Args:
        position_ids: ``(batch, length)``, below ``positions``.
        positions: how many there are.
        head: width of a head, an even number.
        base: of the frequencies.

    Returns:
        Two of ``(batch, length, head)``.
    """
    angles = np.arange(positions, dtype=np.float32)[:, None] * np.concatenate([falling(head, base)] * 2)
    cosines, sines = (wave(angles.astype(np.float64)).astype(np.float32) for wave in (np.cos, np.sin))
    return rows_of(ops.convert_to_tensor(cosines), position_ids), rows_of(ops.convert_to_tensor(sines), position_ids)
