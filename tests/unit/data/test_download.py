"""Downloads from a real server on loopback that misbehaves in every way seen in the wild."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sclatent.data import download
from sclatent.data.download import fetch
from sclatent.errors import InputError

HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 4000  # 1 MB
HASH = hashlib.sha256(HDF5).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class Server(ThreadingHTTPServer):
    """Answers with the next of `answers`; the last one stays."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = [], []

    def handle_error(self, *_):
        """The client goes away as soon as it has seen enough."""

    def url(self, path="/counts.h5ad"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def log_message(self, *_):
        pass

    def answer(self, status, body, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def whole(handler, body=HDF5, **headers):
    handler.answer(200, body, **headers)


def half(handler, **headers):
    """Promise everything, send half, and close the connection."""
    handler.answer(200, HDF5[: len(HDF5) // 2], length=len(HDF5), **headers)


def half_with_tag(handler):
    half(handler, ETag='"v1"', Accept_Ranges="bytes")


def rest(handler, tag='"v1"', shift=0):
    """Send what the Range header asks for."""
    start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-")) + shift
    content_range = f"bytes {start}-{len(HDF5) - 1}/{len(HDF5)}"
    handler.answer(206, HDF5[start:], Content_Range=content_range, ETag=tag)


def page(handler):
    handler.answer(200, PAGE, Content_Type="text/html; charset=utf-8")


def status(code):
    return lambda handler: handler.answer(code, b"sorry")


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "resources" / "counts.h5ad"


def get(server, path, *answers, **options):
    server.answers = list(answers)
    fetch(server.url(), path, pause=0.001, **{"attempts": 3} | options)


def refused(server, path, *answers, **options):
    with pytest.raises(InputError) as caught:
        get(server, path, *answers, **options)
    assert not path.exists()
    return "\n".join(caught.value.problems)


def left(path):
    return sorted(item.name for item in path.parent.iterdir())


def test_a_file_is_put_in_place_with_its_hash_and_nothing_else(server, path):
    get(server, path, whole)
    assert path.read_bytes() == HDF5
    assert left(path) == ["counts.h5ad", "counts.h5ad.sha256"]
    assert path.with_name("counts.h5ad.sha256").read_text() == f"{HASH}  counts.h5ad\n"


def test_a_broken_download_goes_on_where_it_stopped(server, path, capsys):
    get(server, path, half_with_tag, rest, sha256=HASH)
    assert path.read_bytes() == HDF5
    assert server.requests[1]["Range"] == f"bytes={len(HDF5) // 2}-"
    assert server.requests[1]["If-Range"] == '"v1"'
    assert "attempt 2 of 3 follows" in capsys.readouterr().out


def test_a_download_goes_on_in_a_later_run(server, path):
    refused(server, path, half_with_tag, attempts=1)
    assert path.with_name("counts.h5ad.part").stat().st_size == len(HDF5) // 2
    get(server, path, rest)
    assert path.read_bytes() == HDF5


@pytest.mark.parametrize("second", [whole, lambda handler: whole(handler, ETag='"v2"')])
def test_a_server_without_ranges_or_with_a_new_version_starts_again(second, server, path):
    get(server, path, half_with_tag, second, sha256=HASH)
    assert path.read_bytes() == HDF5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda handler: rest(handler, tag='"v2"'),
        lambda handler: rest(handler, shift=7),
        status(416),
    ],
)
def test_a_wrong_part_is_thrown_away_and_everything_fetched_again(wrong, server, path):
    get(server, path, half_with_tag, wrong, whole, sha256=HASH)
    assert path.read_bytes() == HDF5
    assert "Range" not in server.requests[2]


def test_without_a_version_nothing_is_resumed(server, path):
    get(server, path, half, whole, sha256=HASH)
    assert path.read_bytes() == HDF5
    assert "Range" not in server.requests[1]


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_passing_refusal_is_tried_again(code, server, path):
    get(server, path, status(code), whole)
    assert path.read_bytes() == HDF5


def test_a_server_that_stays_broken_is_given_up_after_the_attempts(server, path):
    message = refused(server, path, status(503))
    assert "the server answered 503" in message
    assert "3 attempts" in message
    assert len(server.requests) == 3


def test_truncated_content_never_gets_its_name(server, path):
    message = refused(server, path, half)
    assert "attempts" in message
    assert "run again" in message


def test_a_missing_file_is_not_tried_again(server, path):
    assert "answered 404" in refused(server, path, status(404))
    assert len(server.requests) == 1


def test_a_redirect_to_a_login_page_is_found(server, path):
    login = server.url("/login")

    def redirect(handler):
        handler.answer(302, b"", Location=login)

    message = refused(server, path, redirect, page)
    assert f"HTML page after a redirect to {login}" in message
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["counts.h5ad", "counts.csv", "counts"])
def test_a_page_without_its_content_type_is_found_by_its_bytes(name, server, tmp_path):
    message = refused(server, tmp_path / name, lambda handler: whole(handler, b"\n " + PAGE))
    assert "an HTML page" in message


@pytest.mark.parametrize("suffix", ["h5", "h5ad", "loom", "csv.gz", "tgz", "zip", "tar"])
def test_bytes_of_another_format_than_the_suffix_are_refused(suffix, server, tmp_path):
    other = b"not what it is called" * 100
    message = refused(server, tmp_path / f"a.{suffix}", lambda handler: whole(handler, other))
    assert f"something else than a .{suffix.split('.')[-1]} file" in message


def test_an_empty_file_is_refused(server, path):
    assert "empty file" in refused(server, path, lambda handler: whole(handler, b""))


def test_a_wrong_hash_names_both_and_removes_the_file(server, path):
    wanted = "0" * 64
    message = refused(server, path, whole, sha256=wanted)
    assert HASH in message
    assert wanted in message
    assert left(path) == []


def test_the_hash_of_the_first_download_is_enforced_after_the_file_is_gone(server, path):
    get(server, path, whole)
    path.unlink()
    message = refused(server, path, lambda handler: whole(handler, HDF5 + b"!"))
    assert HASH in message
    assert "counts.h5ad.sha256 says" in message
    get(server, path, whole)
    assert path.read_bytes() == HDF5


def test_a_hash_in_the_config_overrules_the_recorded_one(server, path):
    get(server, path, whole)
    path.unlink()
    newer = HDF5 + b"!"
    wanted = hashlib.sha256(newer).hexdigest()
    get(server, path, lambda handler: whole(handler, newer), sha256=wanted)
    assert path.with_name("counts.h5ad.sha256").read_text().startswith(wanted)


def test_mirrors_are_tried_in_turn(server, path, capsys):
    server.answers = [status(404), page, whole]
    mirrors = [server.url("/b"), server.url("/c")]
    fetch(server.url(), path, sha256=HASH, mirrors=mirrors, pause=0.001)
    assert path.read_bytes() == HDF5
    assert capsys.readouterr().out.count("WARNING") == 2


def test_a_mirror_does_not_continue_the_bytes_of_another_address(server, path):
    server.answers = [half_with_tag, whole]
    fetch(server.url(), path, mirrors=[server.url("/b")], attempts=1)
    assert path.read_bytes() == HDF5
    assert "Range" not in server.requests[1]


def test_every_address_has_its_line_when_none_works(server, path):
    message = refused(server, path, status(404), mirrors=[server.url("/b")])
    assert message.count("answered 404") == 2
    assert server.url("/b") in message


def test_a_refused_connection_says_what_to_do(path, server):
    address = server.url()
    server.server_close()
    with pytest.raises(InputError, match=r"connection failed.*Fix: run again"):
        fetch(address, path, attempts=2, pause=0.001)


@pytest.mark.parametrize("address", ["ftp://host/a.h5", "file:///etc/passwd"])
def test_other_schemes_are_refused(address, path):
    with pytest.raises(InputError, match="only http and https"):
        fetch(address, path)


def test_more_than_the_disk_holds_is_refused_before_it_comes(server, path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    assert "needs 1.02 MB, 10 B are free" in refused(server, path, whole)


def test_an_encoding_that_the_server_claims_does_not_change_the_bytes(server, path):
    get(server, path, lambda handler: whole(handler, Content_Encoding="gzip"), sha256=HASH)
    assert path.read_bytes() == HDF5


def test_progress_says_size_share_and_time_left():
    line = download.progress("a", 25_000_000, 100_000_000, 5_000_000)
    assert line == "a: 25 MB of 100 MB (25%), 15 s left"
    assert download.progress("a", 25_000_000, None, 1) == "a: 25 MB"
