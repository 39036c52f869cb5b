"""Validates YAML texts against a JSON Schema with tools of others.

python validate_yaml.py SCHEMA < TEXTS: TEXTS is a JSON list of YAML texts. Prints a JSON list with the first fault of
each, or null.
"""

import json
import re
import sys

import jsonschema
import yaml


class CoreLoader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does: `on` and `yes` are texts."""


CoreLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
CoreLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)


def fault(text):
    return next((error.message for error in validator.iter_errors(yaml.load(text, CoreLoader))), None)


print(json.dumps([fault(text) for text in json.load(sys.stdin)]))
