#!/usr/bin/env python3
"""The house's arrows: which room may include which, and that each foreign library has one door.

    python3 tests/rooms/check.py [ROOT]     exit 0: all is well; 1: what is wrong, a line each

The table is DESIGN section 2's; an arrow changes here and in the code in one commit. Reads the
include lines of every .c, .h and .cpp; a commented-out include counts as none."""
import pathlib
import re
import sys

ROOMS = {  # room -> rooms whose headers it may include, besides its own
    "simd": (),
    "base": ("simd",),
    "store": ("base", "simd"),
    "index": ("base", "simd", "store"),
    "embed": ("base", "simd", "store"),
    "jobs": ("base", "store", "index", "embed"),
    "server": ("base", "simd", "store", "index", "embed", "jobs"),
    "clients": (),
    "bench": ("base", "simd", "store", "index", "embed", "jobs", "server", "tests"),
    "tests": ("base", "simd", "store", "index", "embed", "jobs", "server"),
}

DOORS = {  # foreign header, or the header that brings it -> the only files of the rooms that may include it
    r"lmdb\.h": ("store/env.h", "store/env.c"),
    r"curl/.*": ("embed/upstream.c",),
    r"microhttpd\.h": ("server/http_internal.h",),
    r"server/http_internal\.h": ("server/http.c", "server/http_conn.c", "server/http_request.c",
                                 "server/http_park.c", "server/http_reply.c"),
    r"(cjson/)?cJSON\.h": ("base/json.c",),
    r"utf8proc\.h": ("embed/unicode.c",),
    r"openssl/.*": ("base/hash.c",),
    r"zlib\.h": ("server/gzip.c",),
    r"(cblas|openblas_config|f77blas)\.h": (),
    r"dlfcn\.h": ("simd/gemm.c", "index/faiss_load.c", "bench/preload/huge.c"),
    r"roaring/.*": ("index/bitmap.c",),
    r"faiss/.*": ("index/faiss_face_parts.h", "index/faiss_face.cpp", "index/faiss_face_chain.cpp",
                  "index/faiss_face_make.cpp", "index/faiss_face_search.cpp", "index/faiss_face_file.cpp"),
    r"omp\.h": ("index/faiss_face.cpp",),
}

# Headers whose own includes open a door: nobody outside the room may include them.
PRIVATE = {"store/env.h": "store", "index/faiss_face_parts.h": "index"}

# tests and bench are no rooms of the house; those that stand beside a library say so here.
OUTSIDE = {
    "bench/http_floor.c": r"microhttpd\.h",        # the floor is a bare libmicrohttpd server
    "bench/codec.c": r"(cjson/)?cJSON\.h",         # measured against cJSON
    "bench/store.c": r"lmdb\.h",                   # measured against plain LMDB
    "tests/fuzz/base_json.c": r"(cjson/)?cJSON\.h",  # what cJSON would have let through
    "tests/store/test_cachedb.c": r"lmdb\.h",      # damages records behind the store's back
    "tests/fake/vector.c": r"openssl/.*",          # the fake shares no code with the house
    "tests/fake/stats.c": r"openssl/.*",
}

# Functions that only one file may call.
CALLS = {r"\bdlopen\s*\(": ("simd/gemm.c", "index/faiss_load.c")}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def sources(root):
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".c", ".h", ".cpp") and "node_modules" not in path.parts:
                yield room, path


def wrong_arrows(room, name, line, header):
    target = header.split("/")[0]
    if target not in ROOMS or target == room:
        return
    if target not in ROOMS[room]:
        yield f"{name}:{line}: {room}/ may not include {target}/ ({header})"
    elif PRIVATE.get(header, room) != room and room not in ("tests", "bench"):
        yield f"{name}:{line}: {header} is private to {PRIVATE[header]}/: it opens the door to a library"


def wrong_doors(name, line, header):
    for pattern, files in DOORS.items():
        if not re.fullmatch(pattern, header) or name in files:
            continue
        if name in OUTSIDE and re.fullmatch(OUTSIDE[name], header):
            continue
        yield f"{name}:{line}: <{header}> belongs to {', '.join(files) or 'nobody'} alone"


def check(root):
    seen = 0
    for room, path in sources(root):
        name = path.relative_to(root).as_posix()
        text = COMMENT.sub(blank, path.read_text(encoding="utf-8", errors="replace"))
        for m in INCLUDE.finditer(text):
            seen += 1
            line = text.count("\n", 0, m.start(1)) + 1
            quoted, header = m.group(1) == '"', m.group(2)
            if quoted:
                yield from wrong_arrows(room, name, line, header)
                if "/" not in header and room not in ("tests", "bench"):
                    yield f'{name}:{line}: "{header}" does not name its room'
            yield from wrong_doors(name, line, header)
        for pattern, files in CALLS.items():
            m = re.search(pattern, text)
            if m and name not in files and room not in ("tests", "bench"):
                line = text.count("\n", 0, m.start()) + 1
                yield f"{name}:{line}: {m.group().rstrip('( ')} belongs to {', '.join(files)} alone"
    if seen < 100:
        yield f"only {seen} include lines below {root}: is this the project's root?"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()
    wrong = list(check(root))
    for text in wrong:
        print(text)
    print(f"rooms: {len(wrong)} wrong" if wrong else "rooms: every arrow and door is right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
