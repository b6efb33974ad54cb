"""A Hub of the tests' own: what huggingface_hub's client needs to create, upload, commit, list and download."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_testtokentesttokentesttoken"


@dataclass
class Hub:
    """The state of the server; `fault` is what goes wrong next: refused, card, full, cut, down or nothing."""

    name: str = "me/student"
    address: str = ""
    fault: str = ""
    private: bool = True
    exists: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    """Uploads that a client began, each as often as it tried; two of them run at once."""
    uploads: list[str] = field(default_factory=list)
    """Uploads that arrived."""


class Handler(BaseHTTPRequestHandler):
    """The endpoints; `hub` is set on a subclass."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, code: int, value: object, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, said in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, said)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def allowed(self) -> bool:
        if self.hub.fault != "refused" and self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer(401, {"error": f"Invalid credentials {TOKEN}"})
        return False

    def do_POST(self) -> None:
        content, path = self.body(), urlsplit(self.path).path
        if not self.allowed():
            return
        if path == "/api/repos/create":
            wanted = json.loads(content)
            if self.hub.exists:
                return self.answer(409, {"error": "It exists", "url": f"{self.hub.address}/{self.hub.name}"})
            private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.hub.exists, self.hub.private = True, private
            self.hub.branches["main"] = {".gitattributes": b""}
            return self.answer(200, {"url": f"{self.hub.address}/{wanted.get('organization', 'me')}/{wanted['name']}"})
        if path == "/api/validate-yaml":  # of a model card
            errors = [{"message": '"license" must be one of'}] if self.hub.fault == "card" else []
            return self.answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if "/preupload/" in path:
            files = json.loads(content)["files"]
            modes = [{"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                      "shouldIgnore": False} for each in files]  # fmt: skip
            return self.answer(200, {"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            if self.hub.fault == "full":
                before = "(Request ID: Root=1-" + "0123456789abcdef" * 20 + ") "  # the real Hub says much first
                return self.answer(403, {"error": f"{before}Private repository storage limit reached"})
            actions = [self.action(each) for each in json.loads(content)["objects"]]
            return self.answer(200, {"transfer": "basic", "objects": actions})
        if "/commit/" in path:
            if self.hub.fault == "down":
                return self.answer(400, {"error": "maintenance"})
            return self.commit(unquote(path.split("/commit/")[1]), [json.loads(line) for line in content.splitlines()])
        if "/branch/" in path:
            branch = unquote(path.split("/branch/")[1])
            if branch in self.hub.branches:
                return self.answer(409, {"error": "Reference already exists"})
            self.hub.branches[branch] = dict(self.hub.branches["main"])
            return self.answer(200, {})
        return self.answer(404, {"error": path})

    def action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = wanted["oid"] in self.hub.blobs
        upload = {"upload": {"href": f"{self.hub.address}/blob/{wanted['oid']}"}}
        return {"oid": wanted["oid"], "size": wanted["size"], **({} if known else {"actions": upload})}

    def do_PUT(self) -> None:
        content, oid = self.body(), self.path.rsplit("/", 1)[1]
        self.hub.begun.append(oid)
        if self.hub.fault == "cut" and oid != self.hub.begun[0]:  # one arrives, whatever their order in time
            self.close_connection = True
            self.connection.close()
            return
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.blobs[oid] = content
        self.hub.uploads.append(oid)
        self.answer(200, b"")

    def commit(self, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.branches[branch])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.branches[branch] = files
        self.hub.commits.append(lines[0]["value"])
        oid = hashlib.sha1(str(len(self.hub.commits)).encode()).hexdigest()
        url = f"{self.hub.address}/{self.hub.name}/commit/{oid}"
        self.answer(200, {"commitUrl": url, "commitOid": oid, "success": True})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if not self.allowed():
            return
        file = re.fullmatch(rf"/{self.hub.name}/resolve/([^/]+)/(.*)", path)
        tree = re.match(rf"/api/models/{self.hub.name}/tree/([^/]+)", path)
        info = re.fullmatch(rf"/api/models/{self.hub.name}(?:/revision/([^/]+))?", path)
        head = hashlib.sha1(str(len(self.hub.commits)).encode()).hexdigest()
        if file:
            content = self.hub.branches["main"].get(file[2])
            if content is None:
                return self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(200, content, {"X-Repo-Commit": head, "ETag": f'"{etag}"'})
        branch = self.hub.branches.get((tree or info or ["", ""])[1] or "main", self.hub.branches.get("main", {}))
        if tree:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in branch.items()]
            return self.answer(200, listed)
        if info:
            files = [{"rfilename": name} for name in branch]
            return self.answer(200, {"id": self.hub.name, "sha": head, "private": self.hub.private, "siblings": files})
        return self.answer(404, {"error": path}, {"X-Error-Code": "EntryNotFound"})


@contextmanager
def running(name: str = "me/student") -> Iterator[Hub]:
    """A hub on a free port of this machine, for the repository `name`."""
    hub = Hub(name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
