"""`edge compile`: the search for the fastest artifact of a model within an accuracy budget.

space.py      what may be tried: formats, quantizations, shortlist, threads, drafts
lab.py        one export or measurement, in a process of its own, through the record
exporter.py, timer.py    the programs of these processes; `child.py` is what they share
record.py     what was done, on disk, so that a second call continues
judge.py      the metric, the accuracy budget and the latency verdict
search.py     successive halving over the lab
evidence.py   what was tried as JSON, Markdown and the manifest's section; the winner's folder
run.py        all of it: `compile_model`
"""
