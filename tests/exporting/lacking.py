"""A runtime whose package is not installed."""

from converter.parity.runners.serving import serve


def _load() -> None:
    raise ImportError("No module named 'runtime'")


if __name__ == "__main__":
    serve(_load, "pip install it")  # type: ignore[arg-type]
