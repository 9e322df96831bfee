"""Pictures that requests bring along: data URLs, and addresses where these are allowed.

A service that fetches what strangers name must not be led to machines that only it can reach. Each address that a name
stands for, of redirects too, must be of the public internet, and the connection goes to the very address that was
checked, so that a name which answers otherwise the second time gains nothing.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from PIL import Image

from minigpt5.utils.images import ImageError, open_image
from minigpt5.utils.metadata import without_metadata

MOST_REDIRECTS = 3
# Times the pixels that a picture may have, for all pictures of a request.
MOST_TOGETHER = 16
# What stands in an address as it is, `%` of what is encoded already too.
_OF_ADDRESSES = "!#$%&'()*+,/:;=?@[]~"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Of networks of their own or of documents, which `is_global` takes for public.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10", "3fff::/20")))
# Files that tell how large a picture is before it is decoded; others, such as ICO, are decoded to be opened, and those
# in PostScript are programs.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


@dataclass(frozen=True)
class PictureLimits:
    """What is opened.

    Args:
        max_bytes: of a picture's file.
        max_pixels: of a picture.
        allow_urls: whether http and https addresses are fetched.
        timeout: seconds for a picture that is fetched.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 2**24
    allow_urls: bool = False
    timeout: float = 10.0


def open_picture(url: Any, limits: PictureLimits) -> Image.Image:
    """The picture of a data URL or an address, RGB.

    Raises:
        ImageError: if it is none, is too large, or may not be fetched.
    """
    if not isinstance(url, str):
        raise ImageError(f"a picture's url is a string, got {type(url).__name__}")
    scheme = url[:5].lower()
    if scheme == "data:":
        data = _of_data_url(url, limits.max_bytes)
    elif scheme.startswith("http"):
        if not limits.allow_urls:
            raise ImageError("pictures are not fetched from addresses here; send a data URL")
        data = _fetched(url, limits)
    else:
        raise ImageError("a picture's url begins with data:, http: or https:")
    # Not all of them are in every build of PIL.
    Image.init()
    sizes, formats = [(0, 0)], [name for name in _FORMATS if name in Image.OPEN]
    # What cannot be opened is told why below; what can be only without its metadata, as `open_image` does, is as large.
    for pixels in (data, *without_metadata(data)):
        with suppress(Exception), Image.open(io.BytesIO(pixels), formats=formats) as image:
            sizes.append(image.size)
    width, height = max(sizes, key=math.prod)
    if width * height > limits.max_pixels:
        raise _too_large(f"{width} × {height}, over {limits.max_pixels:,} pixels")
    return open_image(data, "a picture", formats)


class Opener:
    """Opens the pictures of one request, which are bounded together too: small files may hold many pixels.

    Args:
        limits: of each of them.
    """

    def __init__(self, limits: PictureLimits):
        self.limits, self.left = limits, MOST_TOGETHER * limits.max_pixels

    def __call__(self, url: Any) -> Image.Image:
        """The next picture; errors as of `open_picture`."""
        image = open_picture(url, self.limits)
        self.left -= image.width * image.height
        if self.left < 0:
            most = MOST_TOGETHER * self.limits.max_pixels
            raise ImageError(f"the pictures of a request have together over {most:,} pixels; send fewer or smaller")
        return image


def _too_large(what: str) -> ImageError:
    return ImageError(f"too large a picture ({what})")


def _of_data_url(url: str, max_bytes: int) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError("a data URL has a comma in front of its data")
    if len(body) > 4 * max_bytes:
        raise _too_large(f"over {max_bytes:,} bytes")
    try:
        data = unquote_to_bytes(body)
        if head.lower().endswith(";base64"):
            # As browsers read it: encoders break lines, and may leave out what fills up the last four.
            data = b"".join(data.split()).rstrip(b"=")
            data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"a data URL that is not base64 ({error})") from None
    if len(data) > max_bytes:
        raise _too_large(f"over {max_bytes:,} bytes")
    return data


def is_public(address: str) -> bool:
    """Whether an address is of the public internet, and so is the one that it may carry within."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        if carried is not None:
            return is_public(str(carried))
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def public_addresses(host: str, port: int) -> Sequence[str]:
    """The addresses of a name.

    Raises:
        ImageError: if it has none, or one that is not public.
    """
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise ImageError(f"a picture's address cannot be found: {host}") from None
    if not found or not all(map(is_public, found)):
        raise ImageError(f"a picture's address is not of the public internet: {host}")
    return found


def _fetched(url: str, limits: PictureLimits) -> bytes:
    ends = time.monotonic() + limits.timeout
    for _ in range(MOST_REDIRECTS + 1):
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ImageError("a picture's address is none") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ImageError("a picture's address is http:// or https:// and a host, without a user's name")
        addresses = public_addresses(parts.hostname, port)
        late = ImageError(f"a picture does not come in {limits.timeout:g} seconds: {parts.hostname}")
        if (left := ends - time.monotonic()) <= 0:
            raise late
        connection = _connection(parts.scheme, parts.hostname, port, addresses, left)
        # A host that sends a byte now and then never lets a read time out.
        end = threading.Timer(ends - time.monotonic(), _shut, [connection.sock])
        end.start()
        try:
            target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), _OF_ADDRESSES)
            connection.request("GET", target, headers={"User-Agent": "minigpt5", "Accept": "image/*"})
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308) and response.headers["Location"]:
                # Headers come as Latin-1, whatever they are.
                url = urljoin(url, response.headers["Location"].encode("latin-1").decode())
                continue
            if response.status != 200:
                raise ImageError(f"a picture's address answers {response.status}: {parts.hostname}")
            data = b""
            while chunk := response.read1(2**16):
                data += chunk
                if len(data) > limits.max_bytes:
                    raise _too_large(f"over {limits.max_bytes:,} bytes")
            if time.monotonic() >= ends:
                raise late
            return data
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            if time.monotonic() >= ends:
                raise late from None
            raise ImageError(f"a picture cannot be fetched from {parts.hostname}: {type(error).__name__}") from None
        finally:
            end.cancel()
            connection.close()
    raise ImageError(f"a picture's address leads on more than {MOST_REDIRECTS} times")


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _connection(
    scheme: str, host: str, port: int, addresses: Sequence[str], timeout: float
) -> http.client.HTTPConnection:
    """A connection to the first that answers of the addresses that were checked, in the name of a host."""
    connection: Any = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.sock = _reached(addresses, port, timeout)
        connection.sock.settimeout(timeout)
        if scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
            # What is left out of the Host header.
            connection.default_port = 443
    except OSError as error:
        connection.close()
        raise ImageError(f"a picture cannot be fetched from {host}: {type(error).__name__}") from None
    return connection


def _reached(addresses: Sequence[str], port: int, timeout: float) -> socket.socket:
    *others, last = addresses
    # All of them together are waited for no longer than one would be.
    share = timeout / len(addresses)
    for address in others:
        with suppress(OSError):
            return socket.create_connection((address, port), share)
    return socket.create_connection((last, port), share)
