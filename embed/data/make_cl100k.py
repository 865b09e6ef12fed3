#!/usr/bin/env python3
"""cl100k_base.tiktoken -> cl100k.bin (layout: README.md beside this file).

    make_cl100k.py path/to/cl100k_base.tiktoken > embed/data/cl100k.bin
"""
import base64
import hashlib
import sys

SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with open(sys.argv[1], "rb") as f:
        text = f.read()
    if hashlib.sha256(text).hexdigest() != SHA256:
        print(f"{sys.argv[1]}: not the published file (SHA-256 differs)", file=sys.stderr)
        return 1
    out = bytearray()
    for rank, line in enumerate(text.splitlines()):
        token, number = line.split()
        if int(number) != rank:
            print(f"rank {number} where {rank} was due", file=sys.stderr)
            return 1
        token = base64.b64decode(token, validate=True)
        if not 1 <= len(token) <= 255:
            print(f"rank {rank}: a token of {len(token)} bytes", file=sys.stderr)
            return 1
        out.append(len(token))
        out += token
    sys.stdout.buffer.write(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
