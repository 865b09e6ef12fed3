"""HTTP as the tests need it: a small client that keeps its connection, and raw sockets."""
import base64
import http.client
import json
import re
import socket
import time

import numpy as np


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json()["error"]

    def rows(self):
        """The answer's vectors in its own order, whatever the encoding."""
        if "octet-stream" in self.headers.get("content-type", ""):
            raise ValueError("raw rows: use rows_raw(dims)")
        out = []
        for item in self.json()["data"]:
            v = item["embedding"]
            if isinstance(v, str):
                out.append(np.frombuffer(base64.b64decode(v, validate=True), dtype="<f4"))
            else:
                out.append(np.array([np.float32(x) for x in v], dtype=np.float32))
        return out

    def rows_raw(self, dims):
        return list(np.frombuffer(self.body, dtype="<f4").reshape(-1, dims))

    @property
    def cache(self):
        """x-veckeep-cache as numbers: {"hits": 1, "misses": 0, "coalesced": 0}."""
        return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", self.headers["x-veckeep-cache"])}

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:400]!r}>"


class Client:
    """One keep-alive connection; a request on a connection that the server had closed is sent anew."""

    def __init__(self, host, port, timeout=60):
        self.host, self.port, self.timeout, self.conn = host, port, timeout, None

    def request(self, method, path, body=None, headers=None):
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, bytearray)):
            if not isinstance(body, str):
                headers.setdefault("Content-Type", "application/json")
                body = json.dumps(body)
            body = body.encode()
        for attempt in (0, 1):
            fresh = self.conn is None
            if fresh:
                self.conn = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            try:
                self.conn.request(method, path, body=body, headers=headers)
                got = self.conn.getresponse()
                data = got.read()
            except (http.client.BadStatusLine, ConnectionResetError, BrokenPipeError):
                self.close()
                if fresh or attempt:
                    raise
                continue
            except BaseException:
                self.close()
                raise
            if got.will_close:
                self.close()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, data)

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body=None, headers=None):
        return self.request("POST", path, body, headers)

    def close(self):
        if self.conn:
            self.conn.close()
        self.conn = None


class Raw:
    """A socket, for what an HTTP library would not send."""

    def __init__(self, host, port, timeout=15):
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.buf = b""

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def _more(self):
        got = self.sock.recv(65536)
        self.buf += got
        return bool(got)

    def read_answer(self):
        """The next whole answer (100s are answers too); None at the connection's end."""
        while b"\r\n\r\n" not in self.buf:
            if not self._more():
                return None
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.strip().lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:])}
        n = int(headers.get("content-length", 0)) if status >= 200 else 0
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, self._read_chunks())
        while len(self.buf) < n:
            if not self._more():
                break
        body, self.buf = self.buf[:n], self.buf[n:]
        return Answer(status, headers, body)

    def _read_chunks(self):
        body = b""
        while True:
            while b"\r\n" not in self.buf:
                if not self._more():
                    return body
            line, self.buf = self.buf.split(b"\r\n", 1)
            n = int(line.split(b";")[0], 16)
            while len(self.buf) < n + 2:
                if not self._more():
                    return body
            body += self.buf[:n]
            self.buf = self.buf[n + 2:]
            if not n:
                return body

    def closed_within(self, seconds):
        """True when the server ends the connection in time (bytes before that are kept)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                if not self._more():
                    return True
            except socket.timeout:
                return False
            except ConnectionResetError:
                return True
        return False

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def positions_of(error):
    """The input positions that an error names: "... position 3" or "... positions 1, 3"."""
    named = re.search(r"positions? ((?:\d+, )*\d+)", error["message"])
    return [int(n) for n in named[1].split(", ")] if named else []
