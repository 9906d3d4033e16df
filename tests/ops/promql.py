"""Which labels a PromQL query's result carries, by those of the metrics; what can never match is refused."""

from collections.abc import Mapping
from typing import Any

import promql_parser

Labels = frozenset[str]
SET_OPERATIONS = ("and", "or", "unless")


def selectors(query: str) -> list[Any]:
    """The vector selectors of a query, in order."""
    found: list[Any] = []

    def visit(expression: Any) -> None:
        # A matrix selector's own selector is not walked to.
        found.append(getattr(expression, "vector_selector", expression))

    promql_parser.walk(promql_parser.parse(query), visit)
    return [each for each in found if isinstance(each, promql_parser.VectorSelector)]


def result_labels(query: str, metrics: Mapping[str, Labels]) -> Labels:
    """Labels of a query's result.

    Raises:
        AssertionError: it names a metric or label that does not exist, or joins two sides that share no full key.
    """
    labels = _labels(promql_parser.parse(query), metrics)
    assert labels is not None, f"{query}: a number"
    return labels


def _labels(expression: Any, metrics: Mapping[str, Labels]) -> Labels | None:
    """Labels of an expression's result; None for a number."""
    while isinstance(expression, promql_parser.ParenExpr):
        expression = expression.expr
    match getattr(expression, "vector_selector", expression):
        case promql_parser.VectorSelector() as selector:
            return _of_selector(selector, metrics)
        case promql_parser.Call() as call:
            (vector,) = filter(None, (_labels(argument, metrics) for argument in call.args))
            return vector - {"le"} if call.func.name == "histogram_quantile" else vector
        case promql_parser.AggregateExpr() as aggregation:
            inner = _labels(aggregation.expr, metrics)
            kept = frozenset(aggregation.modifier.labels if aggregation.modifier else ())
            assert inner is not None, f"{aggregation.prettify()}: a number"
            assert kept <= inner, f"{aggregation.prettify()}: no label {', '.join(kept - inner)}"
            return kept
        case promql_parser.BinaryExpr() as operation:
            return _of_binary(operation, _labels(operation.lhs, metrics), _labels(operation.rhs, metrics))
        case promql_parser.NumberLiteral():
            return None
    raise AssertionError(f"{expression.prettify()}: {type(expression).__name__} is not known here")


def _of_selector(selector: Any, metrics: Mapping[str, Labels]) -> Labels:
    assert selector.name in metrics, f"no process exports {selector.name}"
    named = {matcher.name for matcher in selector.matchers.matchers}
    assert named <= metrics[selector.name], f"{selector}: no label {', '.join(named - metrics[selector.name])}"
    return metrics[selector.name]


def _of_binary(expression: Any, left: Labels | None, right: Labels | None) -> Labels | None:
    if left is None or right is None:
        return right if left is None else left
    operation = str(expression.op)
    if operation == "or":
        return left | right
    modifier = expression.modifier
    keys = [_key(side, modifier) for side in (left, right)]
    assert keys[0] == keys[1], f"{expression.prettify()}: sides with {sorted(left)} and {sorted(right)} never match"
    if operation in SET_OPERATIONS:
        return left
    card = modifier.card if modifier else promql_parser.VectorMatchCardinality.OneToOne
    if card == promql_parser.VectorMatchCardinality.OneToOne:
        return keys[0]
    return left if card == promql_parser.VectorMatchCardinality.ManyToOne else right


def _key(side: Labels, modifier: Any) -> Labels:
    """The labels by which a side is matched."""
    matching = modifier.matching if modifier else None
    if matching is None:
        return side
    named = frozenset(matching.labels)
    if matching.type == promql_parser.LabelModifierType.Exclude:
        return side - named
    assert named <= side, f"no label {', '.join(named - side)} to match by"
    return named
