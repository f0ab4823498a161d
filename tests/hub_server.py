"""The endpoints of the Hugging Face hub that huggingface_hub asks for models, on the loopback interface, in memory."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".model", ".pth")


def git_digest(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Nothing: clients close connections as they like."""


class Hub:
    """Repositories by name and branch; what was asked; how answers are to be broken.

    Attributes:
        files: (repository, branch) -> path -> content.
        asked: (method, path, Range header) of each request.
        breaks: path of a file -> what happens to its next downloads: a number of bytes after which the connection is
            closed, or a status as text.
        lies: path of a file -> the content that is sent in its place, of the same length.
    """

    def __init__(self):
        self.files, self.private, self.asked, self.uploaded = {}, {}, [], {}
        self.breaks, self.lies = {}, {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, name, branch):
        files = self.files[name, branch]
        return hashlib.sha1(repr(sorted((path, git_digest(files[path])) for path in files)).encode()).hexdigest()

    def branch(self, name, revision):
        """The branch that a revision names, or None."""
        return next((b for n, b in self.files if n == name and revision in (b, self.commit(name, b))), None)

    def downloads(self, path):
        return [(asked, ranged) for method, asked, ranged in self.asked if method == "GET" and asked.endswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def _answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self):
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        for pattern, answer in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                return answer(self, *found.groups(), body=body)
        return self._answer(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815

    def _found(self, name, revision):
        if not any(known == name for known, _ in self.hub.files):
            self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        branch = self.hub.branch(name, revision or "main")
        if branch is None:
            self._answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
        return branch

    def info(self, name, _, revision, body):
        branch = self._found(name, revision)
        if branch is not None:
            siblings = []
            for path, content in self.hub.files[name, branch].items():
                entry = {"rfilename": path, "size": len(content), "blobId": git_digest(content)}
                if path.endswith(LARGE):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                siblings.append(entry)
            self._answer(200, {"id": name, "sha": self.hub.commit(name, branch), "siblings": siblings})

    def tree(self, name, revision, body):
        branch = self._found(name, revision)
        if branch is not None:
            entries = []
            for path, content in self.hub.files[name, branch].items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": git_digest(content)}
                if path.endswith(LARGE):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
                entries.append(entry)
            self._answer(200, entries)

    def resolve(self, name, revision, path, body):
        branch = self._found(name, revision)
        content = None if branch is None else self.hub.files[name, branch].get(path)
        if branch is None or content is None:
            return None if branch is None else self._answer(404, {"error": "x"}, X_Error_Code="EntryNotFound")
        etag = f'"{hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_digest(content)}"'
        headers = {"X_Repo_Commit": self.hub.commit(name, branch), "ETag": etag, "Accept_Ranges": "bytes"}
        return self.send_file(path, content, **headers)

    def send_file(self, path, content, **headers):
        content, status = self.hub.lies.get(path, content), 200
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if ranged:
            start, status = int(ranged[1]), 206
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        plan = self.hub.breaks.get(path, []) if self.command == "GET" else []
        step = plan.pop(0) if plan else None
        if step is None or isinstance(step, str):
            return self._answer(int(step or status), content, **headers)
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[:step])
        self.close_connection = True
        return None

    def file(self, path, body):
        self.send_file(path, self.hub.uploaded[path])

    def create(self, body):
        values = json.loads(body)
        name = f"{values['organization']}/{values['name']}" if values.get("organization") else values["name"]
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self._answer(401, {"error": "Invalid username or password."})
        self.hub.files.setdefault((name, "main"), {})
        self.hub.private[name] = values.get("visibility") == "private"
        return self._answer(200, {"url": f"{self.hub.url}/{name}", "id": name})

    def new_branch(self, name, branch, body):
        self.hub.files.setdefault((name, branch), dict(self.hub.files[name, "main"]))
        self._answer(200, {})

    def validate(self, body):
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, name, revision, body):
        files = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
             "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]  # fmt: skip
        self._answer(200, {"files": files})

    def batch(self, name, body):
        objects = [
            {"oid": item["oid"], "size": item["size"], "authenticated": True,
             "actions": {"upload": {"href": f"{self.hub.url}/uploads/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]  # fmt: skip
        self._answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid, body):
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer(400, {"error": "digest"})
        self.hub.uploaded[oid] = body
        return self._answer(200)

    def commit(self, name, branch, body):
        files = self.hub.files[name, branch]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploaded[value["oid"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        oid = self.hub.commit(name, branch)
        url = f"{self.hub.url}/{name}/commit/{oid}"
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


_NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"GET /api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    (rf"GET /api/models/{_NAME}(/revision/(.+))?", _Handler.info),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"GET /files/(.+)", _Handler.file),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/branch/(.+)", _Handler.new_branch),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /uploads/(\w+)", _Handler.upload),
)
