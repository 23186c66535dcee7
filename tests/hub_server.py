"""Hub repositories over HTTP on the loopback, as huggingface_hub asks for them.

Written after the requests of huggingface_hub 2.4 and the headers that its client reads. Large files
(by suffix, as in a new repository's .gitattributes) are answered with a redirect to another origin,
as the hub redirects to its CDN.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".gguf", ".parquet", ".ts", ".model")
WRITER, READER = "hf_writer", "hf_reader"  # tokens of the user "me"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Asked:
    """One request: its path without the query, its Range, and whether it held a token."""

    method: str
    path: str
    range: str | None
    token: bool
    host: str


@dataclass
class HubRepository:
    """A repository: commits by hash, branches and tags by name.

    `readers`: tokens that may read a private one, or that have access to a gated one.
    """

    name: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=lambda: {WRITER})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: Files, message: str = "", branch: str = "main") -> str:
        """Replace all files of a branch; returns the commit's hash."""
        digest = hashlib.sha1(f"{self.name} {len(self.commits)} {message}".encode())
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        sha = digest.hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the main branch."""
        return self.commits[self.refs["main"]]


class HubServer:
    """The server, its repositories, all requests, and faults to inject.

    Attributes:
        repositories: by kind ("model" or "dataset") and name.
        asked: every request.
        delay: seconds before every answer.
        cut: names of files → how many bytes of each answer are sent before the connection breaks.
        cuts: how many answers are cut; then they are complete.
        down: answer everything with status 503.
        refuse_commits: answer commits with status 500.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], HubRepository] = {}
        self.asked: list[Asked] = []
        self.delay = 0.0
        self.cut: dict[str, int] = {}
        self.cuts = 0
        self.down = False
        self.refuse_commits = False
        self.uploads: dict[str, bytes] = {}
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for a process that uses this hub, with its own cache."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **more,
        }

    def add(self, name: str, files: Files, **options: Any) -> HubRepository:
        repository = HubRepository(name, **options)
        repository.commit(files)
        self.repositories[repository.kind, name] = repository
        return repository

    def fetched(self) -> set[str]:
        """Names of all files whose content was asked for."""
        found = {asked.path for asked in self.asked if asked.method == "GET"}
        return {
            path.rpartition("/")[2]
            for path in found
            if "/resolve/" in path or path.startswith("/cdn/")
        }


@contextmanager
def serving_hub() -> Iterator[HubServer]:
    """A server for the time of the `with` block."""
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


