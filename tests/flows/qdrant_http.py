"""Qdrant's face by raw HTTP, for what the unmodified client cannot say or hides."""


def ask(server, method, path, body=None, status=200, headers=None):
    """The answer's body, which must have this status."""
    got = server._client.request(method, path, body, server.headers(headers))
    assert got.status == status, (method, path, str(body)[:200], got)
    return got.json()


def error(server, method, path, body=None, status=400, headers=None):
    """The words of a refusal, in Qdrant's envelope."""
    got = ask(server, method, path, body, status, headers)
    assert set(got) == {"status", "time"}, got
    return got["status"]["error"]
