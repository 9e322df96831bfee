"""Pictures from addresses: never from machines that only the service can reach."""

import io
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from minigpt5.service import pictures
from minigpt5.service.pictures import PictureLimits, is_public, open_picture
from minigpt5.utils.images import ImageError

OPEN = PictureLimits(allow_urls=True, max_bytes=5000, timeout=5)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::1",
        "64:ff9b::7f00:1",
        "fec0::1",
        "3fff::1",
        "192.0.0.8",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address):
    assert is_public(address)


@pytest.fixture
def site(monkeypatch):
    """A web server at 127.0.0.1, which counts as public under the name `picture.example`."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers["Host"]))
            leads = {
                "/moved": "/fox.png",
                "/inside": "http://inner.example/",
                "/loop": "/loop",
                "/umlaut": "/ü".encode().decode("latin-1"),
            }
            if self.path in leads:
                self.send_response(302)
                self.send_header("Location", leads[self.path])
                self.end_headers()
            elif self.path == "/none":
                self.send_error(404)
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 6000 if self.path == "/large" else file.getvalue())

        def log_message(self, *arguments):
            pass

    seen, server = [], HTTPServer(("127.0.0.1", 0), Site)
    names = {
        "picture.example": ["127.0.0.1"],
        "two.example": ["::1", "127.0.0.1"],
        "inner.example": ["10.0.0.1"],
        "both.example": ["8.8.8.8", "10.0.0.1"],
    }

    def look_up(host, port, *rest, **options):
        asked.append(host)
        found = names.get(host, [host.strip("[]")])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    genuine, asked = pictures.is_public, []
    monkeypatch.setattr(pictures, "is_public", lambda address: address == "127.0.0.1" or genuine(address))
    monkeypatch.setattr(pictures.socket, "getaddrinfo", look_up)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://picture.example:{server.server_address[1]}", seen, asked
    server.shutdown()
    server.server_close()


def test_a_picture_is_fetched_in_its_host_s_name(site):
    url, seen, _ = site
    assert open_picture(f"{url}/moved", OPEN).size == (8, 6)
    host = url.removeprefix("http://")
    assert seen == [("/moved", host), ("/fox.png", host)]


def test_letters_and_spaces_of_an_address_are_encoded(site):
    url, seen, _ = site
    for path in ("/füchse/a b.png?größe=1&b=%20c", "/umlaut"):
        assert open_picture(url + path, OPEN).size == (8, 6)
    assert [path for path, _ in seen] == ["/f%C3%BCchse/a%20b.png?gr%C3%B6%C3%9Fe=1&b=%20c", "/umlaut", "/%C3%BC"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/inside", "not of the public internet: inner.example"),
        ("/loop", "leads on more than 3 times"),
        ("/none", "answers 404"),
        ("/large", "over 5,000 bytes"),
    ],
)
def test_what_is_no_picture_is_told(site, path, told):
    with pytest.raises(ImageError, match=told):
        open_picture(site[0] + path, OPEN)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://inner.example/fox.png", "not of the public internet"),
        ("http://both.example/fox.png", "not of the public internet"),
        ("http://[::1]/fox.png", "not of the public internet"),
        ("http://169.254.169.254/latest", "not of the public internet"),
        ("http://me:secret@picture.example/", "without a user's name"),
        ("http:///fox.png", "and a host"),
        ("http://picture.example:99999/", "address is none"),
        ("httpx://picture.example/", "is http:// or https://"),
    ],
)
def test_addresses_that_may_not_be_fetched(site, url, told):
    with pytest.raises(ImageError, match=told):
        open_picture(url, OPEN)
    assert site[1] == []


def test_a_name_is_looked_up_once(site):
    """What it stands for the second time is of no account: the connection goes to the address that was checked."""
    url, _, asked = site
    assert open_picture(f"{url}/fox.png", OPEN).size == (8, 6)
    assert asked == ["picture.example", "127.0.0.1"]


def test_an_address_that_does_not_answer_is_passed_over(site, monkeypatch):
    monkeypatch.setattr(pictures, "is_public", lambda address: address in ("127.0.0.1", "::1"))
    url = site[0].replace("picture.example", "two.example")
    assert open_picture(f"{url}/fox.png", OPEN).size == (8, 6)


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_host_that_sends_a_byte_now_and_then_is_not_waited_for(site, begin):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(begin)
                for _ in range(200):
                    connection.sendall(b"a: b\r\n")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(ImageError, match=r"does not come in 0\.5 seconds: picture"):
            open_picture(
                f"http://picture.example:{server.getsockname()[1]}/", PictureLimits(allow_urls=True, timeout=0.5)
            )
        assert time.monotonic() - began < 5
        thread.join()
