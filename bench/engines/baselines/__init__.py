"""The engines of a comparison: our artifacts and those we compare with, each in its own process.

This package is a program, too: `bench/engines/process.py` starts it as `baselines`, in the environment where an
engine's libraries are, and talks to it by lines of JSON. Nothing of ours is imported here but where
our own artifacts are made or run, since Optimum lives in an environment without it.

    argument         the fields of `Spec`, and "prepare"
    first answer     {"ready": true, …}, {"missing": library} or {"error": reason}
    line in          {"input_ids": […], "new_tokens": 16, "runs": 5}
    line out         {"ms": [milliseconds of each run], "rss": bytes, "peak_rss": bytes}
                     or {"error": reason}

An artifact that is measured text to text takes and gives other lines; see `text.respond`.

With "prepare" the program converts the model, says that it is ready, and ends.
"""
