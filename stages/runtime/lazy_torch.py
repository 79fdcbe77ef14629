"""Delays loading torch's compiler until it is first used.

timm, torchvision and torch.optim import `torch._dynamo` for decorators that keep functions out of the compiler. That
import takes 1.5 seconds in each stage, and no stage compiles. This module makes these imports return a module object
that is not executed yet. The object provides stand-ins for what the decorators use; any other use executes the module
in the same object, so that existing references become references to the ordinary module.
"""

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import FunctionType, ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"


def disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Stands in for torch._dynamo.disable: returns a function that calls `fn` directly until the compiler is loaded."""
    if fn is None:
        return functools.partial(disable, recursive=recursive, **options)
    if not isinstance(fn, FunctionType):
        return _execute(COMPILER).disable(fn, recursive, **options)
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not disabled and COMPILER in _pending:
            return fn(*args, **kwargs)
        if not disabled:
            disabled.append(_execute(COMPILER).disable(fn, recursive, **options))
        return disabled[0](*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # torch's own mark: the compiler does not trace it
    return call


def graph_break(*_: Any, **__: Any) -> None:
    """Does nothing: a graph break has an effect only in the compiler, which is not loaded yet."""


def is_compile_supported(device_type: Any) -> Any:
    """Loads the compiler and calls its function of this name.

    torchvision always imports this function, but calls it only when deterministic algorithms are on.
    """
    return _execute(UTILS).is_compile_supported(device_type)


STAND_INS: dict[str, dict[str, Callable[..., Any]]] = {
    COMPILER: {"disable": disable, "graph_break": graph_break},
    UTILS: {"is_compile_supported": is_compile_supported},
}
_pending: dict[str, "LazyModule"] = {}  # modules that are not executed yet, or are being executed
_paths: dict[str, list[str]] = {}  # the folders of submodules, by package that is not executed yet
_execution_started: set[str] = set()
_lock = threading.Lock()  # protects `_execution_started`; Python's import locks protect the execution itself


class LazyModule(ModuleType):
    """A module that is executed at the first access to a name that `STAND_INS` does not provide."""

    def __getattr__(self, name: str) -> Any:
        """Returns a stand-in, or executes the module. Python calls this for names that the module does not have."""
        if self.__name__ not in _execution_started and name in STAND_INS[self.__name__]:
            return STAND_INS[self.__name__][name]
        # Importing a submodule needs __path__. Other dunder names do not execute the module, because inspect and
        # warnings ask every module for them.
        is_dunder = name.startswith("__")
        is_wanted_dunder = name == "__all__" or (name == "__path__" and self.__name__ in _paths)
        if (is_wanted_dunder or not is_dunder) and self.__name__ in _pending:
            _execute(self.__name__)
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        is_submodule = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if self.__name__ not in _execution_started and not name.startswith("__") and not is_submodule:
            _execute(self.__name__)
        super().__setattr__(name, value)

    def __dir__(self) -> Sequence[str]:
        return sorted(vars(_execute(self.__name__)))


class LazyLoader(Loader):
    """The first call of exec_module leaves the module unexecuted; the second call executes it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _pending.setdefault(spec.name, LazyModule(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name not in _execution_started:
            if "__path__" in vars(module):
                _paths[name] = vars(module).pop("__path__")
                _add_utils(module, _paths[name])
            return
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        if type(module) is LazyModule:
            module.__class__ = ModuleType  # type: ignore[assignment]
        _pending.pop(name, None)


class LazyFinder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in STAND_INS or (name in _execution_started and name not in _pending):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _add_utils(compiler: ModuleType, path: Sequence[str]) -> None:
    """Puts the utils module into sys.modules, where Python looks before it asks the package for `__path__`."""
    spec = LazyFinder().find_spec(UTILS, path)
    if spec is not None:
        module = module_from_spec(spec)
        sys.modules[UTILS] = vars(compiler)["utils"] = module


def _execute(name: str) -> Any:
    """Executes the module through Python's own import, whose locks make other threads wait, and returns it."""
    with _lock:
        if name not in _execution_started:
            if name in _paths:
                vars(_pending[name])["__path__"] = _paths.pop(name)
            _execution_started.add(name)
            sys.modules.pop(name, None)
    if name == UTILS:
        _execute(COMPILER)
    return importlib.import_module(name)


def install() -> None:
    """Installs the finder. Call before torch is imported; does nothing if torch's compiler is already loaded."""
    if COMPILER not in sys.modules and not any(isinstance(finder, LazyFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LazyFinder())
