"""
A Hub on localhost and in memory: the part of its API that `huggingface_hub` uses to push and load models, and
`datasets` to load data. Names of data repositories begin with `datasets/` here.

It follows the client (huggingface_hub 2.4: `hf_api.py`, `_commit_api.py`, `lfs.py`, `file_download.py`). As on the
real Hub, large files use the LFS protocol with basic transfer, on another host name than the API, to which the client
must not send its token. hf_xet's binary protocol is not supported: clients must set HF_HUB_DISABLE_XET=1, and then
behave as if hf_xet were not installed.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


REPO = r"(?P<repo>(?:datasets/)?[\w.-]+/[\w.-]+)"
API = f"/api/(?:models/)?{REPO}"
# Names that the Hub accepts for a data set in `datasets:` and `model-index`, and for a model in `base_model:`.
DATASET_NAME, MODEL_NAME = re.compile(r"(?:[\w-]+/)?[\w.-]+", re.ASCII), re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)


@dataclass
class File:
    """A file of a commit: its content, and whether it is stored as a large file."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    """
    A repository: commits by id, and the heads of branches. A gated one is visible, but only its owner can read files.
    `refuses` maps a file name to the error for its requests; the empty name stands for all requests.
    """

    private: bool = False
    gated: bool = False
    refuses: dict[str, "Refused"] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        sha = hashlib.sha1(f"{branch} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.branches[branch] = files, message, sha
        return sha


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, code: str | None = None, **body):
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


class HubServer:
    """
    The server, as a context manager.

    Args:
        tokens (`dict[str, dict]`):
            Token -> `{"name": user, "can_write": bool}`.
    """

    def __init__(self, tokens: dict[str, dict]):
        self.tokens = tokens
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}  # sha256 -> uploaded content
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, token
        self.drops = 0  # number of next uploads of large files to cut off in the middle
        self.drop_skips = 0  # number of uploads to let through first
        self.drop_commits = 0  # number of next commits to cut off before the answer
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self):
                hub.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_any

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Content of a repository."""
        found = self.repos[repo]
        return {name: file.content for name, file in found.commits[found.branches[revision]].items()}

    # Answering a request

    def answer(self, handler: BaseHTTPRequestHandler):
        url = urlsplit(handler.path)
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.requests.append((handler.command, url.path, token))
        try:
            if url.path.startswith("/storage/"):
                return self.storage_request(handler, url.path)
            body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
            user = self.user(token)
            for methods, pattern, answer in ROUTES:
                if handler.command in methods and (match := re.fullmatch(pattern, url.path)):
                    parts = {name: unquote(part or "") for name, part in match.groupdict().items()}
                    with self.lock:
                        content, headers = answer(self, user=user, body=body, query=parse_qs(url.query), **parts)
                    return self.send(handler, 302 if "Location" in headers else 200, content, headers)
            raise Refused(404, f"no such address: {handler.command} {url.path}")
        except Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self.send(handler, refused.status, {"error": refused.message, **refused.body}, headers)
        except ConnectionAbortedError:
            handler.close_connection = True
            handler.connection.close()

    def send(self, handler: BaseHTTPRequestHandler, status: int, content, headers: dict[str, str]):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        if not isinstance(content, bytes):
            handler.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def storage_request(self, handler: BaseHTTPRequestHandler, path: str):
        """The storage of large files. It checks no tokens: the API has already authorized the upload."""
        oid = path.removeprefix("/storage/")
        if handler.command != "PUT":
            return self.send(handler, 200, self.large[oid], {"ETag": f'"{oid}"'})
        size = int(handler.headers["Content-Length"])
        with self.lock:
            is_dropped = self.drops > 0 and self.drop_skips <= 0
            self.drop_skips -= 1
            self.drops -= is_dropped
        if is_dropped:
            handler.rfile.read(size // 2)
            raise ConnectionAbortedError
        content = handler.rfile.read(size)
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "the content is not what was announced")
        with self.lock:
            self.large[oid] = content
        self.send(handler, 200, b"", {})

    # Authorization

    def user(self, token: str | None) -> dict | None:
        if token is not None and token not in self.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.tokens.get(token)

    def visible(self, repo: str, user: dict | None) -> Repo:
        """A repository that the user may see. Private repositories of others look as if they did not exist."""
        found = self.repos.get(repo)
        if found is not None and "" in found.refuses:
            raise found.refuses[""]
        if found is None or (found.private and not self.owns(user, repo)):
            if user is None:
                raise Refused(401, "Invalid username or password.")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return found

    @staticmethod
    def owns(user: dict | None, repo: str) -> bool:
        return user is not None and repo.split("/")[-2] == user["name"]

    def writable(self, repo: str, user: dict | None) -> Repo:
        found = self.visible(repo, user)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user["can_write"] or repo.split("/")[0] != user["name"]:
            raise Refused(403, "you must use a write token to upload to a repository.")
        return found

    def revision(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # Addresses

    def whoami(self, user, **_):
        if user is None:
            raise Refused(401, "Invalid username or password.")
        return {"type": "user", "name": user["name"], "orgs": []}, {}

    def create_repo(self, user, body, **_):
        wish = json.loads(body)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        owner = wish.get("organization") or user["name"]
        if owner != user["name"] or not user["can_write"]:
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        repo = f"{owner}/{wish['name']}"
        url = f"{self.endpoint}/{repo}"
        if repo in self.repos:
            raise Refused(409, "You already created this model repo", url=url)
        self.repos[repo] = Repo(private=wish.get("visibility") == "private")
        attributes = File(b"*.safetensors filter=lfs\n", False)
        self.repos[repo].commit("main", {".gitattributes": attributes}, "initial commit")
        return {"url": url, "name": repo}, {}

    def validate_yaml(self, body, **_):
        errors = card_errors(json.loads(body)["content"])
        if errors:
            raise Refused(400, "invalid metadata", errors=[{"message": error} for error in errors], warnings=[])
        return {"errors": [], "warnings": []}, {}

    def preupload(self, repo, revision, user, body, **_):
        found = self.writable(repo, user)
        head = found.commits[self.revision(found, revision)]
        files = []
        for wish in json.loads(body)["files"]:
            is_lfs = wish["path"].endswith(".safetensors") or wish["size"] > 10_000_000
            there = head.get(wish["path"])
            oid = None if there is None else there.sha256 if there.is_lfs else there.oid
            mode = "lfs" if is_lfs else "regular"
            files.append({"path": wish["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}, {}

    def lfs_batch(self, repo, user, body, **_):
        self.writable(repo, user)
        objects = []
        for wish in json.loads(body)["objects"]:
            answer = {"oid": wish["oid"], "size": wish["size"]}
            if wish["oid"] not in self.large:
                verify = f"{self.endpoint}/api/lfs-verify/{repo}"
                answer["actions"] = {
                    "upload": {"href": f"{self.storage}/storage/{wish['oid']}"},
                    "verify": {"href": verify},
                }
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}, {}

    def lfs_verify(self, repo, user, body, **_):
        self.writable(repo, user)
        wish = json.loads(body)
        if len(self.large.get(wish["oid"], b"")) != wish["size"]:
            raise Refused(404, "the object has not arrived")
        return {}, {}

    def commit(self, repo, revision, user, body, **_):
        found = self.writable(repo, user)
        if revision not in found.branches:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if self.drop_commits > 0:
            self.drop_commits -= 1
            raise ConnectionAbortedError
        files, message = dict(found.commits[found.branches[revision]]), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"], validate=True), False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise Refused(400, f"the large file of {value['path']} has not arrived")
                files[value["path"]] = File(self.large[value["oid"]], True)
            elif item["key"] == "deletedFile":
                if value["path"] not in files:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[value["path"]]
            else:
                raise Refused(400, f"unknown operation {item['key']}")
        sha = found.commit(revision, files, message)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.endpoint}/{repo}/commit/{sha}"}, {}

    def create_branch(self, repo, branch, user, body, **_):
        found = self.writable(repo, user)
        if branch in found.branches:
            raise Refused(409, "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        found.branches[branch] = self.revision(found, start)
        return {}, {}

    def refs(self, repo, user, **_):
        found = self.visible(repo, user)
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in found.branches.items()
        ]
        return {"branches": branches, "tags": [], "converts": []}, {}

    def history(self, repo, user, **_):
        found = self.visible(repo, user)
        return [
            {"id": sha, "title": title, "message": "", "authors": [], "date": "2018-06-11T00:00:00.000Z"}
            for sha, title in found.messages.items()
        ], {}

    def discussions(self, repo, user, **_):
        self.visible(repo, user)
        return {"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0}, {}

    def info(self, repo, user, revision="", **_):
        found = self.visible(repo, user)
        sha = self.revision(found, revision or "main")
        siblings = [{"rfilename": name} for name in found.commits[sha]]
        return {
            "id": repo.removeprefix("datasets/"),
            "modelId": repo,
            "author": repo.split("/")[-2],
            "sha": sha,
            "private": found.private,
            "disabled": False,
            "gated": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }, {}

    def tree(self, repo, revision, user, query, path="", **_):
        found = self.visible(repo, user)
        files = found.commits[self.revision(found, revision)]
        prefix = f"{path}/" if path else ""
        names = [name for name in files if name.startswith(prefix)]
        if path and not names:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        if query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            names = [name for name in names if "/" not in name.removeprefix(prefix)]
        return [self.entry(name, files[name]) for name in names], {}

    def paths_info(self, repo, revision, user, body, **_):
        found = self.visible(repo, user)
        files = found.commits[self.revision(found, revision)]
        wished = json.loads(body)["paths"]
        return [self.entry(name, files[name]) for name in wished if name in files], {}

    def entry(self, name: str, file: File) -> dict:
        entry = {"type": "file", "path": name, "size": len(file.content), "oid": file.oid}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
        return entry

    def resolve(self, repo, revision, path, user, **_):
        found = self.visible(repo, user)
        if found.gated and not self.owns(user, repo):
            raise Refused(403 if user else 401, f"Access to {repo} is restricted.", "GatedRepo")
        sha = self.revision(found, revision)
        file = found.commits[sha].get(path)
        if path in found.refuses:
            raise found.refuses[path]
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if not file.is_lfs:
            return file.content, headers
        self.large[file.sha256] = file.content
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        return b"", {**headers, "Location": f"{self.storage}/storage/{file.sha256}"}


ROUTES = [
    ("GET", "/api/whoami-v2", HubServer.whoami),
    ("POST", "/api/repos/create", HubServer.create_repo),
    ("POST", "/api/validate-yaml", HubServer.validate_yaml),
    ("POST", f"{API}/preupload/(?P<revision>[^/]+)", HubServer.preupload),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", HubServer.lfs_batch),
    ("POST", f"/api/lfs-verify/{REPO}", HubServer.lfs_verify),
    ("POST", f"{API}/commit/(?P<revision>[^/]+)", HubServer.commit),
    ("POST", f"{API}/branch/(?P<branch>[^/]+)", HubServer.create_branch),
    ("POST", f"{API}/paths-info/(?P<revision>[^/]+)", HubServer.paths_info),
    ("GET", f"{API}/refs", HubServer.refs),
    ("GET", f"{API}/discussions", HubServer.discussions),
    ("GET", f"{API}/commits/(?P<revision>[^/]+)", HubServer.history),
    ("GET", f"{API}", HubServer.info),
    ("GET", f"{API}/revision/(?P<revision>[^/]+)", HubServer.info),
    ("GET", f"{API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", HubServer.tree),
    (("GET", "HEAD"), f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer.resolve),
]


def card_errors(content: str) -> list[str]:
    """Errors that the Hub would report in the metadata of a model card, as far as they are known."""
    parts = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, flags=re.DOTALL)
    if parts is None:
        return ["there is no metadata"]
    try:
        metadata = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return [f"the metadata is not YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["the metadata is not a mapping"]
    errors = []
    for name in metadata.get("datasets", []):
        if not DATASET_NAME.fullmatch(name):
            errors.append(f'"datasets" with value {name!r} fails to match the required pattern')
    bases = metadata.get("base_model", [])
    for name in [bases] if isinstance(bases, str) else bases:
        if not MODEL_NAME.fullmatch(name):
            errors.append(f'"base_model" with value {name!r} is not a model id')
    for key in ("language", "license", "library_name", "pipeline_tag"):
        if key in metadata and not isinstance(metadata[key], str):
            errors.append(f'"{key}" must be a string')
    for key in ("tags", "metrics"):
        if not all(isinstance(value, str) for value in metadata.get(key, [])):
            errors.append(f'"{key}" must be strings')
    for index, model in enumerate(metadata.get("model-index", [])):
        if not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{index}].name" is required')
        for result in model["results"]:
            where = f"model-index[{index}].results"
            if not isinstance(result["task"].get("type"), str):
                errors.append(f'"{where}.task.type" is required')
            dataset = result["dataset"]
            if not isinstance(dataset.get("name"), str) or not DATASET_NAME.fullmatch(dataset.get("type", "")):
                errors.append(f'"{where}.dataset" with value {dataset!r} fails to match the required pattern')
            for metric in result["metrics"]:
                if not isinstance(metric.get("type"), str) or "value" not in metric:
                    errors.append(f'"{where}.metrics" needs type and value')
    return errors
