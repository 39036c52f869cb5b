"""Renders a Helm chart as `helm template` does, and checks each object against the schema of its kind.

python render_chart.py CHART < VALUES: VALUES is a JSON list of values, each a YAML text. Prints a JSON list with an
object for each: {"objects": [...], "notes": "..."} or, if Helm refuses the values, {"error": "..."}. Exits with 1 if Helm's linter or a
schema finds fault.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml
from helm_python import chart as helm
from helm_python.errors import HelmError

# The oldest and the newest Kubernetes that the chart is for, and that the schemas know.
VERSIONS = ["1.30.0", "1.37.0"]
NAMESPACE = "models"
SCHEMAS = pathlib.Path(__file__).parent / "schemas"


def custom_schemas():
    files = [json.loads(path.read_text()) for path in SCHEMAS.glob("crd-*.json")]
    return {(file["apiVersion"], file["kind"]): closed(file["schema"]) for file in files}


def closed(schema):
    """Returns the schema with members refused that it does not name, as the API server's strict check does."""
    if isinstance(schema, dict):
        schema = {name: closed(value) for name, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields") and "type" in schema:
            # metadata has no members in the schemas of custom resources.
            schema.setdefault("additionalProperties", False)
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("type", None)
    elif isinstance(schema, list):
        schema = [closed(value) for value in schema]
    return schema


def check(item, custom):
    kind = (item["apiVersion"], item["kind"])
    if kind in custom:
        for error in jsonschema.Draft7Validator(custom[kind]).iter_errors(item):
            yield f"{error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {error.message}"


def documents(rendered):
    for path, text in sorted(rendered.items()):
        if path.endswith((".yaml", ".yml")):
            yield from (item for item in yaml.safe_load_all(text) if item)


def main():
    path = sys.argv[1]
    chart, custom, faults, results = helm.Chart.load(path), custom_schemas(), [], []
    for text in json.load(sys.stdin):
        values = yaml.safe_load(text) or {}
        try:
            chart.validate_schema(values)
            rendered = chart.render(values, name="llm", namespace=NAMESPACE, is_install=True)
        except HelmError as error:
            results.append({"error": str(error)})
            continue
        report = helm.lint(path, values, strict=True, namespace=NAMESPACE)
        faults += [f"lint: {message['error']}" for message in report["messages"] if message["severity"] > 1]
        objects = list(documents(rendered))
        for item in objects:
            where = f"{item['kind']} {item['metadata']['name']}"
            faults += [f"{where}: {fault}" for fault in check(item, custom)]
        notes = "".join(text for path, text in rendered.items() if path.endswith("NOTES.txt"))
        results.append({"objects": objects, "notes": notes})
    print("\n".join(faults), file=sys.stderr)
    print(json.dumps(results))
    sys.exit(bool(faults))


main()
