"""Engines of the benchmark: edge's artifacts and the baselines, each run in a separate process.

The package is also a program: `bench/engines/process.py` starts it as `baselines` in the Python
environment that has the engine's libraries, and they exchange lines of JSON. Optimum's environment
has no edge, so the modules here import edge only inside the functions that make or run edge's
artifacts.

    argument         the fields of `Spec`, and "prepare"
    first answer     {"ready": true, …}, {"missing": library} or {"error": reason}
    request          {"rows": [[…], …], "new_tokens": 16, "runs": 5, "warmup": 1}
    answer           {"ms": [milliseconds of each run], "rss": bytes, "peak_rss": bytes}
                     or {"error": reason}

Requests of bulk work: see `bulk_answers.answer_texts`.
Requests to an artifact that is measured from text to text: see `text_to_text.respond`.

With "prepare" the program converts the model, answers that it is ready, and exits.
"""
