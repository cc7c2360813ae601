"""Functions of higher wings that models may not import, and the place of models in Keras' registry.

The package root provides the functions, and asks for the place. No framework is imported here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes longer than all of `converter`
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def provide(name: str, function: Callable[..., Any]) -> None:
    """Lets models call a function of a wing above them, by name."""
    _FUNCTIONS[name] = function


def provided(name: str) -> Callable[..., Any]:
    """The function that was provided under a name."""
    return _FUNCTIONS[name]


class ToBeImported:
    """Stands in Keras' registry for a class of ours until something asks for it."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def from_config(self, config: Any) -> Any:
        """The class's own result for a config; importing it replaces this object."""
        return getattr(import_module(self.module), self.name).from_config(config)


def register_with_keras() -> None:
    """Makes ``.keras`` files of our models loadable: now where Keras is imported, else right after it is."""
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


def _register() -> None:
    with contextlib.suppress(ImportError):  # Keras 2 has no such registry, and none of our files
        from keras.saving import get_custom_objects

        for name, module in _classes():
            get_custom_objects().setdefault(f"converter>{name}", ToBeImported(module, name))


def _classes() -> Iterator[tuple[str, str]]:
    """Name and module of every class that may be in a ``.keras`` file."""
    from converter.models.registry import family_places, tower_places

    yield from family_places()
    yield from tower_places()


def _import_triton() -> None:
    """Imports triton, where PyTorch with CUDA brought it, before Keras imports TensorFlow: after it, triton ends the process."""
    if "tensorflow" not in sys.modules:
        with contextlib.suppress(Exception):  # without it, or with a broken one, everything works as before
            import_module("triton")


class _AfterKeras:
    """Finds Keras as the other finders do, and registers once it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of Keras with a loader that registers; None for everything else."""
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Registering:
    """Another loader, and what comes after it."""

    def __init__(self, loader: Loader, finder: _AfterKeras) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _import_triton()
        self._loader.exec_module(module)
        with contextlib.suppress(ValueError):  # another thread was here
            sys.meta_path.remove(self._finder)
        _register()
