"""The server as a stranger meets it: what it serves, what it refuses, and many at once."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from served import Served

from latentseg.demo.answer import answer
from latentseg.demo.serve import open_models, served
from latentseg.errors import UserError
from latentseg.inference.model import Model

pytestmark = pytest.mark.slow


http = httpx.Client(trust_env=False, verify=False, timeout=60)  # nothing here is encrypted


def upload(page: Served, name: str, content: bytes) -> httpx.Response:
    return http.post(f"{page.address}gradio_api/upload", files={"files": (name, content)})


def fetched(page: Served, path: str) -> tuple[int, bytes]:
    """Status and content of a path that is sent as it is."""
    connection = HTTPConnection(page.address.split("/")[2], timeout=60)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    return response.status, response.read()


def asked(page: Served, photo: dict[str, Any]) -> str:
    """What the page's function says of a photo, as the raw stream of events."""
    call = f"{page.address}gradio_api/call/segment"
    event = http.post(call, json={"data": [photo]}).json()["event_id"]
    return http.get(f"{call}/{event}", timeout=60).text


@pytest.mark.parametrize("place", ["gradio_api/file=", "file="])
def test_no_file_outside_of_its_folder_is_served(page: Served, place: str) -> None:
    own = json.loads(upload(page, "a.txt", b"hello").text)[0]
    config = page.folder / "ours" / "config.yaml"
    up = "../" * 12
    wanted = [
        "/etc/passwd", f"{up}etc/passwd", f"{Path(own).parent}/{up}etc/passwd", config, page.folder / "images/0.png",
        f"{Path(own).parent}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", Path(__file__), "pyproject.toml",
        f"{Path(own).parent}/..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "//etc/passwd", "..", "",
    ]  # fmt: skip
    for path in wanted:
        status, content = fetched(page, f"{place}{path}")
        assert status in {403, 404}, path
        assert b"root:" not in content
    assert fetched(page, f"gradio_api/file={own}") == (200, b"hello")


def test_what_is_uploaded_is_never_run_by_the_browser(page: Served) -> None:
    own = json.loads(upload(page, "a.html", b"<script>alert(1)</script>").text)[0]
    headers = http.get(f"{page.address}gradio_api/file={own}").headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "pyproject.toml"])
def test_no_file_outside_of_its_folder_is_read(page: Served, path: str) -> None:
    said = asked(page, {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "event: error" in said
    assert "classes" not in said


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\evil.png", "/abs/olute.png", "a" * 300 + ".png", ".."])
def test_the_name_of_an_upload_leads_nowhere(page: Served, name: str) -> None:
    own = Path(os.environ["GRADIO_TEMP_DIR"])
    response = upload(page, name, b"x")
    for path in response.json() if response.status_code == 200 else []:
        assert Path(path).resolve().is_relative_to(own.resolve())
    assert not Path("/etc/passwd.png").exists()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("", {"Host": "evil.example"}),
        ("", {"Origin": "https://evil.example"}),
        ("", {"Origin": "null"}),
        ("gradio_api/file=http://127.0.0.1:9/", {}),
        ("gradio_api/file=HTTPS://a.example/", {}),
        ("gradio_api/proxy=https://a.example/", {}),
    ],
)
def test_strangers_and_detours_are_refused(page: Served, path: str, headers: dict[str, str]) -> None:
    response = http.get(f"{page.address}{path}", headers=headers)
    assert (response.status_code, response.text) == (403, "This page serves this machine alone.")


def test_the_page_is_told_to_ask_nobody_else(page: Served) -> None:
    response = http.get(page.address, headers={"Origin": page.address.rstrip("/")})
    assert response.status_code == 200
    assert response.headers["content-security-policy"].startswith("default-src 'self' data: blob:; script-src 'self'")


def test_a_large_upload_is_refused(page: Served) -> None:
    response = upload(page, "large.png", bytes(2**20 + 1))
    assert (response.status_code, response.text) == (413, "File size exceeded maximum allowed size of 1048576 bytes.")


def test_forty_at_once_are_answered_one_by_one(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most = threading.Semaphore(0), []

    def counted(*args: Any) -> str:
        busy.release()
        most.append(busy._value)
        try:
            return answer(*args)
        finally:
            busy.acquire()

    monkeypatch.setattr("latentseg.demo.page.answer", counted)
    client = Client(page.address, verbose=False, httpx_kwargs={"timeout": 100})
    file = handle_file(page.folder / "images" / "0.png")
    jobs = [client.submit(file, api_name="/segment") for _ in range(40)]
    answers = {job.result(timeout=120) for job in jobs}
    assert len(answers) == 1
    assert len(json.loads(answers.pop())["runs"]) == 2
    assert (len(most), max(most)) == (40, 1)


def test_it_listens_to_this_machine_alone(page: Served) -> None:
    assert page.address.startswith("http://127.0.0.1:")
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


def test_a_taken_port_and_a_folder_without_images(page: Served, tmp_path: Path) -> None:
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(UserError, match=f"the port {port} is taken.*--port"), served(page.models, port=port):
        pass
    with pytest.raises(UserError, match=f"--images {tmp_path} holds no image"), served(page.models, images=tmp_path):
        pass


def test_runs_that_cannot_stand_beside_each_other(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = page.folder / "ours"
    with pytest.raises(UserError, match="is the run itself"):
        open_models(ours, ours)
    other = page.models["plain"]
    fewer = replace(other, run=replace(other.run, classes=("a",)))
    models = [page.models["ours"], fewer]
    monkeypatch.setattr(Model, "open", lambda *_: models.pop(0))
    with pytest.raises(UserError, match=r"knows the classes a, and .* road, .*compare runs of the same classes"):
        open_models(ours, page.folder / "plain")


def test_nothing_is_reported_to_anybody() -> None:
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert gr.Blocks().analytics_enabled is False


def test_what_it_keeps_goes_with_it(page: Served) -> None:
    before = os.environ["GRADIO_TEMP_DIR"]
    with served({"plain": page.models["plain"]}) as address:
        own = Path(os.environ["GRADIO_TEMP_DIR"])
        assert Image.open(own / "examples" / "example-1.png").size == (48, 32)
        again = Served(address, page.models, page.folder)
        assert Path(upload(again, "a.txt", b"hello").json()[0]).is_relative_to(own)
        assert fetched(again, "")[0] == 200
    assert not own.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == before


def test_the_command_ends_and_leaves_nothing(page: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "latentseg", "demo", str(page.folder / "ours"), "--set", "threads=1"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.fullmatch(r"http://127.0.0.1:\d+/ \(this machine only; Ctrl-C ends it\)\n", line)
        assert len(list(tmp_path.glob("latentseg-demo-*"))) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("latentseg-demo-*")) == []
