"""How often fine-tuned models answer with valid JSON: `python -m edge.bench.json_answers`."""
