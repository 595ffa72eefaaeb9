"""Ask a web server about every row, many rows at a time: `async def execute`, and nothing waits for anything.

    rainband local examples/async_http.py -- http://127.0.0.1:8000        (default: a small server of its own)
"""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from rainband import Bolt, ReliableSpout, Topology, TopologyBuilder, TopologyContext, Tuple

PATHS = ("/", "/news", "/missing", "/weather", "/about") * 20


class Paths(ReliableSpout):
    """What to ask for. A request that raises fails its tuple, and is asked again."""

    outputs = ("path",)

    def open(self, context: TopologyContext) -> None:
        self.left = list(enumerate(PATHS))

    def next_tuple(self) -> None:
        if self.left:
            number, path = self.left.pop(0)
            self.emit([path], message_id=number)
        else:
            self.finish()


class Fetch(Bolt):
    """GETs each path. At most `max_in_flight` requests of a task are under way at once; they end in any order."""

    outputs = ("path", "status", "length")
    max_in_flight = 16

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80

    async def execute(self, tup: Tuple) -> None:
        path = tup["path"]
        async with asyncio.timeout(10):
            status, body = await self.get(path)
        self.emit([path, status, len(body)])

    async def get(self, path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        return int(head.split()[1]), body


class Tell(Bolt):
    def execute(self, tup: Tuple) -> None:
        print("{:10} {} {:6} bytes".format(*tup))


class Pages(BaseHTTPRequestHandler):
    """Knows every path but /missing."""

    def do_GET(self) -> None:
        known = self.path != "/missing"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(f"this is {self.path}".encode() if known else b"")

    def log_message(self, *_: object) -> None: ...


def start_server() -> str:
    """A server on a free port of this process, which ends with it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def topology(url: str = "") -> Topology:
    """Called with what follows `--` on the command line."""
    builder = TopologyBuilder("async-http")
    builder.set_spout("paths", Paths())
    builder.set_bolt("fetch", Fetch(url or start_server())).shuffle_grouping("paths")
    builder.set_bolt("tell", Tell()).global_grouping("fetch")
    return builder.create_topology()
