"""Constructors of dataclasses, written out: those that the decorator makes at run time are interpreted ever after."""

import ast
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attribute:
    """A field: how a constructor takes it, and what it gives the instance then; empty if it does not."""

    name: str
    parameter: str
    value: str


def written_out(source: str) -> str:
    """A module in which each dataclass has the constructor that it would be given, on the empty line behind its fields:
    all lines keep their numbers. Those that inherit, or have one, stay as they are."""
    lines = source.splitlines()
    for cls in reversed([one for one in ast.parse(source).body if isinstance(one, ast.ClassDef)]):
        decorator = next((one for one in cls.decorator_list if _name(one) == "dataclass"), None)
        if decorator and _fields(cls) and not cls.bases and "__init__" not in _methods(cls):
            end = max(one.end_lineno or one.lineno for one in _fields(cls))
            taken = 1 if end < len(lines) and not lines[end].strip() else 0
            lines[end : end + taken] = [_constructor(cls, frozen=_says(decorator, "frozen"))]
    return "\n".join(lines) + "\n"


def _constructor(cls: ast.ClassDef, *, frozen: bool) -> str:
    attributes = [_attribute(one) for one in _fields(cls)]
    taken = ", ".join(["self", *(one.parameter for one in attributes if one.parameter)])
    given = [f"self.{one.name} = {one.value}" for one in attributes if one.value]
    if "__post_init__" in _methods(cls):
        given.append("self.__post_init__()")
    leave = "  # type: ignore[misc]" if frozen else ""  # only a constructor gives a frozen instance what it has
    return f"    def __init__({taken}) -> None: {'; '.join(given)}{leave}"


def _attribute(field: ast.AnnAssign) -> Attribute:
    name, kind, default = ast.unparse(field.target), ast.unparse(field.annotation), field.value
    if not isinstance(default, ast.Call) or _name(default) != "field":
        return Attribute(name, f"{name}: {kind}" + (f" = {ast.unparse(default)}" if default else ""), name)
    said = {one.arg: one.value for one in default.keywords}
    says = {name: ast.unparse(value) for name, value in said.items()}
    made = _made(said["default_factory"]) if "default_factory" in said else says.get("default", "")
    if says.get("init") == "False":
        return Attribute(name, "", made)
    if "default_factory" in says:
        return Attribute(name, f"{name}: {kind} | None = None", f"{made} if {name} is None else {name}")
    return Attribute(name, f"{name}: {kind}" + (f" = {made}" if made else ""), name)


def _made(factory: ast.expr) -> str:
    return ast.unparse(factory.body if isinstance(factory, ast.Lambda) else ast.Call(factory, [], []))


def _fields(cls: ast.ClassDef) -> list[ast.AnnAssign]:
    return [one for one in cls.body if isinstance(one, ast.AnnAssign) and _name(one.annotation) != "ClassVar"]


def _methods(cls: ast.ClassDef) -> set[str]:
    return {one.name for one in cls.body if isinstance(one, ast.FunctionDef)}


def _says(decorator: ast.expr, what: str) -> bool:
    said = decorator.keywords if isinstance(decorator, ast.Call) else []
    return any(one.arg == what and ast.unparse(one.value) == "True" for one in said)


def _name(of: ast.expr) -> str:
    """Of what is called or subscribed, if it has one."""
    named = of.func if isinstance(of, ast.Call) else of.value if isinstance(of, ast.Subscript) else of
    return named.id if isinstance(named, ast.Name) else ""
