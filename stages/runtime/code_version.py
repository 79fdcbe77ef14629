"""A version of the code that computes a value. It changes with the code, not with comments or docstrings."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any


def code_version(*parts: ModuleType | Callable[..., Any]) -> str:
    """Returns a hash of the sources of modules and functions, without comments, docstrings and layout."""
    text = "\n".join(
        ast.dump(without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(part))))) for part in parts
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree
