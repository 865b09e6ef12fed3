#!/usr/bin/env python3
"""The peers of bench/ann, one process each: builds an index, or loads one and answers lines.

    ann_peers.py build LIBRARY SET_DIR INDEX THREADS CONFIG      CONFIG and what is printed are JSON
    ann_peers.py serve LIBRARY SET_DIR INDEX CONFIG

What `serve` understands (bench/ann_own.c speaks the same), one JSON line an answer; PARAMS are key=value:
    ids THREADS FILE PARAMS...             all queries in one batch; the rows found go to FILE as int32, K a query, -1 for none
    single SECONDS LEAST MOST PARAMS...    one query a call on one pinned thread: rate, p50, p99
    batch SIZE THREADS SECONDS PARAMS...   rate of batches of SIZE
    memory

Care taken for each peer stands at its class. For all: rows of cosine sets are unit vectors, so the cheapest equivalent metric of
the library is used (mostly L2 or inner product); single queries go by its cheapest call with one thread by its own setting; big
allocations are advised to huge pages (bench/preload/huge.c, GLIBC_TUNABLES), as ours are.
"""
import json
import math
import os
import pathlib
import shutil
import sys
import time

import numpy as np

K = 10
EF = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
NPROBE = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def leaves(n):
    """About 4 sqrt(n), a power of two: the middle of what FAISS's guidelines give."""
    return 1 << max(4, round(math.log2(4 * math.sqrt(n))))


class Peer:
    """A library with one config. `meta` is the set's, `base` its rows when a saved index is loaded; `threads` is set by the caller
    before a batch."""
    package = None
    batches = True     # has a call for many queries
    ascending = "ef"   # the search parameter under which recall only grows

    def __init__(self, meta, config):
        self.meta, self.config, self.n = meta, config, 1
        self.d, self.cosine = meta["d"], meta["metric"] == "cosine"

    def threads(self, n):
        self.n = n

    def prepare(self, row):
        """A query as the single call wants it, made before the clock runs."""
        return row

    def sizes(self, file):
        """Bytes of what must be kept to answer, and more of them where it differs, by the size of what was saved."""
        return {"bytes": file}

    def calibrate(self, queries, truth):
        """What the library offers to tune itself by, after loading. Gives what it found."""
        return {}


class Hnswlib(Peer):
    """Its sdist is compiled on this machine with -march=native, so with AVX-512."""
    package = "hnswlib"

    @staticmethod
    def grid(meta):
        return [{"M": m, "efc": 200} for m in (16, 32)]

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def new(self):
        import hnswlib
        return hnswlib.Index("ip" if self.cosine else "l2", self.d)

    def build(self, base, threads, path):
        self.index = self.new()
        self.index.init_index(len(base), M=self.config["M"], ef_construction=self.config["efc"])
        self.index.add_items(base, num_threads=threads)

    def save(self, path):
        self.index.save_index(path)

    def load(self, path):
        self.index = self.new()
        self.index.load_index(path)

    def params(self, ef):
        self.index.set_ef(int(ef))

    def single(self):
        query = self.index.knn_query
        return lambda q: query(q, K, 1)

    def batch(self, queries):
        return self.index.knn_query(queries, K, self.n)[0]


