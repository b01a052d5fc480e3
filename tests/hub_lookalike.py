"""Hugging Face and ModelScope on loopback: their protocols, as far as their own client libraries speak them when they read and upload."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import modelscope_hub
import pytest
from huggingface_hub import constants as hf_constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IN_LFS = (".safetensors", ".parquet", ".bin")
"""Files that a hub keeps apart, known by their SHA-256; the others are git's, known by the hash of its blobs."""


@dataclass
class Repository:
    files: dict[str, bytes]
    branch: str = "main"
    token: str | None = None
    """What it takes to read it."""
    commit: str = COMMIT


@dataclass
class Hub:
    """What the server has, what goes wrong, and what it was asked."""

    endpoint: str = ""
    elsewhere: str = ""
    """The same server under another host name: where large files lie."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """By `models/owner/name` or `datasets/owner/name`."""
    cut: dict[str, list[int]] = field(default_factory=dict)
    """For a file, after how many bytes each of its next answers breaks off."""
    wrong: set[str] = field(default_factory=set)
    """Files of which other bytes arrive than are promised, as many."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Each file that was sent, with the Range that was asked for."""
    requests: list[str] = field(default_factory=list)
    """Method and path of every request."""
    committed: dict[str, bytes] = field(default_factory=dict)
    """What was uploaded, by `models/owner/name/path`."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large objects that were uploaded and wait for their commit, by SHA-256."""

    def sent(self, name: str) -> list[str]:
        return [wanted for file, wanted in self.asked if file == name]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers for the time of the block."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint, hub.elsewhere = (f"http://{host}:{server.server_address[1]}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def reached(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """A hub that the client libraries of this process ask as Hugging Face and as ModelScope, with their caches below `folder`."""
    with serving() as hub:
        monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf_constants, "HF_HUB_CACHE", str(folder / "hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("MODELSCOPE_CACHE", str(folder / "ms"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(folder / "home"))
        turn_to(hub.endpoint, monkeypatch)
        yield hub
    modelscope_hub.set_default_config(None)


def turn_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the libraries had been imported with this address in the environment."""
    monkeypatch.setattr(hf_constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hf_constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
    modelscope_hub.set_default_config(None)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), {name: values[0] for name, values in parse_qs(url.query).items()}
        self.state.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                answer(self, query, body, *match.groups())
                return
        self._json(404, {"error": f"no such route: {self.command} {path}"})

    # Hugging Face

    def hf_info(self, _query: dict[str, str], _body: bytes, kind: str, name: str, revision: str | None = None) -> None:
        repository = self._readable(kind, name, revision)
        if repository is not None:
            self._json(200, {"id": name, "sha": repository.commit, "siblings": [{"rfilename": path} for path in repository.files]})

    def hf_tree(self, _query: dict[str, str], _body: bytes, kind: str, name: str, revision: str, _below: str | None = None) -> None:
        repository = self._readable(kind, name, revision)
        if repository is None:
            return
        entries = []
        for path, content in repository.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith(IN_LFS):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._json(200, entries)

    def hf_file(self, _query: dict[str, str], _body: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        repository = self._readable(kind or "models/", name, revision)
        if repository is None:
            return
        if path not in repository.files:
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[path]
        if not path.endswith(IN_LFS):
            self._file(path, content, {"X-Repo-Commit": repository.commit, "ETag": f'"{git_hash(content)}"'})
            return
        headers = {"X-Repo-Commit": repository.commit, "X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        self._json(302, {}, {**headers, "Location": f"{self.state.elsewhere}/cdn/{path}?of={kind or 'models/'}{name}"})

    def cdn(self, query: dict[str, str], _body: bytes, path: str) -> None:
        content = self.state.repositories[query["of"]].files[path]
        self._file(path, content, {"ETag": f'"{sha256(content)}"'})

    def hf_create(self, _query: dict[str, str], body: bytes) -> None:
        if not self._token():
            self._json(401, {"error": "Invalid username or password."})
            return
        asked = json.loads(body)
        name = "/".join(part for part in (asked.get("organization") or "someone", asked["name"]) if part)
        self.state.repositories[f"models/{name}"] = Repository({}, token=self._token() if asked.get("private") else None)
        self._json(200, {"url": f"{self.state.endpoint}/{name}", "name": name})

    def hf_validate(self, _query: dict[str, str], _body: bytes) -> None:
        self._json(200, {"errors": [], "warnings": []})

    def hf_preupload(self, _query: dict[str, str], body: bytes, _name: str, _revision: str) -> None:
        files = [
            {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(IN_LFS) else "regular", "shouldIgnore": False, "oid": None}
            for one in json.loads(body)["files"]
        ]
        self._json(200, {"files": files})

    def hf_lfs(self, _query: dict[str, str], body: bytes, _name: str) -> None:
        objects = [
            {"oid": one["oid"], "size": one["size"], "actions": {"upload": {"href": f"{self.state.endpoint}/upload/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self._json(200, {"transfer": "basic", "objects": objects})

    def upload(self, _query: dict[str, str], body: bytes, oid: str) -> None:
        content = body if body else self._chunked()
        assert sha256(content) == oid
        self.state.stored[oid] = content
        self._json(200, {})

    def hf_commit(self, _query: dict[str, str], body: bytes, name: str, _revision: str) -> None:
        import base64

        lines = [json.loads(line) for line in (body or self._chunked()).splitlines()]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.state.committed[f"models/{name}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.state.committed[f"models/{name}/{value['path']}"] = self.state.stored[value["oid"]]
        url = f"{self.state.endpoint}/{name}/commit/{COMMIT}"
        self._json(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    # ModelScope

    def ms_files(self, query: dict[str, str], _body: bytes, kind: str, name: str) -> None:
        repository = self._ms_readable(kind, name, query.get("Revision"))
        if repository is None:
            return
        files = [
            {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(content), "Sha256": sha256(content)}
            for path, content in repository.files.items()
        ]
        page, size = int(query.get("PageNumber", 1)), int(query.get("PageSize", 10_000))
        self._json(200, {"Code": 200, "Success": True, "Data": {"Files": files[(page - 1) * size : page * size]}})

    def ms_file(self, query: dict[str, str], _body: bytes, kind: str, name: str) -> None:
        repository = self._ms_readable(kind, name, query.get("Revision"))
        if repository is not None:
            path = query["FilePath"]
            self._file(path, repository.files[path], {"X-Linked-ETag": sha256(repository.files[path])})

    def _ms_readable(self, kind: str, name: str, revision: str | None) -> Repository | None:
        repository = self.state.repositories.get(f"{kind}{name}")
        if repository is None or revision not in (None, repository.branch, repository.commit):
            self._json(404, {"Code": 404, "Message": f"{name} 不存在", "Success": False})
            return None
        if repository.token and self._token() != repository.token:
            status = 403 if self._token() else 401
            self._json(status, {"Code": status, "Message": "no permission", "Success": False})
            return None
        return repository

    # Both

    def _readable(self, kind: str, name: str, revision: str | None) -> Repository | None:
        repository = self.state.repositories.get(f"{kind}{name}")
        if repository is None or (repository.token and self._token() is None):
            self._json(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.token and self._token() != repository.token:
            self._json(403, {"error": "not on the authorized list"}, {"X-Error-Code": "GatedRepo"})
            return None
        if revision not in (None, repository.branch, repository.commit):
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _file(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """The bytes from the start of the Range on; those of a file that is to go wrong."""
        if path in self.state.wrong:
            content = bytes(255 - byte for byte in content)
        wanted = self.headers.get("Range", "")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else len(content) - 1
        body = content[first : last + 1]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        for name, value in {**headers, "Accept-Ranges": "bytes", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.state.asked.append((path, wanted))
        cuts = self.state.cut.get(path)
        if cuts:
            self.wfile.write(body[: cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(body)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _chunked(self) -> bytes:
        """A body that came in chunks."""
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    (r"/cdn/(.+)", _Handler.cdn),
    (r"/upload/(\w+)", _Handler.upload),
    (r"/api/repos/create", _Handler.hf_create),
    (r"/api/validate-yaml", _Handler.hf_validate),
    (rf"/api/models/{_NAME}/preupload/([^/]+)", _Handler.hf_preupload),
    (rf"/api/models/{_NAME}/commit/([^/]+)", _Handler.hf_commit),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.hf_lfs),
    (rf"/api/v1/(models/|datasets/){_NAME}/repo/(?:files|tree)", _Handler.ms_files),
    (rf"/api/v1/(models/|datasets/){_NAME}/repo", _Handler.ms_file),
    (rf"/api/(models/|datasets/){_NAME}", _Handler.hf_info),
    (rf"/api/(models/|datasets/){_NAME}/revision/([^/]+)", _Handler.hf_info),
    (rf"/api/(models/|datasets/){_NAME}/tree/([^/]+)(?:/(.*))?", _Handler.hf_tree),
    (rf"/(datasets/)?{_NAME}/resolve/([^/]+)/(.+)", _Handler.hf_file),
]
