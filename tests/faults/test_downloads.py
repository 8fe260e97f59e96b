"""Downloads that are not what they should be."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sclatent.data.download import fetch
from sclatent.errors import InputError

CONTENT = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """Gives the answers of the server's list in turn, the last one for ever."""

    def do_GET(self):
        answers = self.server.answers
        code, kind, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def whole(code=200, kind="application/octet-stream", body=CONTENT, length=None):
    return code, kind, body, len(body) if length is None else length


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(server, path, *answers, **options):
    server.answers = list(answers)
    address = f"http://127.0.0.1:{server.server_address[1]}/counts.h5ad"
    fetch(address, path, attempts=3, pause=0.001, **options)


def test_case_48_a_wrong_hash_names_both_and_the_file_is_removed(server, tmp_path):
    path, wanted = tmp_path / "counts.h5ad", "0" * 64
    with pytest.raises(InputError, match=rf"E334 .*its sha256 is \w{{64}}, .* says {wanted}"):
        get(server, path, whole(), sha256=wanted)
    assert list(tmp_path.iterdir()) == []


HALF = whole(body=CONTENT[:5000], length=len(CONTENT))
PAGE = whole(kind="text/html", body=b"<!DOCTYPE html><p>log in")


@pytest.mark.parametrize("first", [HALF, whole(503, body=b"sorry")])
def test_case_49_what_passes_is_tried_again_until_the_file_is_whole(server, tmp_path, first):
    get(server, tmp_path / "counts.h5ad", first, whole())
    assert (tmp_path / "counts.h5ad").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (HALF, r"E335 .*5,?000 .*\(3 attempts\)"),
        (whole(503, body=b"sorry"), r"E335 .*503.*\(3 attempts\)"),
        (PAGE, "E334 .*sent an HTML page"),
        (whole(body=PAGE[2]), "E334 .*sent an HTML page"),
    ],
)
def test_case_49_what_stays_is_an_error_and_no_file_gets_the_name(server, tmp_path, answer, line):
    path = tmp_path / "counts.h5ad"
    with pytest.raises(InputError) as refused:
        get(server, path, answer)
    assert re.search(line, str(refused.value)), refused.value
    assert not path.exists()
