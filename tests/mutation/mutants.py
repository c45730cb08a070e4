"""The mistakes: a comparison turned, a condition negated, a number off by one, a step left out.

A mutant is the module's own syntax tree with one node changed, so that its line numbers stay those of the source.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one module. `number` names it, for as long as the module stays as it is."""

    number: int
    line: int
    what: str
    place: int
    choice: int


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    number = 0
    for place, node in enumerate(nodes(ast.parse(source))):
        for choice, what in enumerate(changes(node)):
            yield Mutant(number, getattr(node, "lineno", 0), what, place, choice)
            number += 1


def tree_of(source: str, mutant: Mutant) -> ast.Module:
    """The module with that change."""
    tree = ast.parse(source)
    apply(nodes(tree)[mutant.place], mutant.choice)
    return ast.fix_missing_locations(tree)


def nodes(tree: ast.Module) -> list[ast.AST]:
    return list(dict.fromkeys(node for statement in functions(tree) for node in ast.walk(statement)))


def functions(tree: ast.Module) -> Iterator[ast.AST]:
    """What is done; tables, docstrings and annotations outside are other tests' affair."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name not in ("__repr__", "__str__"):
            yield from node.body


def changes(node: ast.AST) -> list[str]:
    """What may be changed of a node, as `apply` counts it."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            return [f"{type(op).__name__} becomes {COMPARISONS[type(op)].__name__}"]
        case ast.BoolOp(op=ast.And()):
            return ["and becomes or"]
        case ast.BoolOp(op=ast.Or()):
            return ["or becomes and"]
        case ast.UnaryOp(op=ast.Not()):
            return ["not is left out"]
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            return [f"{type(op).__name__} becomes {ARITHMETIC[type(op)].__name__}"]
        case ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            return [f"{type(op).__name__}= becomes {ARITHMETIC[type(op)].__name__}=", "the step is left out"]
        case ast.Constant(value=bool() as value):
            return [f"{value} becomes {not value}"]
        case ast.Constant(value=int() as value):
            return [f"{value} becomes {value + 1}"]
        case ast.If() | ast.IfExp() | ast.While():
            return ["the condition is turned"]
        case ast.Expr(value=ast.Call()) | ast.Delete():
            return ["the step is left out"]
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return ["the step is left out"]
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            return ["None is returned"]
        case ast.Continue():
            return ["continue becomes break"]
        case _:
            return []


def apply(node: ast.AST, choice: int) -> None:
    match node:
        case ast.Compare(ops=[op]):
            node.ops = [COMPARISONS[type(op)]()]
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(operand=operand):
            become(node, operand)
        case ast.AugAssign() if choice == 1:
            become(node, ast.Pass())
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            node.op = ARITHMETIC[type(op)]()
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() as value):
            node.value = value + 1
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
        case ast.Return():
            node.value = ast.Constant(None)
        case ast.Continue():
            become(node, ast.Break())
        case _:
            become(node, ast.Pass())


def become(node: ast.AST, other: ast.AST) -> None:
    """A node in place of another, without knowing its parent."""
    place = {name: getattr(node, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    node.__class__ = other.__class__
    node.__dict__.clear()
    node.__dict__.update(other.__dict__ | place)
