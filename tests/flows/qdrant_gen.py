"""Random questions for the Qdrant face, and how two answers are held against each other. Everything follows from one seed.

An order is one order: a query vector is drawn again until no two points, and no point and the threshold, score alike to APART (random
reals alone are not enough: some pair of 250 points is as far by Manhattan once in a few hundred questions, and the places that a
fusion of the list gives them then hang on the last bit of a sum). Where scores tie all the same (fusion of equal places), an answer's
runs of equal scores are compared as sets, and nested fusions get weights that leave no ties for a limit to cut (DBSF, where every list
of one scores the same, stands at the root only).
"""
import random
import uuid

import numpy as np
from qdrant_client import models as m

CITIES = ["Berlin", "London", "Moscow", "Rome", "Oslo"]
INDEXES = {"city": "keyword", "n": "integer", "f": "float", "flag": "bool", "when": "datetime", "uid": "uuid", "tags": "keyword"}
CONF = {"image": (5, m.Distance.EUCLID), "text": (7, m.Distance.COSINE), "sum": (3, m.Distance.DOT), "grid": (4, m.Distance.MANHATTAN)}
UNKNOWN = 10 ** 9
APART = 2e-6  # of scores, relative above 1: several f32 sums of a few terms
SCORES = {
    m.Distance.EUCLID: lambda rows, q: np.sqrt(((rows - q) ** 2).sum(1)),
    m.Distance.MANHATTAN: lambda rows, q: np.abs(rows - q).sum(1),
    m.Distance.DOT: lambda rows, q: rows @ q,
    m.Distance.COSINE: lambda rows, q: rows @ q / np.linalg.norm(rows, axis=1) / np.linalg.norm(q),
}


