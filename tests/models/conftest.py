"""Models that several tests share, each built once."""

from __future__ import annotations

import itertools
import os
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import torch
import transformers

from converter.names.families import JOINED
from tests.models import reference
from tests.models.families import FAMILIES, WHOLES, Kind, config_of, kind_of, make_dual
from tests.sampling import changed_files, families_in_turn
from tests.torture import FULL
from tests.towers import ROUND, TEXT, VISION

PAIRS = [f"{vision}+{text}" for vision in ("clip_vision_model", "vit") for text in ("bert", "roberta")]
# Towers that these do not have.
FURTHER_VISION, FURTHER_TEXT = (
    tuple(t for t in towers if all(t not in pair.split("+") for pair in PAIRS)) for towers in (VISION, TEXT)
)


_CHOSEN = families_in_turn(changed_files())
IN_TURN = {name: kind for name, kind in FAMILIES.items() if name in _CHOSEN}
# Two of those, for what is dear and depends little on the towers; under `make torture` all.
_OTHERS = [name for name in IN_TURN if name != JOINED]
FEW = IN_TURN if FULL else {name: IN_TURN[name] for name in (JOINED, _OTHERS[ROUND % len(_OTHERS)])}


class Case(NamedTuple):
    """One config on both sides with the same weights."""

    config: Any
    torch: Any
    keras: Any
    inputs: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """Its family."""
        return kind_of(self.config)

    @property
    def images(self) -> dict[str, Any]:
        """Those of the inputs that its vision tower takes."""
        return {name: value for name, value in self.inputs.items() if name in self.keras.vision_model.input_fields}

    @property
    def texts(self) -> dict[str, Any]:
        """Those of the inputs that its text tower takes."""
        return {name: value for name, value in self.inputs.items() if name not in self.images}


@pytest.fixture(scope="session", params=[*PAIRS, *(name for name in IN_TURN if name in WHOLES)])
def case(request: pytest.FixtureRequest) -> Case:
    """Each of the four pairs, and one of each other family whose turn it is, in float32."""
    return make_case(config_of(request.param))


@pytest.fixture(params=IN_TURN.values(), ids=IN_TURN)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each family whose turn it is."""
    found: Kind = request.param
    return found


@pytest.fixture(params=FEW.values(), ids=FEW)
def one_kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the two families that dear tests look at today."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session", params=IN_TURN.values(), ids=IN_TURN)
def one(request: pytest.FixtureRequest) -> Case:
    """One model of each family whose turn it is, for what does not depend on the towers."""
    return make_case(request.param.make())


@pytest.fixture(autouse=True)
def angles_rounded_correctly(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes the cosines of rotary positions in float32 whatever the model is in, one in twenty not the nearest."""
    for of, name in itertools.product((torch, torch.Tensor), ("cos", "sin", "exp")):
        exact = getattr(of, name)
        monkeypatch.setattr(of, name, lambda x, exact=exact: exact(x.double()).to(x.dtype))


@pytest.fixture(autouse=True)
def softmax_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's MarkupLM and Longformer, of eager attention only, take their softmax in float32 in float64, too."""
    softmax = torch.nn.functional.softmax

    def exact(x: Any, dim: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
        return softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "softmax", exact)


@pytest.fixture(autouse=True)
def positions_resized_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's SigLIP 2 resizes positions in float32 in a model of float64, too: there by what its weights are made after."""
    kind = transformers.models.siglip2.modeling_siglip2.Siglip2VisionEmbeddings
    usual = kind.resize_positional_embeddings

    def exact(grid: Any, shapes: Any, max_length: int) -> Any:
        if grid.dtype != torch.float64:
            return usual(grid, shapes, max_length)
        made = []
        for shape in shapes.tolist():
            rows = reference.interpolated(grid, shape)
            made.append(torch.cat([rows, rows[:1].expand(max_length - len(rows), -1)]))
        return torch.stack(made)

    monkeypatch.setattr(kind, "resize_positional_embeddings", staticmethod(exact))


@pytest.fixture(autouse=True)
def norms_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's RMS norms are taken in float32 in a model of float64, too."""
    models = transformers.models
    for kind in (models.aimv2.modeling_aimv2.Aimv2RMSNorm, models.sapiens2.modeling_sapiens2.Sapiens2RMSNorm):

        def exact(self: Any, x: Any, usual: Any = kind.forward) -> Any:
            if x.dtype != torch.float64:
                return usual(self, x)
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

        monkeypatch.setattr(kind, "forward", exact)


@pytest.fixture(autouse=True)
def tokens_turned_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's MLCD and ESM turn query and key in float32 in a model of float64, too."""
    models, rounded = transformers.models, torch.Tensor.float
    for kind in (models.mlcd.modeling_mlcd.MLCDAttention, models.esm.modeling_esm.EsmSelfAttention):

        def exact(self: Any, *args: Any, forward: Any = kind.forward, **kwargs: Any) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else rounded(x))
                return forward(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", exact)


@pytest.fixture(autouse=True)
def maps_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's MaskFormer-Swin gives hidden states as attention maps: here those that each stage's last block computes."""
    kind = transformers.models.maskformer.modeling_maskformer_swin.MaskFormerSwinEncoder
    forward = kind.forward

    def with_maps(self: Any, *args: Any, **kwargs: Any) -> Any:
        maps: list[Any] = []
        hooks = [
            stage.blocks[-1].attention.self.register_forward_hook(lambda module, given, found: maps.append(found[1:]))
            for stage in self.layers
        ]
        output = forward(self, *args, **kwargs)
        for hook in hooks:
            hook.remove()
        if output.attentions is not None:
            output.attentions = tuple(found for (found,) in maps)
        return output

    monkeypatch.setattr(kind, "forward", with_maps)


@pytest.fixture(autouse=True)
def masks_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's CANINE multiplies a float32 mask by the lowest float64 in a model of float64: not a number."""
    kind, rounded = transformers.models.canine.modeling_canine.CanineSelfAttention, torch.Tensor.float

    def exact(self: Any, x: Any, *args: Any, forward: Any = kind.forward, **kwargs: Any) -> Any:
        with monkeypatch.context() as patch:
            if x.dtype == torch.float64:
                patch.setattr(torch.Tensor, "float", lambda x: rounded(x).double())
            return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", exact)


@pytest.fixture(scope="session")
def dual() -> Case:
    """A dual encoder, for what only that has."""
    return make_case(make_dual())


def make_case(config: Any) -> Case:
    """Builds both sides of a config."""
    model = reference.torch_model(config)
    tensors = reference.saved_tensors(model)
    return Case(config, model, reference.keras_model(config, tensors), reference.make_inputs(config), tensors)
