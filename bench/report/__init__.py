"""Reports of a benchmark: functions of its JSON document alone, which schema.json describes."""
