"""A client that leaves while its answer is being written ends its request, not the server. Method: whole collections are asked for with
their vectors, over connections that are reset at once or a moment later."""
import json
import random
import socket
import struct
import time


def test_clients_that_leave_in_the_middle_of_an_answer_end_nothing_else(serve):
    server = serve({})
    ask = server._client.request
    ask("PUT", "/collections/c", {"vectors": {"size": 256, "distance": "Dot"}})
    for at in range(0, 4000, 1000):
        points = [{"id": at + i, "vector": [float(i % 7)] * 256, "payload": {"n": i}} for i in range(1000)]
        assert ask("PUT", "/collections/c/points?wait=true", {"points": points}).status == 200
    rng = random.Random(5)
    bodies = [("/collections/c/points/query", {"query": [1.0] * 256, "limit": 4000, "with_vector": True, "with_payload": True}),
              ("/collections/c/points/scroll", {"limit": 4000, "with_vector": True}),
              ("/collections/c/points", {"ids": list(range(4000)), "with_vector": True})]
    for i in range(150):
        path, body = bodies[i % 3]
        text = json.dumps(body).encode()
        s = socket.create_connection((server.host, server.port), 10)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" %
                  (path.encode(), len(text)) + text)
        time.sleep(rng.random() * 0.03)
        s.close()
    assert server.post("/collections/c/points/count", {"exact": True}).json()["result"]["count"] == 4000
    assert server.proc.poll() is None
