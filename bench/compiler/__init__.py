"""The search for the fastest artifact of a model within an accuracy budget (`edge compile`).

space.py                the search space: formats, quantizations, shortlists, threads, drafts
events.py               what a search reports while it runs
trial.py, trials.py     exports and measurements, each in a separate process
*_worker.py, worker.py  the programs of these processes, and what they share
trial_store.py          results on disk, so that an interrupted search continues
work_folder.py          what edge writes into the folder of a search
entries.py              shapes of the stored results
shortlist_data.py       rows that shortlists are made from
accuracy_budget.py      the metric, and how far it may fall
search.py               successive halving over the trials
advice.py               the verdict, and what would help if the target is missed
report.py               the report as JSON, as Markdown and in the manifest; the winner's folder
run.py                  `compile_model`, which puts all of this together
"""
