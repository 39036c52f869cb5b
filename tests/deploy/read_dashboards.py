"""Checks the Grafana dashboard and the alert rules, and prints which metrics they ask for.

python read_dashboards.py DASHBOARD RULES: prints a JSON list of {"where", "metric", "labels": [{"name", "op", "value"}],
"by": [...]}. Exits with 1 if the dashboard does not fit Grafana's schema, or a query is no PromQL.
"""

import json
import pathlib
import re
import sys

import jsonschema
import promql_parser
import yaml

SCHEMAS = pathlib.Path(__file__).parent / "schemas"
# Variables of Grafana that stand for a time; those for labels stand within texts.
INTERVALS = re.compile(r"\$__(rate_)?interval")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


def errors(value, file, definition=None):
    schema = json.loads((SCHEMAS / file).read_text())
    if definition:
        schema["$ref"] = f"#/definitions/{definition}"
    return [f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(value)]


def panel_errors(panel):
    if panel["type"] == "row":
        return
    file = f"grafana-{panel['type']}.json"
    yield from errors(panel["options"], file, "Options")
    if panel["type"] == "timeseries":
        yield from errors(panel["fieldConfig"]["defaults"]["custom"], file, "FieldConfig")
    for target in panel["targets"]:
        yield from errors(target, "grafana-prometheus.json")


def selectors(node, by=()):
    """Returns the selectors in a query, each with the labels by which an aggregation around it groups."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node, by
    elif isinstance(node, promql_parser.AggregateExpr):
        modifier = node.modifier
        yield from selectors(node.expr, by + tuple(modifier.labels if modifier else ()))
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument, by)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs, by)
        yield from selectors(node.rhs, by)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from selectors(node.vector_selector, by)
    elif isinstance(node, (promql_parser.ParenExpr, promql_parser.UnaryExpr, promql_parser.SubqueryExpr)):
        yield from selectors(node.expr, by)
    elif not isinstance(node, (promql_parser.NumberLiteral, promql_parser.StringLiteral)):
        raise ValueError(f"unknown part of a query: {type(node)}")


def uses(where, query):
    for selector, by in selectors(promql_parser.parse(INTERVALS.sub("5m", query))):
        labels = [
            {"name": matcher.name, "op": str(matcher.op), "value": matcher.value}
            for matcher in selector.matchers.matchers
        ]
        yield {"where": where, "metric": selector.name, "labels": labels, "by": list(by)}


def queries(dashboard, rules):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query, label = LABEL_VALUES.fullmatch(variable["query"]).groups()
            yield variable["name"], f"sum by ({label}) ({query})"
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def main():
    dashboard = json.loads(pathlib.Path(sys.argv[1]).read_text())
    rules = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
    faults = errors(dashboard, "grafana-dashboard.json")
    for panel in dashboard["panels"]:
        faults += [f"{panel['title']}: {error}" for error in panel_errors(panel)]
    found = []
    for where, query in queries(dashboard, rules):
        try:
            found += uses(where, query)
        except ValueError as error:
            faults.append(f"{where}: {query}: {error}")
    print("\n".join(faults), file=sys.stderr)
    print(json.dumps(found))
    sys.exit(bool(faults))


main()
