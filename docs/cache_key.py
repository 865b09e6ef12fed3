#!/usr/bin/env python3
"""The cache key of docs/cache-key.md, to check veckeep by. As a program: prints the test vectors
(cache_key.py > tests/embed/golden/cache_key.json), or their table (cache_key.py --table)."""
import hashlib, hmac, json, struct, sys
from decimal import Decimal

def number(x):  # RFC 8785 writes numbers as ECMAScript does
    if x == 0:
        return "0"
    sign, digits, exp = Decimal(repr(float(x))).normalize().as_tuple()
    d = "".join(map(str, digits))
    k, n = len(d), len(d) + exp
    if k <= n <= 21:
        s = d + "0" * (n - k)
    elif 0 < n <= 21:
        s = d[:n] + "." + d[n:]
    elif -6 < n <= 0:
        s = "0." + "0" * -n + d
    else:
        s = d[0] + ("." + d[1:] if k > 1 else "") + "e%+d" % (n - 1)
    return "-" * sign + s

def canonical(v):  # RFC 8785
    if isinstance(v, dict):
        keys = sorted(v, key=lambda k: k.encode("utf-16-be"))
        return "{" + ",".join(canonical(k) + ":" + canonical(v[k]) for k in keys) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(canonical, v)) + "]"
    if isinstance(v, (int, float)) and not isinstance(v, bool):
        return number(v)
    return json.dumps(v, ensure_ascii=False)

def cache_key(secret, pool, space_num, space_id, role, given, params=None):
    """given: str, or a list of token ids that no tokenizer data turned into text."""
    kind = "text" if isinstance(given, str) else "tokens"
    data = given.encode() if kind == "text" else struct.pack("<%dI" % len(given), *given)
    mac = lambda message: hmac.new(secret, message, hashlib.sha256).digest()
    fields = [space_id.encode(), role.encode(), kind.encode(), canonical(params or {}).encode(), data]
    tlv = b"".join(struct.pack("<BI", i + 1, len(f)) + f for i, f in enumerate(fields))
    tag, ident = mac(data)[:16], mac(b"veckeep-key\x01" + tlv)
    return struct.pack(">I", pool) + tag + struct.pack(">I", space_num) + ident

SECRET, SMALL, VOYAGE = bytes(range(32)), "openai/text-embedding-3-small@1", "voyage/voyage-4@1"
VECTORS = [  # name, pool, number and id of the space, role, given, passed parameters
    ("ascii", 1, 1, SMALL, "none", "Hello world", {}),
    ("another pool", 2, 1, SMALL, "none", "Hello world", {}),
    ("another space", 1, 2, VOYAGE, "none", "Hello world", {}),
    ("role query", 1, 2, VOYAGE, "query", "Hello world", {}),
    ("role document", 1, 2, VOYAGE, "document", "Hello world", {}),
    ("case", 1, 1, SMALL, "none", "hello world", {}),
    ("leading blank", 1, 1, SMALL, "none", " Hello world", {}),
    ("one blank", 1, 1, SMALL, "none", " ", {}),
    ("line feed", 1, 1, SMALL, "none", "a\nb", {}),
    ("blank for line feed", 1, 1, SMALL, "none", "a b", {}),
    ("carriage return, line feed", 1, 1, SMALL, "none", "a\r\nb", {}),
    ("NFC", 1, 1, SMALL, "none", "caf\u00e9", {}),
    ("NFD", 1, 1, SMALL, "none", "cafe\u0301", {}),
    ("emoji", 1, 1, SMALL, "none", "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea", {}),
    ("numbers as text", 1, 1, SMALL, "none", "[9906, 1917]", {}),
    ("tokens that are no text", 1, 1, SMALL, "none", [39, 68, 75, 75, 78], {}),
    ("one token, half a character", 1, 1, SMALL, "none", [9468], {}),
    ("parameters", 1, 2, VOYAGE, "document", "Hello world",
     {"truncation": False, "output_dtype": "float"}),
    ("parameters, numbers and names", 1, 2, VOYAGE, "document", "Hello world",
     {"\u20ac": 1e-7, "b": [1.0, -0.5, 1e21, 123456789012], "a": {"z": None, "y": "\u00e9\n\u001f"},
      "\U0001f600": 333333333.3333333}),
]

def vectors():
    for name, pool, num, space, role, given, params in VECTORS:
        key = cache_key(SECRET, pool, num, space, role, given, params)
        kind = "text" if isinstance(given, str) else "tokens"
        yield {"name": name, "pool": pool, "space_num": num, "space": space, "role": role,
               kind: given, "params": params, "params_canonical": canonical(params),
               "tag": key[4:20].hex(), "id": key[24:].hex(), "key": key.hex()}

if __name__ == "__main__":
    if "--table" in sys.argv:
        for v in vectors():
            print("| %s | `%s` | `%s` |" % (v["name"], v["tag"], v["id"]))
    else:
        lines = ",\n".join("  " + json.dumps(v) for v in vectors())
        print('{"secret": "%s", "vectors": [\n%s\n]}' % (SECRET.hex(), lines))
