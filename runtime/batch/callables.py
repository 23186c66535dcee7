"""Functions in the fingerprint of a run: equal only where they compute the same."""

from __future__ import annotations

import hashlib
import marshal
import pickle
import uuid
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

_MARSHAL_VERSION = 2  # later ones depend on the objects' reference counts


def callable_fingerprint(function: Callable[..., object]) -> str:
    """A text that a function has in every process, and no other function has.

    A function of a module is its name. A `functools.partial`, a method and an object have the
    SHA-256 of their pickle, which holds their arguments and attributes; a lambda and a local
    function that of their code and of the values that they captured. What can't be pickled gets a
    random text, so that it equals nothing.
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    if _is_importable(function):
        return name
    try:
        digest = hashlib.sha256(_content(function)).hexdigest()
    except Exception:  # pickling calls methods of the objects
        digest = uuid.uuid4().hex
    return f"{name} {digest}"


def _is_importable(function: Callable[..., object]) -> bool:
    if not isinstance(function, FunctionType | BuiltinFunctionType | type):
        return False
    owner = getattr(function, "__self__", None)  # of a builtin: its module, or an object
    if owner is not None and not isinstance(owner, ModuleType):
        return False
    # Two programs may have different functions of the same name.
    return "<" not in function.__qualname__ and function.__module__ != "__main__"


def _content(function: Callable[..., object]) -> bytes:
    if not isinstance(function, FunctionType):
        return pickle.dumps(function)
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    values = (captured, function.__defaults__, function.__kwdefaults__)
    return marshal.dumps(function.__code__, _MARSHAL_VERSION) + pickle.dumps(values)
