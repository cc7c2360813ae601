"""The kind of file that a person wants. No framework is imported for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converter.arguments import check_least

Precision = Literal["float32", "float16", "int8"]
Pixels = Literal["float", "uint8"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The requested kind of file.

    Attributes:
        precision: of the weights; what is computed in float16 is the runtime's affair.
        pixels: ``"float"``: images as the image processor gives them; ``"uint8"``: bytes, channels last, which the
            graph rescales and normalises itself.
        batch: fixed number of images, and of texts, per call; None for any number.
        length: fixed number of tokens per text; None for any number.
        image: height and width of every picture, of a tower that takes any; None: what its config says.

    Raises:
        ArgumentError: a number is less than 1.
    """

    precision: Precision = "float32"
    pixels: Pixels = "float"
    batch: int | None = None
    length: int | None = None
    image: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_least("batch", self.batch, 1)
        check_least("length", self.length, 1)
        if self.image is not None:
            object.__setattr__(self, "image", tuple(self.image))  # of JSON, a list
            for side in self.image:
                check_least("image", side, 1)
