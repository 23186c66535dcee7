"""Reports of a benchmark, made from its JSON document alone (schema.json)."""