def blob_id(content: bytes) -> str:
    """git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _RefusedError(Exception):
    """An error answer: status, X-Error-Code and X-Error-Message."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    # -- plumbing --------------------------------------------------------------------------------

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.query = parse_qs(url.query)
        header = self.headers.get("Authorization", "")
        self.token = header.removeprefix("Bearer ") or None
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(self._chunks())
        else:
            self.body = self.rfile.read(length)
        host = (self.headers.get("Host") or "").partition(":")[0]
        self.hub.asked.append(
            Asked(self.command, url.path, self.headers.get("Range"), self.token is not None, host)
        )
        time.sleep(self.hub.delay)
        try:
            if self.hub.down:
                raise _RefusedError(503, message="Service Unavailable")
            if self.token not in (None, WRITER, READER):
                raise _RefusedError(401, message="Invalid credentials in Authorization header")
            self._route(url.path)
        except _RefusedError as refused:
            headers = dict(refused.headers)
            if refused.code:
                headers["X-Error-Code"] = refused.code
            if refused.message:
                headers["X-Error-Message"] = refused.message
            self._json({"error": refused.message}, refused.status, headers)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._bytes(
            json.dumps(value).encode(),
            status,
            {"Content-Type": "application/json", **(headers or {})},
        )

    def _bytes(self, content: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # -- routes ----------------------------------------------------------------------------------

    def _route(self, path: str) -> None:
        parts = self.parts
        if parts[0] == "cdn":
            self._send_file(parts[2], self._stored(parts[1]), {})
        elif parts[:3] == ["api", "repos", "create"]:
            self._create()
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "whoami-v2"]:
            self._require_token()
            self._json({"type": "user", "name": "me", "orgs": [], "auth": {}})
        elif parts[0] == "lfs" and self.command == "PUT":
            self.hub.uploads[parts[1]] = self.body
            self._json({}) if sha256(self.body) == parts[1] else self._json({}, 400)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._lfs_batch()
        elif parts[0] == "api" and parts[1] in ("models", "datasets"):
            self._api(parts[1].removesuffix("s"), parts[2:])
        elif "resolve" in parts:
            self._resolve()
        else:
            raise _RefusedError(404, message="no such page")

    def _require_token(self) -> None:
        if self.token is None:
            raise _RefusedError(401, message="Invalid username or password.")

    def _require_writer(self, owner: str) -> None:
        self._require_token()
        if self.token != WRITER or owner != "me":
            raise _RefusedError(403, message="You don't have the rights to write to this namespace")

    def _repository(self, kind: str, name: str) -> HubRepository:
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and self.token not in found.readers):
            if self.token is None:
                raise _RefusedError(401, "RepoNotFound", "Invalid username or password.")
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        return found

    def _commit(self, repository: HubRepository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _api(self, kind: str, parts: list[str]) -> None:
        verbs = ("revision", "tree", "preupload", "commit", "branch", "refs", "paths-info")
        at = next((n for n, part in enumerate(parts) if n and part in verbs), len(parts))
        repository = self._repository(kind, "/".join(parts[:at]))
        verb, rest = (parts[at], parts[at + 1 :]) if at < len(parts) else ("revision", ["main"])
        if verb == "revision":
            self._json(self._info(repository, self._commit(repository, rest[0])))
        elif verb == "tree":
            files = repository.commits[self._commit(repository, rest[0])]
            self._json(_tree(files, "/".join(rest[1:]), "recursive" in self.query))
        elif verb == "paths-info":
            self._paths_info(repository.commits[self._commit(repository, rest[0])])
        elif verb == "refs":
            self._json(
                {
                    "branches": [
                        {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
                        for n, c in repository.refs.items()
                    ],
                    "tags": [],
                    "converts": [],
                }
            )
        elif verb == "branch":
            self._require_writer(repository.name.partition("/")[0])
            if rest[0] in repository.refs:
                raise _RefusedError(409, message="Reference already exists")
            repository.refs[rest[0]] = repository.refs["main"]
            self._json({})
        elif verb == "preupload":
            self._require_writer(repository.name.partition("/")[0])
            self._preupload(repository.commits[self._commit(repository, rest[0])])
        else:
            self._require_writer(repository.name.partition("/")[0])
            self._receive(repository, rest[0])

    def _info(self, repository: HubRepository, sha: str) -> dict[str, object]:
        return {
            "id": repository.name,
            "sha": sha,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "siblings": [{"rfilename": name} for name in repository.commits[sha]],
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2024-05-01T00:00:00.000Z",
            "createdAt": "2024-05-01T00:00:00.000Z",
        }

    def _paths_info(self, files: Files) -> None:
        wanted = (
            json.loads(self.body)["paths"]
            if self.body[:1] == b"{"
            else parse_qs(self.body.decode())["paths"]
        )
        entries = _tree(files, "", True)
        self._json([entry for entry in entries if entry["path"] in wanted])

    # -- downloads -------------------------------------------------------------------------------

    def _resolve(self) -> None:
        parts = list(self.parts)
        kind = "model"
        if parts[0] == "datasets":
            kind, parts = "dataset", parts[1:]
        at = parts.index("resolve")
        repository = self._repository(kind, "/".join(parts[:at]))
        if repository.gated and self.token not in repository.readers:
            status = 401 if self.token is None else 403
            raise _RefusedError(
                status, "GatedRepo", f"Access to model {repository.name} is restricted."
            )
        sha = self._commit(repository, parts[at + 1])
        name = "/".join(parts[at + 2 :])
        commit = {"X-Repo-Commit": sha}
        if name not in repository.commits[sha]:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", **commit)
        content = repository.commits[sha][name]
        if not is_large(name):
            self._send_file(name, content, {**commit, "ETag": f'"{blob_id(content)}"'})
            return
        linked = {
            "X-Linked-ETag": f'"{sha256(content)}"',
            "X-Linked-Size": str(len(content)),
            # Another origin than 127.0.0.1, so that a client sends no token there.
            "Location": f"http://localhost:{self.hub.port}/cdn/{sha256(content)}/{name}",
        }
        self._bytes(b"", 302, {**commit, **linked})

    def _stored(self, digest: str) -> bytes:
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if sha256(content) == digest:
                        return content
        raise _RefusedError(404, message="no such object")

    def _send_file(self, name: str, content: bytes, headers: Mapping[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, status, more = 0, 200, {}
        if asked:
            start = int(asked[1])
            if start >= len(content):
                self._bytes(b"", 416, {"Content-Range": f"bytes */{len(content)}"})
                return
            end = int(asked[2]) if asked[2] else len(content) - 1
            status = 206
            more = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
            content = content[start : end + 1]
        sent = self.hub.cut.get(name)
        if sent is None or self.command == "HEAD" or self.hub.cuts <= 0:
            self._bytes(content, status, {"Accept-Ranges": "bytes", **headers, **more})
            return
        self.hub.cuts -= 1
        self.send_response(status)
        for key, value in {"Accept-Ranges": "bytes", **headers, **more}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])
        self.wfile.flush()
        self.close_connection = True

    # -- uploads ---------------------------------------------------------------------------------

    def _create(self) -> None:
        asked = json.loads(self.body)
        self._require_writer(asked.get("organization") or "me")
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if ("model", name) in self.hub.repositories:
            url = f"{self.hub.endpoint}/{name}"
            self._json({"error": "You already created this model repo", "url": url}, 409)
            return
        private = asked.get("visibility") == "private"
        self.hub.add(name, {".gitattributes": b""}, private=private)
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _preupload(self, files: Files) -> None:
        self._json(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": _remote_oid(one["path"], files),
                    }
                    for one in json.loads(self.body)["files"]
                ]
            }
        )

    def _lfs_batch(self) -> None:
        name = "/".join(self.parts[: self.parts.index("info")]).removesuffix(".git")
        self._require_writer(name.partition("/")[0])
        objects = []
        for one in json.loads(self.body)["objects"]:
            href = f"{self.hub.endpoint}/lfs/{one['oid']}"
            objects.append({**one, "actions": {"upload": {"href": href, "header": {}}}})
        self._json({"transfer": "basic", "objects": objects})

    def _receive(self, repository: HubRepository, branch: str) -> None:
        if self.hub.refuse_commits:
            raise _RefusedError(500, message="Internal Error")
        files = dict(repository.commits[self._commit(repository, branch)])
        message = ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files, message, branch)
        url = f"{self.hub.endpoint}/{repository.name}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


def _remote_oid(name: str, files: Files) -> str | None:
    if name not in files:
        return None
    return sha256(files[name]) if is_large(name) else blob_id(files[name])


def _tree(files: Files, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries of a folder, as the tree endpoint lists them."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        if not name.startswith(prefix):
            continue
        parts = name.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            path = prefix + "/".join(parts[:depth])
            entries[path] = {
                "type": "directory",
                "oid": blob_id(path.encode()),
                "size": 0,
                "path": path,
            }
        entry: dict[str, Any] = {
            "type": "file",
            "oid": blob_id(content),
            "size": len(content),
            "path": name,
        }
        if is_large(name):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        entries[name] = entry
    if not recursive:
        entries = {path: e for path, e in entries.items() if "/" not in path.removeprefix(prefix)}
    return [entries[path] for path in sorted(entries)]
