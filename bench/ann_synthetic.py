"""The synthetic set: a mixture fitted to real text embeddings, then carried from their 384 dims to 768.

How, exactly:
1. k-means (faiss, 20 iterations, seeded) cuts the real rows into 3,000 clusters; a cluster's share is its number of rows.
2. All real rows' eigenvectors are the axes. The clusters' centres c and what is left of each row, e = row - c, are written in them.
3. Each cluster keeps its own 24 strongest directions with their variances (an SVD of its e; fewer where it has fewer rows).
   What of e is left beside them has a variance w[r] on axis r, averaged over all rows, and a cluster's own total of it.
4. Beyond axis 384 both variances, of the centres and of what is left, go on as powers of the axis number: a line through
   their logarithms over axes 64 to 320 (the last ones are the model's own end and are left out). The tail's centres are drawn by it.
5. A new row: a cluster by share, its centre, plus its 24 directions times normal numbers, plus on each of the 768 axes a normal
   number of variance w[r] times (the cluster's own rest / the average rest); then one random rotation of the 768 axes, so that
   no coordinate is special, and unit length.
Queries are drawn by the same rule from another seed, so they are held out.

3,000 clusters, because 150,000 rows so drawn are as hard as the 150,000 real ones: intrinsic dimension 23.9 against 23.5, median
distance to the 10th nearest 0.465 against 0.447 (1 - cosine), to the 100th 0.589 against 0.554. With 1,000 it was 29.9, 0.498 and
0.596. The nearest of all is farther than in the real set (its near-duplicates are not drawn).
"""
import numpy as np

DIMS, CLUSTERS, RANK, LINE = 768, 3000, 24, (64, 320)
SAYS = "SYNTHETIC: a mixture of 3,000 clusters of rank 24 fitted to the real text embeddings and carried from 384 to 768 d by the " \
    "power-law tails of their spectra (how: head of bench/ann_synthetic.py)"


def kmeans(x, seed):
    import faiss
    k = faiss.Kmeans(x.shape[1], CLUSTERS, niter=20, seed=seed, max_points_per_centroid=1000)
    k.train(x)
    return k.centroids, k.index.search(x, 1)[1][:, 0]


def tail(variance):
    """The line through log variance over log axis: (its values on the axes beyond, its exponent)."""
    r = np.arange(*LINE)
    slope, at = np.polyfit(np.log(r + 1), np.log(variance[r]), 1)
    return np.exp(at + slope * np.log(np.arange(len(variance), DIMS) + 1)), float(slope)


def local(e):
    """A cluster's strongest directions as rows, scaled by their deviations, and the variance of what they leave."""
    if len(e) < 3:
        return np.zeros((0, e.shape[1])), np.square(e).sum(0) / max(1, len(e))
    _, s, v = np.linalg.svd(e, full_matrices=False)
    keep = min(RANK, len(e) // 2)
    total = np.square(e).sum(0) / len(e)
    factor = v[:keep] * (s[:keep, None] / np.sqrt(len(e)))
    return factor, np.maximum(total - np.square(factor).sum(0), 0)


def fit(x, seed):
    x = np.asarray(x, np.float32)
    d = x.shape[1]
    mean = x.mean(0)
    _, axes = np.linalg.eigh(np.cov((x - mean).T.astype(np.float64)))
    axes = axes[:, ::-1]
    _, which = kmeans(x, seed)
    z = (x - mean) @ axes
    centre, factors, rest, share = np.zeros((CLUSTERS, d)), [], np.zeros((CLUSTERS, d)), np.zeros(CLUSTERS)
    for c in range(CLUSTERS):
        mine = z[which == c]
        share[c] = len(mine) / len(z)
        centre[c] = mine.mean(0) if len(mine) else 0
        factor, rest[c] = local(mine - centre[c])
        factors.append(factor)
    between, left = (share[:, None] * np.square(centre)).sum(0), (share[:, None] * rest).sum(0)
    between_tail, slope_between = tail(between)
    left_tail, slope_left = tail(left)
    dice = np.random.default_rng(seed)
    return {"share": share, "mean": mean @ axes,
            "centre": np.concatenate([centre, dice.normal(size=(CLUSTERS, DIMS - d)) * np.sqrt(between_tail)], 1),
            "factors": factors, "deviation": np.sqrt(np.concatenate([left, left_tail])),
            "scale": np.sqrt(rest.sum(1) / max(left.sum(), 1e-12)),
            "turn": np.linalg.qr(dice.normal(size=(DIMS, DIMS)))[0].astype(np.float32),
            "figures": {"rows": len(x), "variance_between": float(between.sum() / z.var(0).sum()),
                        "variance_in_rank": float(1 - (left.sum() + between.sum()) / z.var(0).sum()),
                        "variance_left": float(left.sum() / z.var(0).sum()),
                        "variance_of_tail": float((between_tail.sum() + left_tail.sum()) / z.var(0).sum()),
                        "exponent_between": slope_between, "exponent_left": slope_left}}


def draw(f, n, seed):
    dice = np.random.default_rng(seed)
    which = dice.choice(CLUSTERS, n, p=f["share"])
    out = np.empty((n, DIMS), np.float32)
    d = len(f["mean"])
    deviation = f["deviation"].astype(np.float32)
    for at in range(0, n, 16384):
        mine = which[at:at + 16384]
        z = dice.standard_normal((len(mine), DIMS), np.float32) * deviation * f["scale"][mine, None].astype(np.float32)
        z += f["centre"][mine].astype(np.float32)
        z[:, :d] += f["mean"].astype(np.float32)
        order = np.argsort(mine, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(mine[order])) + 1):
            factor = f["factors"][mine[some[0]]].astype(np.float32)
            z[some, :d] += dice.standard_normal((len(some), len(factor)), np.float32) @ factor
        z = z @ f["turn"]
        out[at:at + 16384] = z / np.linalg.norm(z, axis=1, keepdims=True)
    return out