class Questions:
    """conf: {vector name: (dims, distance)}, ids: of the points that are there."""

    def __init__(self, seed, conf=CONF, points=250):
        self.r = random.Random(seed)
        self.conf = conf
        self.ids = [i * 3 if i % 4 else str(uuid.UUID(int=i * 7919 + 1)) for i in range(points)]

    def maybe(self, p):
        return self.r.random() < p

    # ---- points ----

    def vector(self, name):
        return [round(self.r.uniform(-1, 1), 5) for _ in range(self.conf[name][0])]

    def payload(self):
        r = self.r
        out = {"city": r.choice(CITIES), "n": r.randint(-30, 30), "f": round(r.uniform(-5, 5), 6), "flag": self.maybe(0.5),
               "when": f"20{r.randint(10, 25)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}T{r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}Z",
               "uid": str(uuid.UUID(int=r.randint(1, 6))), "tags": r.sample("abcdef", r.randint(0, 3)), "deep": {"x": r.randint(0, 3)},
               "author": r.randint(0, 8)}
        return {k: v for k, v in out.items() if self.maybe(0.85)}

    def points(self):
        points = [m.PointStruct(id=i, vector={n: self.vector(n) for n in self.conf if self.maybe(0.9)}, payload=self.payload()) for i in self.ids]
        self.rows = {n: np.array([p.vector[n] for p in points if n in p.vector]) for n in self.conf}
        return points

    # ---- filters ----

    def condition(self):
        r = self.r
        return r.choice([
            lambda: m.FieldCondition(key="city", match=m.MatchAny(any=r.sample(CITIES, r.randint(1, 3)))),
            lambda: m.FieldCondition(key="n", range=m.Range(gte=r.randint(-30, 10), lt=r.randint(0, 31))),
            lambda: m.FieldCondition(key="flag", match=m.MatchValue(value=self.maybe(0.5))),
            lambda: m.FieldCondition(key="tags", match=m.MatchValue(value=r.choice("abcdef"))),
            lambda: m.FieldCondition(key="deep.x", match=m.MatchValue(value=r.randint(0, 3))),
            lambda: m.HasIdCondition(has_id=r.sample(self.ids, len(self.ids) // 2)),
            lambda: m.HasVectorCondition(has_vector=r.choice(list(self.conf))),
        ])()

    def filter(self):
        parts = {part: [self.condition() for _ in range(self.r.randint(1, 2))] for part in ("must", "should", "must_not") if self.maybe(0.4)}
        if self.maybe(0.1):
            parts["min_should"] = m.MinShould(conditions=[self.condition() for _ in range(3)], min_count=2)
        return m.Filter(**parts) if parts else None

    def maybe_filter(self, p=0.5):
        return self.filter() if self.maybe(p) else None

    # ---- query trees ----

    def threshold(self, name):
        return round(self.r.uniform(0, 2) if self.conf[name][1] in (m.Distance.EUCLID, m.Distance.MANHATTAN) else self.r.uniform(-0.5, 0.5), 4)

    def apart(self, name, query, threshold):
        """No two of the points' scores, nor one and the threshold, are closer than APART."""
        scores = np.sort(np.append(SCORES[self.conf[name][1]](self.rows[name], np.array(query)), [] if threshold is None else threshold))
        return bool((np.diff(scores) > APART * np.maximum(1, np.abs(scores[1:]))).all())

    def nearest(self, by_id=True):
        """{"query", "using"}, perhaps with a threshold. points() come first."""
        name = self.r.choice(list(self.conf))
        while True:
            query, threshold = self.vector(name), self.threshold(name) if self.maybe(0.2) else None
            if self.apart(name, query, threshold):
                break
        if by_id and self.maybe(0.15):
            query = self.r.choice(self.ids)
        elif self.maybe(0.2):
            query = m.NearestQuery(nearest=query)
        return {"query": query, "using": name, **({} if threshold is None else {"score_threshold": threshold})}

    def weights(self, n):
        return [round(self.r.uniform(0.3, 3), 6) for _ in range(n)]

    def fusion(self, n):
        """A fusion of n lists without ties."""
        return m.RrfQuery(rrf=m.Rrf(k=self.r.choice([None, self.r.randint(1, 60)]), weights=self.weights(n)))

    def order(self):
        start = self.r.choice([None, self.r.randint(-20, 20)])
        return m.OrderByQuery(order_by=m.OrderBy(key="f", direction=self.r.choice(list(m.Direction)), start_from=start))

    def prefetch(self, depth):
        """Not by id: the server leaves such a point out of the whole tree, the in-memory engine out of that prefetch alone."""
        r = self.r

        def nearest():
            return self.nearest(by_id=False)
        common = {"filter": self.maybe_filter(0.4), "limit": r.choice([None, r.randint(2, 40)])}
        if depth > 0 and self.maybe(0.4):
            return m.Prefetch(**{**common, **self.over([self.prefetch(depth - 1) for _ in range(r.randint(1, 3))], inner=True)})
        kinds = [nearest, nearest, nearest, lambda: {"query": self.order()}, lambda: {}]
        return m.Prefetch(**{**common, **r.choice(kinds)()})

    def over(self, prefetches, inner=False):
        kinds = [lambda: self.nearest(by_id=not inner), lambda: {"query": self.fusion(len(prefetches))}, lambda: {"query": self.order()}]
        if not inner:
            kinds.append(lambda: {"query": m.FusionQuery(fusion=self.r.choice(list(m.Fusion)))})
        return {"prefetch": prefetches, **self.r.choice(kinds)()}

    def tree(self, depth=2):
        """Arguments of query_points."""
        r = self.r
        out = {"limit": r.randint(1, 30), "query_filter": self.maybe_filter(), "with_payload": r.choice([True, False, ["city", "deep.x"]]),
               "with_vectors": r.choice([True, False, ["text"]])}
        if self.maybe(0.3):
            out["offset"] = r.randint(0, 12)
        if self.maybe(0.5):
            return {**out, **self.over([self.prefetch(depth - 1) for _ in range(r.randint(1, 3))])}
        return {**out, **r.choice([self.nearest, self.nearest, lambda: {"query": self.order()}, lambda: {}])()}


def near(a, b, eps=2e-4):
    return abs(a - b) <= eps * max(1.0, abs(a), abs(b))


def same_vectors(a, b):
    if isinstance(a, dict) or isinstance(b, dict):
        a, b = a or {}, b or {}
        return set(a) == set(b) and all(same_vectors(a[k], b[k]) for k in a)
    return not a and not b or (a is not None and b is not None and len(a) == len(b) and all(near(x, y) for x, y in zip(a, b)))


def check_contents(ours, theirs):
    other = {str(p.id): p for p in theirs}
    for p in ours:
        if q := other.get(str(p.id)):
            assert (p.payload or {}) == (q.payload or {}), (p, q)
            assert same_vectors(p.vector, q.vector), (p, q)
            assert p.order_value == q.order_value, (p, q)


def check_scored(ours, theirs, offset=0, ordered=False):
    """The same scores in order; the same points within a run of equal ones, but for those that an offset or the limit may have cut.
    ordered: by a field, whose values make the runs."""
    assert len(ours) == len(theirs), (ours, theirs)
    runs, run = [], None
    for i, (a, b) in enumerate(zip(ours, theirs)):
        assert near(a.score, b.score), (i, a, b)
        if i == 0 or not near(theirs[i - 1].score, b.score, 1e-5) or (ordered and a.order_value != ours[i - 1].order_value):
            run = (set(), set())
            runs.append(run)
        run[0].add(str(a.id))
        run[1].add(str(b.id))
    for a, b in runs[1 if offset else 0:-1]:
        assert a == b, (a, b)
    check_contents(ours, theirs)
