"""Repositories of the Hugging Face hub: ids, downloads to its local cache, and offline copies.

The only place that downloads. Everything else gets a local folder.
"""

from edge.runtime.hub.artifacts import artifact_folder
from edge.runtime.hub.data_sets import data_set_access
from edge.runtime.hub.download import MODEL_FILES, SETTINGS_FILES, fetch, listed_files
from edge.runtime.hub.errors import hub_errors, quiet_hub
from edge.runtime.hub.ids import Repository, find_repository, is_hub_id, snapshot_of
from edge.runtime.hub.reach import why_unreachable

__all__ = [
    "MODEL_FILES",
    "SETTINGS_FILES",
    "Repository",
    "artifact_folder",
    "data_set_access",
    "fetch",
    "find_repository",
    "hub_errors",
    "is_hub_id",
    "listed_files",
    "quiet_hub",
    "snapshot_of",
    "why_unreachable",
]
