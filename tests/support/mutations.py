"""What can be planted in a source: small faults, each at one place, as a list that depends on the text alone."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
ORDERED_ALIKE = {*CALLED, "isinstance", "zip", "range", "gcd"}
"""Calls whose two arguments mean the same in turn, or that fail at once in the other order."""
REMOVED = (ast.AugAssign, ast.Raise, ast.Delete, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutation:
    """One fault: a stretch of a source and what stands there instead.

    Args:
        line: where it begins, from 1.
        kind: what sort of fault.
        start: offset of the stretch in the source's UTF-8 bytes.
        end: offset behind it.
        text: what stands there instead.
    """

    line: int
    kind: str
    start: int
    end: int
    text: str

    def planted(self, source: str) -> str:
        """The source with the fault."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()

    def shown(self, source: str) -> str:
        """What was there and what is, in one line."""
        was = source.encode()[self.start : self.end].decode()
        return f"{self.line}: {self.kind}: {' '.join(was.split())} -> {' '.join(self.text.split())}"


def mutations(source: str) -> list[Mutation]:
    """Every fault that can be planted, in the text's order. Messages, docstrings and annotations are left alone."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, kind, new in _faults(ast.parse(source)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        text = new if isinstance(new, str) else ast.unparse(ast.fix_missing_locations(new))
        if isinstance(new, ast.expr):
            text = f"({text})"
        found.append(Mutation(node.lineno, kind, start, end, text))
    return sorted(found, key=lambda each: (each.start, each.end, each.kind, each.text))


def _faults(tree: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST | str]]:
    for node in _nodes(tree):
        match node:
            case ast.Compare(left, [op], others):
                for other in COMPARED.get(type(op), ()):
                    yield node, "comparison", ast.Compare(left, [other()], others)
            case ast.BoolOp(op, values):
                yield node, "and, or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            case ast.UnaryOp(ast.Not(), operand):
                yield node, "not", operand
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield node, "sign", operand
            case ast.BinOp(left, op, right) if type(op) in COMPUTED:
                yield node, "arithmetic", ast.BinOp(left, COMPUTED[type(op)](), right)
            case ast.Constant(int(value)) if not isinstance(value, bool):
                yield node, "off by one", ast.Constant(value + 1)
            case ast.Constant(bool(value)):
                yield node, "true, false", ast.Constant(not value)
            case ast.Call(function, args, keywords):
                yield from _of_call(node, function, args, keywords)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield test, "condition", ast.UnaryOp(ast.Not(), test)
            case ast.AugAssign(target, op, value) if type(op) in (ast.Add, ast.Sub):
                yield node, "sign", ast.AugAssign(target, COMPUTED[type(op)](), value)
        if isinstance(node, REMOVED) or _acts(node):
            yield node, "removed", "pass"


def _acts(node: ast.AST) -> bool:
    """Whether a statement changes what is there. Without what names a value, the next line that reads it would fail."""
    match node:
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Expr(value=ast.Call()):
            return True
    return False


def _of_call(
    node: ast.Call, function: ast.expr, args: list[ast.expr], keywords: list[ast.keyword]
) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name in CALLED and isinstance(function, ast.Name):
        yield node, "min, max", ast.Call(ast.Name(CALLED[name]), args, keywords)
    starred = any(isinstance(arg, ast.Starred) for arg in args[:2])
    if len(args) > 1 and name not in ORDERED_ALIKE and not starred and ast.dump(args[0]) != ast.dump(args[1]):
        yield node, "swapped", ast.Call(function, [args[1], args[0], *args[2:]], keywords)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what says something to a person, or to a reader of types."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "exc", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom):
                yield from _nodes(child)
