"""``convert``: from any source to any framework, its own included."""

from __future__ import annotations

import os

from converter.arguments import checked
from converter.conversion.engine import Config, run_conversion, sums_asked
from converter.conversion.formats import choose, default_format
from converter.conversion.job import Progress
from converter.conversion.plan import Dtype, Names
from converter.conversion.positions import Positions
from converter.conversion.result import Conversion
from converter.conversion.sources import Source
from converter.errors import TargetError
from converter.folder.files import out_folder
from converter.names.frameworks import CANONICAL, framework_name, frameworks
from converter.names.layout_files import OWN
from converter.specs import Framework


@checked()
def convert(
    source: Source,
    out: str | os.PathLike[str],
    to: Framework,
    *,
    revision: str | None = None,
    config: Config = None,
    format: str | None = None,
    names: Names = "v4",
    dtype: Dtype = "keep",
    positions: Positions = "keep",
    layout: str = OWN,
    max_shard_size: str | int | None = None,
    overwrite: bool = False,
    check: bool = True,
    sha256: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Converts the checkpoint of a model with two towers from any framework to any framework.

    The framework may be the source's own. Then only container, names, dtype or shards change.

    Args:
        source: a folder that ``save_pretrained`` wrote, a weights file, the id of a model on the Hub, or a state dict
            in memory (torch tensors or NumPy arrays by name). An id may be ``id@revision``. A
            ``Path``, or an existing path, is never an id. PyTorch's weights are preferred,
            then TensorFlow's.
        out: the folder to create.
        to: ``"pt"``, ``"tf"`` or ``"flax"``.
        revision: branch, tag or commit of an id.
        config: the config, or the path of a config.json; None takes the one beside the weights.
        format: ``"safetensors"`` (of any framework), ``"bin"`` (PyTorch), ``"h5"`` (TensorFlow) or ``"msgpack"`` (Flax);
            None for the framework's usual one.
        names: for PyTorch: ``"v4"`` for the nested names that every version of transformers reads, ``"v5"`` for those
            that a new 5.x model saves. Transformers 4 cannot read v5 names of AltCLIP and CLIP-like towers.
        dtype: dtype of float tensors. ``"keep"`` leaves them, but HDF5 has no bfloat16, which becomes float32.
        positions: for RoBERTa-like towers, between Flax and another framework. ``"keep"`` leaves the position table
            as it is. ``"flax"`` moves its rows so that both sides give the same outputs.
        layout: ``"transformers"``, or ``"open_clip"`` for a folder that OpenCLIP loads: its names, fused tensors and
            ``open_clip_config.json`` (PyTorch only; CLIP, MetaCLIP 2 and SigLIP).
        max_shard_size: split the weights into files of at most this size, for example ``"5GB"``; None for one file.
        overwrite: replace the checkpoint in ``out`` if it exists; other files in it stay.
        check: re-open the output, compare it with the source bit for bit and record hashes.
        sha256: record the sha256 of every file too, beside BLAKE3; only with ``check``.
        dry_run: plan only; nothing is written.
        progress: called with the stage, bytes done and total bytes.

    Returns:
        What was done.

    Raises:
        ConverterError: see ``converter.errors``; nothing is written then.
    """
    choose("to", to, tuple(frameworks()))
    if names != "v4" and to != CANONICAL:
        raise TargetError(
            f"names {names!r} are for {framework_name(CANONICAL)}, and {framework_name(to)} has no such choice; leave the "
            "option out"
        )
    options = {
        "format": format or default_format(to),
        **({"names": names} if to == CANONICAL else {}),
        "dtype": dtype,
        **({"positions": positions} if positions != "keep" else {}),
        **({"layout": layout} if layout != OWN else {}),
        "max_shard_size": max_shard_size,
    }
    sums = sums_asked(sha256, check)
    return run_conversion(
        None, to, source, revision, out_folder(out), config, options, overwrite, check, dry_run, progress, sums=sums
    )
