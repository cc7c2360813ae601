"""The losses of pairs: CLIP's contrastive one (https://arxiv.org/abs/2103.00020, figure 3), and SigLIP's sigmoid."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from converter.errors import ModelError

Tensor = Any


def contrastive_loss(logits: Tensor) -> Tensor:
    """Cross entropy of each row with its own number as the label.

    Args:
        logits: ``(n, n)``; row i belongs to column i.

    Returns:
        The mean over rows, a scalar.

    Raises:
        ModelError: the logits are not square.
    """
    return _cost(ops.diagonal(ops.log_softmax(squared(logits), axis=-1)))


def _cost(likelihoods: Tensor) -> Tensor:
    """Minus the sum of log likelihoods, by the number of rows; Keras' own mean takes float64 down to float32 on JAX."""
    return -ops.sum(likelihoods) / ops.cast(ops.shape(likelihoods)[0], likelihoods.dtype)


def squared(logits: Tensor) -> Tensor:
    """The logits ``(n, n)``, known to be square.

    Raises:
        ModelError: they are not.
    """
    logits = ops.convert_to_tensor(logits)
    rows, columns = logits.shape
    if rows is not None and columns is not None and rows != columns:
        raise ModelError(
            f"The contrastive loss needs as many images as texts; logits have shape ({rows}, {columns}). "
            "Pair each text with one image, or leave return_loss out."
        )
    size = ops.shape(logits)[0]
    return ops.reshape(logits, (size, size))


def per_replica(loss: Tensor) -> Tensor:
    """A replica's share of a loss, which ``tf.distribute`` adds up, as Keras' own losses scale theirs.

    Args:
        loss: a scalar, the mean over what this replica sees.

    Returns:
        The same, divided by the number of replicas if there are several.
    """
    if keras.backend.backend() != "tensorflow":
        return loss
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / ops.cast(replicas, loss.dtype)


def clip_loss(similarity: Tensor) -> Tensor:
    """Mean of the contrastive losses over texts and over images.

    Args:
        similarity: logits per text ``(n, n)``; its transpose gives the same loss.

    Returns:
        A scalar.

    Raises:
        ModelError: the numbers of texts and images differ.
    """
    return (contrastive_loss(similarity) + contrastive_loss(ops.transpose(similarity))) / 2.0


def sigmoid_loss(similarity: Tensor) -> Tensor:
    """A sigmoid for each pair: 1 where text and image belong together, 0 elsewhere (https://arxiv.org/abs/2303.15343).

    Args:
        similarity: logits per text ``(n, n)``; text i belongs to image i.

    Returns:
        The sum over the images of a text, averaged over texts; a scalar.

    Raises:
        ModelError: the numbers of texts and images differ.
    """
    logits = squared(similarity)
    signs = 2.0 * ops.eye(ops.shape(logits)[0], dtype=logits.dtype) - 1.0
    return _cost(ops.log_sigmoid(signs * logits))
