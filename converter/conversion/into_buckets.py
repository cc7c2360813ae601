"""A conversion whose OUT lies in a bucket: made on this machine as any other, then put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from converter.conversion.job import Progress
from converter.conversion.result import Conversion
from converter.folder.addresses import Address


def into_bucket(
    out: Address,
    source: object,
    overwrite: bool,
    dry_run: bool,
    progress: Progress | None,
    run: Callable[..., Conversion],
) -> Conversion:
    """Converts into a folder of this machine, whose files are then put into a bucket.

    Args:
        out: where they are put.
        source: what is converted.
        overwrite: whether a checkpoint there is replaced.
        dry_run: whether nothing is put.
        progress: called with a stage's name, bytes done and bytes in all.
        run: converts, given the folder as ``out``, and as ``bucket`` where it is going to be put.

    Raises:
        ConverterError: of the conversion, or of the bucket.
    """
    from converter.buckets.uploading import uploading

    with uploading(out, source, overwrite, dry_run) as upload:
        result = run(out=upload.folder, bucket=out)
        if not dry_run:
            replaced, kept = upload.put(progress)
        else:
            replaced, kept = upload.outlook((result.weights, "config.json")) if overwrite else ((), 0)
    return replace(result, out=out, replaced=replaced, kept=kept)
