"""Stages of depthwise convolutions ("A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545), channels last throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from keras import ops

from converter.errors import ModelError
from converter.models.activations import activation
from converter.models.depthwise import Depthwise
from converter.models.embeddings import Patches
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Part, Raw, in_float32
from converter.models.stages import drop_path_rate
from converter.models.tower import asked
from converter.models.vision_tower import Size, VisionTower

Tensor = Any

SIDES = (7, 7)  # of the depthwise kernels


def channels_first(x: Tensor) -> Tensor:
    """``(batch, height, width, channels)`` as PyTorch gives it out."""
    return ops.transpose(x, (0, 3, 1, 2))


@dataclass(frozen=True)
class ConvSpec:
    """The shape of a block.

    Args:
        width: channels.
        act: name of the activation.
        eps: of the norm.
        names: path of each role, in the order of creation: depthwise, norm, up, down, maybe scale.
        std: of new kernels.
        drop_path: stochastic depth.
        layer_scale: initial value of the layer scale, which exists where ``names`` has it.
    """

    width: int
    act: str
    eps: float
    names: Mapping[str, str]
    std: float
    drop_path: float = 0.0
    layer_scale: float = 1.0


class ConvBlock(CompositeLayer):
    """A depthwise convolution, a norm and an MLP four times as wide, with one residual around all."""

    # The part that ends each kind of branch, see ``converter.parity``.
    ends: ClassVar[Mapping[str, str]] = MappingProxyType({"mlp_output": "down"})

    def __init__(
        self, spec: ConvSpec, seeds: Any = None, own: Mapping[str, Part] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.spec = spec
        parts = {
            "depthwise": Depthwise(spec.width, SIDES, spec.std),
            "norm": Norm(spec.width, spec.eps),
            "up": Dense(spec.width, 4 * spec.width, std=spec.std),
            "down": Dense(4 * spec.width, spec.width, std=spec.std),
            "scale": Raw((spec.width,), value=spec.layer_scale),
            **own,
        }
        for role, path in spec.names.items():
            setattr(self, role, self.part(path, parts[role]))
        self.act = partial(in_float32, activation(spec.act))
        self.drop_path = Dropout(spec.drop_path, seeds, per_sample=True)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """``(batch, height, width, channels)`` to the same shape."""
        y = self.down(self.inner(self.up(self.norm(self.depthwise(x)))))
        if "scale" in self.spec.names:
            y = ops.multiply(y, self.scale.value)
        return ops.add(x, self.drop_path(y, training))

    def inner(self, x: Tensor) -> Tensor:
        """What is between the two dense layers."""
        return self.act(x)


class Stem(CompositeLayer):
    """Patches of the image, normalised: ``names`` has their path and the norm's."""

    def __init__(self, patches: Patches, eps: float, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patches = self.part(names[0], patches)
        self.norm = self.part(names[1], Norm(patches.width, eps))

    def call(self, pixel_values: Tensor, training: bool = False) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, rows, columns, width)``."""
        del training
        rows, columns = (size // side for size, side in zip(pixel_values.shape[2:], self.patches.patch, strict=True))
        x = self.norm(self.patches(pixel_values))
        return ops.reshape(x, (-1, rows, columns, self.patches.width))


class Shrinking(CompositeLayer):
    """A norm, then a convolution of 2 by 2 with that stride: ``names`` has the path of either."""

    def __init__(self, width: int, outputs: int, eps: float, std: float, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = self.part(names[0], Norm(width, eps))
        self.patches = self.part(names[1], Patches(width, (2, 2), outputs, bias=True, std=std))

    def call(self, x: Tensor) -> Tensor:
        """``(batch, height, width, channels)`` to half the height and width, what is left over cut off."""
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        x = self.patches(channels_first(self.norm(x)))
        return ops.reshape(x, (-1, rows, columns, self.patches.width))


class ConvTower(VisionTower):
    """Stages of blocks; hidden states are given out once per stage, channels first, and there are no attention weights.

    A tower's file gives the paths of its parts, and how the last stage's grid becomes one vector.
    """

    block: type[ConvBlock] = ConvBlock
    stages_at: ClassVar[str]
    shrinking_at: ClassVar[tuple[str, str]]

    def assemble(self, config: Any) -> None:
        """Stem, stages of blocks with a shrinking before each but the first, norm."""
        widths, std, eps = config.hidden_sizes, config.initializer_range, self.inner_eps(config)
        self.embeddings = self.stem(config)
        self.stages: list[Any] = []
        self.shrinkings: list[Any] = []
        for stage in range(config.num_stages):
            path, width = f"{self.main_layer}/{self.stages_at}.{stage}", widths[stage]
            if stage:
                options = (widths[stage - 1], width, eps, std, self.shrinking_at)
                self.shrinkings.append(self.layer(path, Shrinking, *options))
            self.stages.append(
                [
                    self.layer(
                        f"{path}/layers.{i}",
                        self.block,
                        ConvSpec(
                            width=width,
                            act=config.hidden_act,
                            eps=eps,
                            names=self.names(config),
                            std=std,
                            drop_path=drop_path_rate(config, stage, i),
                            layer_scale=getattr(config, "layer_scale_init_value", 1.0),
                        ),
                        self.seeds,
                    )
                    for i in range(config.depths[stage])
                ]
            )
        self.norm = self.part(self.norm_at(), Norm(widths[-1], config.layer_norm_eps))

    def inner_eps(self, config: Any) -> float:
        """Epsilon of all norms but the last."""
        raise NotImplementedError

    def stem(self, config: Any) -> Any:
        """Makes what is before the first stage."""
        raise NotImplementedError

    def names(self, config: Any) -> Mapping[str, str]:
        """The path of each role of a block."""
        raise NotImplementedError

    def norm_at(self) -> str:
        """The path of the last norm."""
        return f"{self.main_layer}/layernorm"

    def check_size(self, size: Size) -> None:
        """Any size from which a patch is left at the last stage."""
        least = [side * 2 ** (self.config.num_stages - 1) for side in self.embeddings.patches.patch]
        if size[0] < least[0] or size[1] < least[1]:
            raise ModelError(
                f"pixel_values is {size[0]} x {size[1]}, of which no patch is left at the last stage. Use images of at "
                f"least {least[0]} x {least[1]}."
            )

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the stages; ``bias`` is the first hidden state if it is not the stem's output."""
        del output_attentions
        states = [channels_first(x) if bias is None else bias]
        for stage, blocks in enumerate(self.stages):
            if stage:
                x = self.shrinkings[stage - 1](x)
            for block in blocks:
                x = block(x, training=training)
            states.append(channels_first(x))
        wanted = asked(output_hidden_states, self.config, "output_hidden_states")
        return x, {"hidden_states": tuple(states) if wanted else None, "attentions": None}


def mean_of_grid(x: Tensor) -> Tensor:
    """``(batch, height, width, channels)`` to ``(batch, channels)``."""
    return ops.sum(x, axis=(1, 2)) / (x.shape[1] * x.shape[2])
