/*
 * What a collection is: immutable once made, counted, swapped by a commit. Kept as JSON in the
 * collection's own environment (VK_T_META "config"), so that one commit changes config and rows together and a
 * snapshot is whole. Normalised: whoever writes it (server/) has checked it and filled in defaults;
 * vk_config_parse() refuses what it cannot honour all the same.
 *
 *   {"vectors": {"": {"size": 4, "distance": "Cosine", "datatype": "float32", "on_disk": false,
 *                     "hnsw_config": null, "quantization_config": null,
 *                     "veckeep": {"set": 1, "space": "openai/...@1" | null, "raw": true}}, "title": {...}},
 *    "sparse_vectors": {"words": {"index": {...}, "modifier": "idf", "veckeep": {"set": 2}}},
 *    "params": {...}, "hnsw_config": {...}, "optimizer_config": {...}, "wal_config": {...},
 *    "quantization_config": null, "strict_mode_config": null, "metadata": {...},
 *    "indexes": {"city": {"field": 1, "type": "keyword", "params": null, "state": "ready"}},
 *    "veckeep": {"text_from": null, "provenance": "warn", "ttl": null | {"field": "at", "after_ms": 0},
 *                "next_set": 2, "next_field": 2, "pool": "default"}}
 *
 * The unnamed vector is named "". set: the vector set that serves. space: what it is bound to. raw: a raw row
 * was ever stored (a text may then no longer bind it by itself). A sparse vector has a set's number and no more: it is
 * kept and returned, not searched. params, *_config and metadata are only echoed.
 */
#ifndef VK_INDEX_CONFIG_H
#define VK_INDEX_CONFIG_H

#include <stdatomic.h>

#include "base/json.h"
#include "simd/score.h"

#define VK_VECTORS_MAX 64  /* named vectors of a collection, sparse ones included */
#define VK_FIELDS_MAX 256  /* payload indexes of a collection */
#define VK_NAME_MAX 255    /* bytes of a collection's or vector's name */
#define VK_FIELD_PATH_MAX 255

enum vk_quant { VK_QUANT_NONE, VK_QUANT_SCALAR, VK_QUANT_BINARY, VK_QUANT_OTHER /* kept and shown; codes serve */ };
enum vk_provenance_mode { VK_PROVENANCE_WARN, VK_PROVENANCE_REQUIRE, VK_PROVENANCE_OFF, VK_PROVENANCE_MODES };
enum vk_field_type {
	VK_FIELD_KEYWORD, VK_FIELD_INTEGER, VK_FIELD_FLOAT, VK_FIELD_BOOL, VK_FIELD_DATETIME, VK_FIELD_UUID,
	VK_FIELD_GEO, VK_FIELD_TEXT /* kept and shown; matched by scanning */, VK_FIELD_TYPES
};

/* The words of the JSON. NULL: a metric or type that no collection has. */
extern const char *const vk_metric_names[VK_METRICS], *const vk_dtype_names[VK_DTYPES];
extern const char *const vk_provenance_names[VK_PROVENANCE_MODES];
extern const char *const vk_field_type_names[VK_FIELD_TYPES];

struct vk_set { /* a vector set, as much of it as reading and writing rows needs */
	uint32_t id;
	uint32_t space; /* interned, 0: plain dims */
	uint32_t dims;
	enum vk_metric metric;
	enum vk_dtype dtype;
	enum vk_quant quant; /* BINARY: sign bits are kept beside the codes */
};

struct vk_vector_conf {
	const char *name;
	struct vk_set set;
	const char *space; /* id, or NULL */
	bool raw;          /* has held a raw row */
	bool sparse;       /* of set only the id counts */
	const vk_jv *json; /* the whole entry */
};

struct vk_field_conf {
	const char *path;
	uint16_t field;  /* number in keys */
	enum vk_field_type type;
	bool ready;      /* false: being built, reads may not use it; writes keep it up already */
	bool lookup, range; /* what an integer index can answer (its params; both by default) */
	const vk_jv *json;
};

struct vk_colconf {
	atomic_int refs;
	struct vk_arena arena;
	struct vk_json *doc;
	const vk_jv *root;
	struct vk_bytes text; /* the JSON itself */
	struct vk_vector_conf *vectors;
	size_t vectors_n;              /* dense ones */
	struct vk_vector_conf *sparse; /* vectors + vectors_n: behind them in the same array */
	size_t sparse_n;
	bool single; /* the one vector is unnamed */
	struct vk_field_conf *fields;
	size_t fields_n;
	const char *text_from; /* payload path, or NULL */
	enum vk_provenance_mode provenance;
	const char *ttl_field; /* NULL: none. A payload field with a datetime, or a number of Unix seconds */
	int64_t ttl_after_ms;  /* added to the field's time */
	const char *pool;
	uint32_t next_set;
	uint16_t next_field;
};

enum vk_status vk_colconf_parse(struct vk_bytes text, struct vk_colconf **out, struct vk_error *err);
struct vk_colconf *vk_colconf_ref(struct vk_colconf *c);
void vk_colconf_unref(struct vk_colconf *c);
/* NULL: no such dense vector. n == 0 asks for the unnamed one. */
const struct vk_vector_conf *vk_colconf_vector(const struct vk_colconf *c, struct vk_bytes name);
/* Dense or sparse. */
const struct vk_vector_conf *vk_colconf_named(const struct vk_colconf *c, struct vk_bytes name);
/* By its set's number, dense or sparse. */
const struct vk_vector_conf *vk_colconf_set(const struct vk_colconf *c, uint32_t set);
const struct vk_field_conf *vk_colconf_field(const struct vk_colconf *c, struct vk_bytes path);

#endif