class Faiss(Peer):
    """A wheel with AVX-512 kernels. Single queries by the C++ method itself with ready pointers and OpenMP at one thread: FAISS's
    Python wrapper and a parallel region would cost more than the search. L2 over unit rows, the metric its kernels favour."""
    package = "faiss-cpu"

    def build(self, base, threads, path):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.index = faiss.index_factory(self.d, self.config["factory"], faiss.METRIC_L2)
        if "HNSW" in self.config["factory"]:
            self.hnsw().efConstruction = self.config["efc"]
        # k-means sees 64 rows a leaf, as bench time is dear; FAISS asks for 39 at least.
        nlist = self.config.get("nlist", 0)
        sample = base[:max(65536, 64 * nlist)] if nlist else base[:65536]
        self.index.train(np.ascontiguousarray(sample))
        for at in range(0, len(base), 1 << 18):
            self.index.add(np.ascontiguousarray(base[at:at + (1 << 18)]))

    def save(self, path):
        import faiss
        faiss.write_index(self.index, path)

    def load(self, path):
        import faiss
        self.index = faiss.read_index(path)
        self.room = np.empty((1, K), np.float32), np.empty((1, K), np.int64)

    def parts(self):
        """(refinement or None, the IVF or HNSW index inside)"""
        import faiss
        index, refine = faiss.downcast_index(self.index), None
        if isinstance(index, faiss.IndexRefine):
            refine, index = index, faiss.downcast_index(index.base_index)
        if isinstance(index, faiss.IndexPreTransform):
            index = faiss.downcast_index(index.index)
        return refine, index

    def hnsw(self):
        return self.parts()[1].hnsw

    def threads(self, n):
        import faiss
        faiss.omp_set_num_threads(n)

    def prepare(self, row):
        import faiss
        row = np.ascontiguousarray(row).reshape(1, -1)
        return faiss.swig_ptr(row), row

    def single(self):
        import faiss
        far, ids = map(faiss.swig_ptr, self.room)
        search = self.index.search_c
        return lambda q: search(1, q[0], K, far, ids)

    def batch(self, queries):
        return self.index.search(queries, K)[1]


class FaissHnsw(Faiss):
    @staticmethod
    def grid(meta):
        more = [{"factory": "HNSW32_SQ8,RFlat", "efc": 200}] if meta["d"] >= 384 else []
        return [{"factory": "HNSW32", "efc": 200}] + more

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def params(self, ef):
        refine, index = self.parts()
        index.hnsw.efSearch = int(ef)
        if refine:
            refine.k_factor = 2  # 8 bits name the ten nearest among twenty


class FaissIvf(Faiss):
    ascending = "nprobe"

    def params(self, nprobe, k_factor):
        refine, index = self.parts()
        index.nprobe = int(nprobe)
        refine.k_factor = k_factor


class FaissPq(FaissIvf):
    """IVF with 4-bit PQ scanned in registers, re-ranked by the full rows: FAISS's own advice for the CPU."""
    @staticmethod
    def grid(meta):
        d, nlist = meta["d"], leaves(meta["n"])
        return [{"factory": f"IVF{n},PQ{m}x4fs,RFlat", "nlist": n} for n, m in
                ((nlist, d // 2), (nlist, d // 4), (nlist // 2, d // 2))]

    @staticmethod
    def searches(config):
        return [{"nprobe": n, "k_factor": k} for k in (4, 10, 30) for n in NPROBE if n <= config["nlist"] // 2]


class FaissRabitq(FaissIvf):
    """Rotated at random first, as the method asks; 1 bit and 4 bits."""
    @staticmethod
    def grid(meta):
        nlist = leaves(meta["n"])
        return [{"factory": f"RR{meta['d']},IVF{nlist},RaBitQfs{bits},RFlat", "nlist": nlist} for bits in ("", "4")]

    @staticmethod
    def searches(config):
        factors = (2, 5) if "fs4" in config["factory"] else (10, 30, 100)
        return [{"nprobe": n, "k_factor": k} for k in factors for n in NPROBE if n <= config["nlist"] // 2]


class Usearch(Peer):
    """Single queries by the compiled method, past the Python wrapper. i8 holds nothing but the codes, so its recall has a ceiling."""
    package = "usearch"

    @staticmethod
    def grid(meta):
        kinds = ("f32", "i8") if meta["metric"] == "cosine" else ("f32",)  # its i8 is for unit vectors
        return [{"dtype": t, "M": m, "efc": 200} for t in kinds for m in (16, 32)]

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def new(self):
        from usearch.index import Index
        return Index(ndim=self.d, metric="cos" if self.cosine and self.config["dtype"] == "i8" else "ip" if self.cosine else "l2sq",
                     dtype=self.config["dtype"], connectivity=self.config["M"], expansion_add=self.config["efc"])

    def build(self, base, threads, path):
        self.index = self.new()
        self.index.add(np.arange(len(base), dtype=np.uint64), base, threads=threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = self.new()
        self.index.load(path)

    def params(self, ef):
        self.index.expansion_search = int(ef)

    def prepare(self, row):
        return np.ascontiguousarray(row).reshape(1, -1)

    def single(self):
        search = self.index._compiled.search_many
        return lambda q: search(q, K, False, 1)

    def batch(self, queries):
        return self.index._compiled.search_many(queries, K, False, self.n)[0]


class Svs(Peer):
    """Intel's Vamana with LVQ and LeanVec; prefetch distances by its own calibration. L2 and alpha 1.2 (unit rows: the same order)."""
    package = "scalable-vs"
    ascending = "window"

    @staticmethod
    def grid(meta):
        kinds = [{"kind": "lvq4x8", "R": 64}, {"kind": "lvq8", "R": 64}]
        if meta["d"] <= 200:
            kinds.append({"kind": "lvq4x8", "R": 32})
        else:
            half = (meta["d"] // 2 + 31) // 32 * 32
            kinds += [{"kind": f"leanvec{bits}x8", "R": 64, "dims": dims} for bits, dims in ((8, half), (4, half), (8, half // 2))]
        return [{**k, "window": 200} for k in kinds]

    @staticmethod
    def searches(config):
        # Two levels are re-ranked within the buffer, so its capacity is a parameter of its own.
        factors = {"lvq8": (1,), "lvq4x8": (1, 1.5)}.get(config["kind"], (1, 2))
        return [{"window": w, "room": f} for f in factors for w in EF[:-2]]

    def loader(self, source, path=None):
        import svs
        kind = self.config["kind"]
        if path:
            return svs.LVQLoader(path) if kind.startswith("lvq") else svs.LeanVecLoader(path)
        if kind.startswith("lvq"):
            return svs.LVQLoader(source, primary=int(kind[3]), residual=8 if "x" in kind else 0)
        return svs.LeanVecLoader(source, self.config["dims"], {"4": svs.LeanVecKind.lvq4, "8": svs.LeanVecKind.lvq8}[kind[7]],
                                 svs.LeanVecKind.lvq8)

    def build(self, base, threads, path):
        import svs
        vecs = path + ".fvecs"  # its loaders read files; writing this one is no part of the time
        with open(vecs, "wb") as f:
            for at in range(0, len(base), 65536):
                some = base[at:at + 65536]
                out = np.empty((len(some), self.d + 1), np.float32)
                out[:, 0].view(np.int32)[:] = self.d
                out[:, 1:] = some
                out.tofile(f)
        self.not_building(vecs)
        params = svs.VamanaBuildParameters(alpha=1.2, graph_max_degree=self.config["R"], window_size=self.config["window"],
                                           max_candidate_pool_size=750)
        source = svs.VectorDataLoader(vecs, svs.DataType.float32, self.d)
        self.index = svs.Vamana.build(params, self.loader(source), svs.DistanceType.L2, num_threads=threads)
        os.unlink(vecs)

    def save(self, path):
        os.makedirs(path)
        self.index.save(f"{path}/config", f"{path}/graph", f"{path}/data")

    def load(self, path):
        import svs
        self.index = svs.Vamana(f"{path}/config", svs.GraphLoader(f"{path}/graph"), self.loader(None, f"{path}/data"),
                                svs.DistanceType.L2, num_threads=1)

    def calibrate(self, queries, truth):
        import svs
        p = svs.VamanaCalibrationParameters()
        p.search_buffer_optimization = svs.VamanaSearchBufferOptimization.Disable
        p.train_prefetchers, p.search_timeout = True, 0.25
        self.index.search_window_size = 64
        self.index.experimental_calibrate(queries, truth[:, :K].astype(np.uint32), K, 0.95, p)
        got = self.index.search_parameters
        return {"prefetch_lookahead": got.prefetch_lookahead, "prefetch_step": got.prefetch_step,
                "backend": self.index.experimental_backend_string}

    def threads(self, n):
        if self.index.num_threads != n:
            self.index.num_threads = n

    def params(self, window, room):
        import svs
        p = self.index.search_parameters
        p.buffer_config = svs.SearchBufferConfig(int(window), round(window * room))
        self.index.search_parameters = p

    def single(self):
        search = self.index.search
        return lambda q: search(q, K)

    def batch(self, queries):
        return self.index.search(queries, K)[0]


class Vsag(Peer):
    """HGraph over uniform 8- or 4-bit codes, re-ranked by f32. Its Python has no call for many queries and keeps the interpreter's
    lock, so batches are loops on one thread."""
    package = "pyvsag"
    batches = False

    @staticmethod
    def grid(meta):
        return [{"codes": c, "degree": r, "efc": 200} for c, r in (("sq8_uniform", 32), ("sq4_uniform", 32), ("sq8_uniform", 64))]

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def new(self, threads):
        import pyvsag
        pyvsag.set_logger_off()
        return pyvsag.Index("hgraph", json.dumps({
            "dtype": "float32", "metric_type": "ip" if self.cosine else "l2", "dim": self.d, "index_param": {
                "base_quantization_type": self.config["codes"], "max_degree": self.config["degree"],
                "ef_construction": self.config["efc"], "use_reorder": True, "precise_quantization_type": "fp32",
                "build_thread_count": threads}}))

    def build(self, base, threads, path):
        self.index = self.new(threads)
        self.index.build(np.ascontiguousarray(base).reshape(-1), np.arange(len(base), dtype=np.int64), len(base), self.d)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = self.new(1)
        self.index.load(path)

    def params(self, ef):
        self.how = json.dumps({"hgraph": {"ef_search": int(ef)}})

    def single(self):
        search, how = self.index.knn_search, self.how
        return lambda q: search(q, K, how)

    def batch(self, queries):
        one, out = self.single(), np.full((len(queries), K), -1, np.int64)
        for i, q in enumerate(queries):
            ids = one(q)[0]
            out[i, :len(ids)] = ids
        return out


class Symqg(Peer):
    """SymphonyQG by its authors: 1-bit codes of the neighbours beside each edge."""
    package = "rabitqlib"

    @staticmethod
    def grid(meta):
        return [{"degree": r, "efc": 200} for r in (32, 64)]

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def build(self, base, threads, path):
        import rabitqlib
        self.index = rabitqlib.SymqgIndex(self.d, self.config["degree"], "l2")
        self.index.build(np.ascontiguousarray(base), self.config["efc"], num_threads=threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        import rabitqlib
        self.index = rabitqlib.SymqgIndex.load(path)

    def params(self, ef):
        self.ef = int(ef)

    def prepare(self, row):
        return np.ascontiguousarray(row).reshape(1, -1)

    def single(self):
        search, ef = self.index.search, self.ef
        return lambda q: search(q, K, ef)

    def batch(self, queries):
        return self.index.search_batch(queries, K, self.ef, self.n)[0].astype(np.int64)


class Glass(Peer):
    """Its authors' rule of thumb: a graph built by uniform 8-bit codes, searched by uniform 4-bit ones (and 8-bit), prefetching by its
    own tuner; L2 (unit rows: the same order). Re-ranked by f32 rows: its f16 ones lose a sixth of the recall here. It re-ranks 1.5
    times what is asked for, so more is asked for where codes are coarse. Only graphs are files; codes are made again by loading."""
    package = "glass"

    @staticmethod
    def grid(meta):
        return [{"kind": kind, "codes": codes, "R": r, "L": 200} for kind, codes, r in
                (("HNSW", "SQ4U", 48), ("HNSW", "SQ8U", 48), ("HNSW", "SQ8U", 32), ("NSG", "SQ8U", 48))]

    @staticmethod
    def searches(config):
        asked = (10, 20, 40) if config["codes"] == "SQ4U" else (10, 20)
        return [{"ef": ef, "ask": k} for k in asked for ef in EF if ef >= 1.5 * k]

    def build(self, base, threads, path):
        import glass
        glass.set_num_threads(threads)
        index = glass.Index(self.config["kind"], "L2", "SQ8U", self.config["R"], self.config["L"])
        self.index = index.build(base)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        import glass
        self.index = glass.Searcher(glass.Graph(path, "glass"), self.base, "L2", self.config["codes"], "FP32")

    def sizes(self, file):
        codes = self.meta["n"] * self.d // (2 if self.config["codes"] == "SQ4U" else 1)
        return {"bytes": file + codes + 4 * self.meta["n"] * self.d, "hot": file + codes}

    def calibrate(self, queries, truth):
        self.index.set_ef(64)
        self.threads(1)
        self.index.optimize(1)
        return {}

    def threads(self, n):
        import glass
        glass.set_num_threads(n)
        self.n = n

    def params(self, ef, ask):
        self.index.set_ef(int(ef))
        self.ask = int(ask)

    def single(self):
        search, ask = self.index.search, self.ask
        return lambda q: search(q, ask)

    def batch(self, queries):
        return self.index.batch_search(queries, self.ask, self.n)[0][:, :K]


class Voyager(Peer):
    package = "voyager"

    @staticmethod
    def grid(meta):
        return [{"M": 16, "efc": 200}]

    @staticmethod
    def searches(config):
        return [{"ef": ef} for ef in EF]

    def build(self, base, threads, path):
        import voyager
        self.index = voyager.Index(voyager.Space.InnerProduct if self.cosine else voyager.Space.Euclidean, num_dimensions=self.d,
                                   M=self.config["M"], ef_construction=self.config["efc"], max_elements=len(base))
        self.index.add_items(base, num_threads=threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        import voyager
        self.index = voyager.Index.load(path)

    def params(self, ef):
        self.index.ef = int(ef)

    def single(self):
        query = self.index.query
        return lambda q: query(q, K, 1)

    def batch(self, queries):
        return self.index.query(queries, K, self.n)[0].astype(np.int64)


class Scann(Peer):
    """Tree, anisotropic 4-bit codes, re-ranked by f32: its authors' recipe for a million rows."""
    package = "scann"
    ascending = "leaves"

    @staticmethod
    def grid(meta):
        return [{"leaves": max(16, round(f * math.sqrt(meta["n"]))), "block": 2} for f in (1, 2)]

    @staticmethod
    def searches(config):
        return [{"leaves": n, "reorder": r} for r in (30, 100, 300) for n in NPROBE if n <= config["leaves"] // 2]

    def build(self, base, threads, path):
        import scann
        ops = scann.scann_ops_pybind
        builder = ops.builder(np.ascontiguousarray(base), K, "dot_product" if self.cosine else "squared_l2")
        builder.set_n_training_threads(threads)
        self.index = builder.tree(num_leaves=self.config["leaves"], num_leaves_to_search=10, training_sample_size=250000).score_ah(
            self.config["block"], anisotropic_quantization_threshold=0.2 if self.cosine else float("nan")).reorder(100).build()

    def save(self, path):
        os.makedirs(path)
        self.index.serialize(path)

    def load(self, path):
        import scann
        self.index = scann.scann_ops_pybind.load_searcher(path)

    def threads(self, n):
        self.n = n
        if n > 1:
            self.index.set_num_threads(n)

    def params(self, leaves, reorder):
        self.leaves, self.reorder = int(leaves), int(reorder)

    def single(self):
        search, leaves, reorder = self.index.searcher.search, self.leaves, self.reorder
        return lambda q: search(q, K, reorder, leaves)

    def batch(self, queries):
        search = self.index.search_batched_parallel if self.n > 1 else self.index.search_batched
        return search(queries, K, self.reorder, self.leaves)[0].astype(np.int64)


class Ngt(Peer):
    """ONNG: an ANNG of 100 edges whose out- and in-edges are then adjusted. Its tuner of search parameters is off: it
    does not end (1,000 rows, a minute). NGT's quantised graph needs its own program to be made."""
    package = "ngt"
    batches = False
    ascending = "epsilon"

    @staticmethod
    def grid(meta):
        return [{"edges": 100, "out": 10, "in": 120}]

    @staticmethod
    def searches(config):
        return [{"epsilon": e} for e in (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.17, 0.2, 0.25, 0.3)]

    def build(self, base, threads, path):
        import ngtpy
        first = path + ".anng"
        shutil.rmtree(first, ignore_errors=True)
        ngtpy.create(first, self.d, edge_size_for_creation=self.config["edges"], edge_size_for_search=0,
                     distance_type="L2", object_type="Float")
        index = ngtpy.Index(first)
        index.batch_insert(np.ascontiguousarray(base), num_threads=threads)
        index.save()
        index.close()
        adjust = ngtpy.Optimizer(log_disabled=True)
        adjust.set(num_of_outgoings=self.config["out"], num_of_incomings=self.config["in"])
        adjust.set_processing_modes(search_parameter_optimization=False, prefetch_parameter_optimization=False,
                                    accuracy_table_generation=False)
        adjust.execute(first, path)
        shutil.rmtree(first)

    def save(self, path):
        pass

    def load(self, path):
        import ngtpy
        self.index = ngtpy.Index(path, read_only=True, log_disabled=True)

    def params(self, epsilon):
        self.epsilon = epsilon

    def single(self):
        search, epsilon = self.index.search, self.epsilon
        return lambda q: search(q, K, epsilon, with_distance=False)

    def batch(self, queries):
        one, out = self.single(), np.full((len(queries), K), -1, np.int64)
        for i, q in enumerate(queries):
            ids = one(q)
            out[i, :len(ids)] = ids
        return out


PEERS = {"hnswlib": Hnswlib, "faiss-hnsw": FaissHnsw, "faiss-ivfpq": FaissPq, "faiss-rabitq": FaissRabitq, "usearch": Usearch,
         "svs": Svs, "vsag": Vsag, "symqg": Symqg, "glass": Glass, "scann": Scann, "voyager": Voyager, "ngt": Ngt}


# ---- this process ----

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def say(**words):
    print(json.dumps(words), flush=True)


def version(peer):
    import importlib.metadata
    return f"{peer.package} {importlib.metadata.version(peer.package)}"


def size_of(path):
    path = pathlib.Path(path)
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def build(peer, base, threads, path):
    """Time of the library's own building, saving apart."""
    shutil.rmtree(path, ignore_errors=True)
    pathlib.Path(path).unlink(missing_ok=True)
    apart = [0.0]
    began = time.perf_counter()

    def not_building(_):
        apart[0] = time.perf_counter() - began

    peer.not_building = not_building
    peer.build(base, threads, path)
    took = time.perf_counter() - began - apart[0]
    peer.save(path)
    say(build_s=took, threads=threads, **peer.sizes(size_of(path)), peak_rss=status("VmHWM"), version=version(peer))


def overhead_us(peer, base):
    """What a single call costs when there is next to nothing to search: the same config over 64 to 256 rows (trees: 640)."""
    import tempfile
    try:
        small = dict(peer.config)
        if "nlist" in small:
            small["factory"] = small["factory"].replace(f"IVF{small['nlist']},", "IVF1,")
            small["nlist"] = 1
        if isinstance(peer, Scann):
            small["leaves"] = 1
        one = type(peer)({**peer.meta, "n": 640}, small)
        one.not_building = lambda _: None
        with tempfile.TemporaryDirectory() as dir:
            few = 640 if "nlist" in small or "leaves" in small or small.get("kind") == "NSG" else small.get("degree", 16) * 4
            one.build(np.ascontiguousarray(base[:few]), 1, dir + "/index")
            one.save(dir + "/index")
            one.base = base[:few]
            one.load(dir + "/index")
            one.threads(1)
            one.params(**one.searches({**small, "nlist": 4, "leaves": 4})[0])
            call, q = one.single(), one.prepare(base[0])
            took = []
            for _ in range(2000):
                start = time.perf_counter_ns()
                call(q)
                took.append(time.perf_counter_ns() - start)
        return sorted(took)[len(took) // 2] * 1e-3
    except Exception as e:
        print(f"  no overhead: {e}", file=sys.stderr)
        return None


class Server:
    def __init__(self, peer, queries):
        self.peer, self.queries, self.cores = peer, queries, sorted(os.sched_getaffinity(0))

    def set(self, threads, words):
        self.peer.threads(threads)
        self.peer.params(**{k: float(v) for k, v in (w.split("=") for w in words)})

    def ids(self, threads, path, *words):
        self.set(int(threads), words)
        start = time.perf_counter()
        found = self.peer.batch(self.queries)
        took = time.perf_counter() - start
        found = np.asarray(found).astype(np.int64)
        found[(found < 0) | (found >= 1 << 31)] = -1  # what a library gives for "none"
        found.astype("<i4").tofile(path)
        say(qps=len(self.queries) / took)

    def single(self, seconds, least, most, *words):
        os.sched_setaffinity(0, self.cores[-1:])
        self.set(1, words)
        call, clock = self.peer.single(), time.perf_counter_ns
        ready, least, most, end = self.ready, int(least), int(most), 0
        for q in ready[:20]:
            call(q)
        took, begun = [], clock()
        limit = begun + int(float(seconds) * 1e9)
        while len(took) < most and (len(took) < least or end < limit):
            for q in ready[:most - len(took)]:
                start = clock()
                call(q)
                end = clock()
                took.append(end - start)
                if end >= limit and len(took) >= least:
                    break
        os.sched_setaffinity(0, self.cores)
        n = len(took)
        took.sort()
        say(qps=n / ((end - begun) * 1e-9), p50_us=took[n // 2] * 1e-3, p99_us=took[min(n - 1, n * 99 // 100)] * 1e-3, calls=n)

    def batch(self, size, threads, seconds, *words):
        size, threads, seconds = int(size), int(threads), float(seconds)
        if threads == 1:
            os.sched_setaffinity(0, self.cores[-1:])
        self.set(threads, words)
        pieces = [np.ascontiguousarray(self.queries[at:at + size]) for at in range(0, len(self.queries) - size + 1, size)]
        self.peer.batch(pieces[-1])
        n, start = 0, time.perf_counter()
        while not n or time.perf_counter() - start < seconds:
            self.peer.batch(pieces[n % len(pieces)])
            n += 1
        took = time.perf_counter() - start
        os.sched_setaffinity(0, self.cores)
        say(qps=n * size / took, calls=n)

    def memory(self):
        say(peak_rss=status("VmHWM"), anon=status("RssAnon"), file=status("RssFile"), huge=huge_pages())

    def run(self):
        self.ready = [self.peer.prepare(q) for q in self.queries]
        for line in sys.stdin:
            word, *rest = line.split()
            {"ids": self.ids, "single": self.single, "batch": self.batch, "memory": self.memory}[word](*rest)


def huge_pages():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("AnonHugePages"):
            return int(line.split()[1]) * 1024
    return 0


def queries_of(dir, meta):
    return np.fromfile(f"{dir}/query.f32", np.float32).reshape(-1, meta["d"])


def serve(peer, dir, path, base):
    __import__({"faiss-cpu": "faiss", "scalable-vs": "svs", "ngt": "ngtpy"}.get(peer.package, peer.package))
    queries = queries_of(dir, peer.meta)
    overhead = overhead_us(peer, base)
    peer.base = base
    before, start = status("VmRSS"), time.perf_counter()
    peer.load(path)
    loaded = time.perf_counter() - start
    truth = np.fromfile(f"{dir}/truth.u32", np.uint32).reshape(len(queries), -1)
    say(load_s=loaded, rss_before=before, overhead_us=overhead, version=version(peer), bytes=size_of(path),
        tuned=peer.calibrate(queries[:500], truth[:500]))
    Server(peer, queries).run()


def main():
    verb, library, dir, path, *rest = sys.argv[1:]
    meta = json.loads(pathlib.Path(dir, "meta.json").read_text())
    peer = PEERS[library](meta, json.loads(rest[-1]))
    base = np.asarray(np.memmap(f"{dir}/base.f32", np.float32, "c").reshape(-1, meta["d"]))  # some bindings want it writable
    if verb == "build":
        build(peer, base, int(rest[0]), path)
    else:
        serve(peer, dir, path, base)


if __name__ == "__main__":
    main()
