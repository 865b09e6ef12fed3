/*
 * Collection configs by tables: a table row is a member, its type, its range, its default. One walk checks a client's object against a
 * table, one merges it over what is there (a null or a missing member keeps what was).
 */
#include <stdio.h>

#include "base/cfg.h"
#include "base/utf8.h"
#include "server/qdrant.h"
#include "server/qdrant_config_internal.h"

#define SIZE_MAX_DIMS 65536
#define SHOWN 128
#define PATH_MAX_TEXT 200

#define UINT VK_QDC_UINT
#define FLOAT VK_QDC_FLOAT
#define BOOL VK_QDC_BOOL
#define WORD VK_QDC_WORD
#define OBJECT VK_QDC_OBJECT
#define THREADS VK_QDC_THREADS

#define MEMORY {"memory", WORD, 0, 0, "cold cached pinned", NULL}
#define MEMORY_UNPINNED {"memory", WORD, 0, 0, "cold cached", NULL}
const struct vk_qdc_member vk_qdc_hnsw_own[] = {
	{"m", UINT, 0, 0, NULL, NULL}, {"ef_construct", UINT, 4, 0, NULL, NULL}, {"full_scan_threshold", UINT, 10, 0, NULL, NULL},
	{"max_indexing_threads", UINT, 0, 0, NULL, NULL}, {"on_disk", BOOL, 0, 0, NULL, NULL}, MEMORY,
	{"payload_m", UINT, 0, 0, NULL, NULL}, {"inline_storage", BOOL, 0, 0, NULL, NULL}, {0}};
const struct vk_qdc_member vk_qdc_hnsw[] = {
	{"m", UINT, 0, 0, NULL, "16"}, {"ef_construct", UINT, 4, 0, NULL, "100"}, {"full_scan_threshold", UINT, 10, 0, NULL, "10000"},
	{"max_indexing_threads", UINT, 0, 0, NULL, "0"}, {"on_disk", BOOL, 0, 0, NULL, "false"}, MEMORY,
	{"payload_m", UINT, 0, 0, NULL, NULL}, {"inline_storage", BOOL, 0, 0, NULL, NULL}, {0}};
const struct vk_qdc_member vk_qdc_optimizer[] = {
	{"deleted_threshold", FLOAT, 0, 1, NULL, "0.2"}, {"vacuum_min_vector_number", UINT, 100, 0, NULL, "1000"},
	{"default_segment_number", UINT, 0, 0, NULL, "0"}, {"max_segment_size", UINT, 1, 0, NULL, "null"},
	{"memmap_threshold", UINT, 0, 0, NULL, "null"}, {"indexing_threshold", UINT, 0, 0, NULL, "10000"},
	{"flush_interval_sec", UINT, 0, 0, NULL, "5"}, {"max_optimization_threads", THREADS, 0, 0, NULL, "null"},
	{"prevent_unoptimized", BOOL, 0, 0, NULL, NULL}, {0}};
const struct vk_qdc_member vk_qdc_wal[] = {{"wal_capacity_mb", UINT, 1, 0, NULL, "32"},
				    {"wal_segments_ahead", UINT, 0, 0, NULL, "0"},
				    {"wal_retain_closed", UINT, 1, 0, NULL, "1"}, {0}};
const struct vk_qdc_member vk_qdc_params[] = {
	{"shard_number", UINT, 1, 4294967295.0, NULL, "1"}, {"sharding_method", WORD, 0, 0, "auto custom", NULL},
	{"replication_factor", UINT, 1, 4294967295.0, NULL, "1"}, {"write_consistency_factor", UINT, 1, 4294967295.0, NULL, "1"},
	{"read_fan_out_factor", UINT, 0, 4294967295.0, NULL, NULL}, {"read_fan_out_delay_ms", UINT, 0, 0, NULL, NULL},
	{"on_disk_payload", BOOL, 0, 0, NULL, "true"}, {"payload", OBJECT, 0, 0, NULL, NULL}, {0}};
static const struct vk_qdc_member payload[] = {MEMORY_UNPINNED, {0}};
const struct vk_qdc_member vk_qdc_strict[] = {
	{"enabled", BOOL, 0, 0, NULL, NULL}, {"max_query_limit", UINT, 1, 0, NULL, NULL}, {"max_timeout", UINT, 1, 0, NULL, NULL},
	{"unindexed_filtering_retrieve", BOOL, 0, 0, NULL, NULL}, {"unindexed_filtering_update", BOOL, 0, 0, NULL, NULL},
	{"search_max_hnsw_ef", UINT, 0, 0, NULL, NULL}, {"search_allow_exact", BOOL, 0, 0, NULL, NULL},
	{"search_max_oversampling", FLOAT, 0, 0, NULL, NULL}, {"upsert_max_batchsize", UINT, 0, 0, NULL, NULL},
	{"search_max_batchsize", UINT, 0, 0, NULL, NULL}, {"max_collection_vector_size_bytes", UINT, 0, 0, NULL, NULL},
	{"read_rate_limit", UINT, 1, 0, NULL, NULL}, {"write_rate_limit", UINT, 1, 0, NULL, NULL},
	{"max_collection_payload_size_bytes", UINT, 0, 0, NULL, NULL}, {"max_points_count", UINT, 1, 0, NULL, NULL},
	{"filter_max_conditions", UINT, 0, 0, NULL, NULL}, {"condition_max_size", UINT, 0, 0, NULL, NULL},
	{"multivector_config", OBJECT, 0, 0, NULL, NULL}, {"sparse_config", OBJECT, 0, 0, NULL, NULL},
	{"max_payload_index_count", UINT, 0, 0, NULL, NULL}, {"max_resident_memory_percent", UINT, 1, 100, NULL, NULL}, {0}};

const struct vk_qdc_member vk_qdc_sparse_index[] = {
	{"full_scan_threshold", UINT, 0, 0, NULL, NULL}, {"on_disk", BOOL, 0, 0, NULL, NULL}, MEMORY,
	{"datatype", WORD, 0, 0, "float32 float16 uint8 turbo4", NULL}, {0}};
static const struct vk_qdc_member quant_scalar[] = {{"type", WORD, 0, 0, "int8", NULL}, {"quantile", FLOAT, 0.5, 1, NULL, NULL},
					     {"always_ram", BOOL, 0, 0, NULL, NULL}, MEMORY, {0}};
static const struct vk_qdc_member quant_product[] = {{"compression", WORD, 0, 0, "x4 x8 x16 x32 x64", NULL},
					      {"always_ram", BOOL, 0, 0, NULL, NULL}, MEMORY, {0}};
static const struct vk_qdc_member quant_binary[] = {{"always_ram", BOOL, 0, 0, NULL, NULL}, MEMORY,
					     {"encoding", WORD, 0, 0, "one_bit two_bits one_and_half_bits", NULL},
					     {"query_encoding", WORD, 0, 0, "default binary scalar4bits scalar8bits", NULL}, {0}};
static const struct vk_qdc_member quant_turbo[] = {{"always_ram", BOOL, 0, 0, NULL, NULL}, MEMORY,
					    {"bits", WORD, 0, 0, "bits1 bits1_5 bits2 bits4", NULL}, {0}};
const struct vk_qdc_quant vk_qdc_quants[VK_QDC_QUANTS] = {{"scalar", quant_scalar, "type"}, {"product", quant_product, "compression"}, {"binary", quant_binary, NULL},
	      {"turbo", quant_turbo, NULL}};

/* Payload indexes, by enum vk_field_type. */
#define INDEX_COMMON {"on_disk", BOOL, 0, 0, NULL, NULL}, MEMORY, {"enable_hnsw", BOOL, 0, 0, NULL, NULL}
static const struct vk_qdc_member index_keyword[] = {{"is_tenant", BOOL, 0, 0, NULL, NULL}, {"prefix", BOOL, 0, 0, NULL, NULL}, INDEX_COMMON, {0}};
static const struct vk_qdc_member index_integer[] = {{"lookup", BOOL, 0, 0, NULL, NULL}, {"range", BOOL, 0, 0, NULL, NULL},
					      {"is_principal", BOOL, 0, 0, NULL, NULL}, INDEX_COMMON, {0}};
static const struct vk_qdc_member index_principal[] = {{"is_principal", BOOL, 0, 0, NULL, NULL}, INDEX_COMMON, {0}};
static const struct vk_qdc_member index_tenant[] = {{"is_tenant", BOOL, 0, 0, NULL, NULL}, INDEX_COMMON, {0}};
static const struct vk_qdc_member index_plain[] = {INDEX_COMMON, {0}};
static const struct vk_qdc_member index_text[] = {{"tokenizer", WORD, 0, 0, "prefix whitespace word multilingual", NULL},
					   {"min_token_len", UINT, 0, 0, NULL, NULL}, {"max_token_len", UINT, 0, 0, NULL, NULL},
					   {"lowercase", BOOL, 0, 0, NULL, NULL}, {"ascii_folding", BOOL, 0, 0, NULL, NULL},
					   {"phrase_matching", BOOL, 0, 0, NULL, NULL}, INDEX_COMMON, {0}};
const struct vk_qdc_member *const vk_qdc_index[VK_FIELD_TYPES] = {
	[VK_FIELD_KEYWORD] = index_keyword, [VK_FIELD_INTEGER] = index_integer, [VK_FIELD_FLOAT] = index_principal,
	[VK_FIELD_BOOL] = index_plain, [VK_FIELD_DATETIME] = index_principal, [VK_FIELD_UUID] = index_tenant,
	[VK_FIELD_GEO] = index_plain, [VK_FIELD_TEXT] = index_text};

/* --- checking --- */

static bool absent(const vk_jv *v)
{
	return vk_jv_type(v) == VK_J_NULL;
}

static int shown(struct vk_bytes s)
{
	return (int)vk_utf8_valid(s.p, s.n < SHOWN ? s.n : SHOWN);
}

static bool is_word(struct vk_bytes s, const char *words)
{
	while (*words) {
		size_t n = strcspn(words, " ");
		if (vk_bytes_eq(s, (struct vk_bytes){words, n})) return true;
		words += n + (words[n] == ' ');
	}
	return false;
}

static enum vk_status out_of_range(const char *path, double v, const struct vk_qdc_member *m, struct vk_error *err)
{
	if (m->max > 0 && m->min > 0 && m->max < 1e9)
		return vk_qd_validation(err, path, "value %g invalid, must be from %g to %g", v, m->min, m->max);
	if (v < m->min) return vk_qd_validation(err, path, "value %g invalid, must be %g or larger", v, m->min);
	return vk_qd_validation(err, path, "value %g invalid, must be %g or smaller", v, m->max);
}

static enum vk_status check_member(const vk_jv *v, const struct vk_qdc_member *m, const char *path, struct vk_error *err)
{
	static const char *const expected[] = {[UINT] = "a whole number", [FLOAT] = "a number", [BOOL] = "a boolean", [OBJECT] = "an object",
					       [THREADS] = "a whole number or \"auto\"", [WORD] = "a string"};
	uint64_t u = 0;
	double f = 0;
	bool b;
	struct vk_bytes s;
	bool good = false;
	switch (m->type) {
	case UINT: good = vk_jv_u64(v, &u), f = (double)u; break;
	case FLOAT: good = vk_jv_f64(v, &f); break;
	case BOOL: good = vk_jv_bool(v, &b); break;
	case OBJECT: good = vk_jv_type(v) == VK_J_OBJECT; break;
	case THREADS: good = vk_jv_u64(v, &u) || (vk_jv_str(v, &s) && vk_bytes_is(s, "auto")); break;
	case WORD:
		good = vk_jv_str(v, &s);
		/* Qdrant knows the word and refuses it for rows and payload. */
		if (good && !is_word(s, m->words) && vk_bytes_is(s, "pinned") && strcmp(m->name, "memory") == 0)
			return vk_qd_validation(err, path, "`pinned` memory placement is not supported for this storage");
		if (good && !is_word(s, m->words))
			return vk_qd_format(err, "%s: unknown variant `%.*s`, expected one of: %s", path, shown(s), s.p, m->words);
		break;
	}
	if (!good) return vk_qd_format(err, "%s: invalid type, expected %s", path, expected[m->type]);
	if ((m->type == UINT || m->type == FLOAT) && (f < m->min || (m->max > 0 && f > m->max))) return out_of_range(path, f, m, err);
	return VK_OK;
}

/* Members that the table does not know are nobody's: Qdrant ignores them, too. */
static enum vk_status check_object(const vk_jv *v, const struct vk_qdc_member *table, const char *path, struct vk_error *err)
{
	char where[PATH_MAX_TEXT];
	if (absent(v)) return VK_OK;
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_qd_format(err, "%s: invalid type, expected an object", path);
	for (; table->name; table++) {
		const vk_jv *m = vk_jv_get(v, table->name);
		if (absent(m)) continue;
		snprintf(where, sizeof where, "%s%s%s", path, *path ? "." : "", table->name);
		where[vk_utf8_valid(where, strlen(where))] = 0;
		enum vk_status st = check_member(m, table, where, err);
		if (st) return st;
	}
	return VK_OK;
}

static enum vk_status check_quant(const vk_jv *v, const char *path, bool may_disable, struct vk_error *err)
{
	char where[PATH_MAX_TEXT];
	struct vk_bytes s;
	if (absent(v)) return VK_OK;
	if (may_disable && vk_jv_str(v, &s) && vk_bytes_is(s, "Disabled")) return VK_OK;
	for (size_t i = 0; i < VK_QDC_QUANTS; i++) {
		const vk_jv *q = vk_jv_get(v, vk_qdc_quants[i].name);
		if (absent(q)) continue;
		snprintf(where, sizeof where, "%s.%s", path, vk_qdc_quants[i].name);
		where[vk_utf8_valid(where, strlen(where))] = 0;
		if (vk_qdc_quants[i].required && absent(vk_jv_get(q, vk_qdc_quants[i].required)))
			return vk_qd_format(err, "%s: missing field `%s`", where, vk_qdc_quants[i].required);
		return check_object(q, vk_qdc_quants[i].members, where, err);
	}
	return vk_qd_format(err, "%s: expected one of scalar, product, binary, turbo%s", path, may_disable ? " or \"Disabled\"" : "");
}

/* A vector's name, length or bytes at fault. The default one has none. */
static enum vk_status check_vector_name(struct vk_bytes name, struct vk_error *err)
{
	if (name.n > VK_NAME_MAX) return vk_qd_validation(err, "vectors", "a vector's name has at most %d bytes", VK_NAME_MAX);
	return VK_OK;
}

static enum vk_status check_vector(const vk_jv *v, const char *path, struct vk_error *err)
{
	static const struct vk_qdc_member table[] = {{"size", UINT, 1, SIZE_MAX_DIMS, NULL, NULL},
					      {"distance", WORD, 0, 0, "Cosine Euclid Dot Manhattan", NULL},
					      {"datatype", WORD, 0, 0, "float32 float16 uint8 turbo4", NULL},
					      {"on_disk", BOOL, 0, 0, NULL, NULL}, MEMORY_UNPINNED, {0}};
	char where[PATH_MAX_TEXT];
	struct vk_bytes datatype;
	if (vk_jv_type(v) != VK_J_OBJECT) return vk_qd_format(err, "%s: invalid type, expected an object", path);
	if (absent(vk_jv_get(v, "size"))) return vk_qd_format(err, "%s: missing field `size`", path);
	if (absent(vk_jv_get(v, "distance"))) return vk_qd_format(err, "%s: missing field `distance`", path);
	enum vk_status st = check_object(v, table, path, err);
	snprintf(where, sizeof where, "%s.hnsw_config", path);
	if (!st) st = check_object(vk_jv_get(v, "hnsw_config"), vk_qdc_hnsw_own, where, err);
	snprintf(where, sizeof where, "%s.quantization_config", path);
	if (!st) st = check_quant(vk_jv_get(v, "quantization_config"), where, false, err);
	if (st) return st;
	if (!absent(vk_jv_get(v, "multivector_config")))
		return vk_qd_wrong(err, "%s.multivector_config: this version keeps one row a vector, no multivectors", path);
	if (vk_jv_str(vk_jv_get(v, "datatype"), &datatype) && vk_bytes_is(datatype, "turbo4"))
		return vk_qd_wrong(err, "%s.datatype: this version keeps float32, float16 or uint8 rows", path);
	return VK_OK;
}

/* {"size": ...} or {"name": {"size": ...}}: a vector called "size" would have an object there. */
bool vk_qdc_is_single(const vk_jv *vectors)
{
	return vk_jv_type(vk_jv_get(vectors, "size")) == VK_J_NUMBER || vk_jv_type(vk_jv_get(vectors, "distance")) == VK_J_STRING;
}

static enum vk_status check_vectors(const vk_jv *vectors, struct vk_error *err)
{
	char where[PATH_MAX_TEXT];
	if (absent(vectors)) return VK_OK;
	if (vk_jv_type(vectors) != VK_J_OBJECT) return vk_qd_format(err, "vectors: invalid type, expected an object");
	if (vk_qdc_is_single(vectors)) return check_vector(vectors, "vectors", err);
	if (vk_jv_len(vectors) > VK_VECTORS_MAX)
		return vk_qd_wrong(err, "a collection has at most %d named vectors", VK_VECTORS_MAX);
	for (const vk_jv *v = vk_jv_first(vectors); v; v = vk_jv_next(v)) {
		enum vk_status st = check_vector_name(vk_jv_key(v), err);
		snprintf(where, sizeof where, "vectors.%.*s", shown(vk_jv_key(v)), vk_jv_key(v).p);
		if (!st) st = check_vector(v, where, err);
		if (st) return st;
	}
	return VK_OK;
}

/* turbo4 is a datatype that Qdrant has for dense vectors alone. */
static enum vk_status check_sparse_datatype(const vk_jv *datatype, const char *path, struct vk_error *err)
{
	struct vk_bytes s;
	if (!vk_jv_str(datatype, &s) || !vk_bytes_is(s, "turbo4")) return VK_OK;
	return vk_qd_wrong(err, "%s: sparse vectors do not support the datatype turbo4", path);
}

static enum vk_status check_sparse(const vk_jv *sparse, struct vk_error *err)
{
	static const struct vk_qdc_member table[] = {{"modifier", WORD, 0, 0, "none idf", NULL}, {0}};
	char where[PATH_MAX_TEXT];
	if (absent(sparse)) return VK_OK;
	if (vk_jv_type(sparse) != VK_J_OBJECT) return vk_qd_format(err, "sparse_vectors: invalid type, expected an object");
	for (const vk_jv *v = vk_jv_first(sparse); v; v = vk_jv_next(v)) {
		struct vk_bytes name = vk_jv_key(v);
		const vk_jv *index = vk_jv_get(v, "index");
		enum vk_status st = check_vector_name(name, err);
		snprintf(where, sizeof where, "sparse_vectors.%.*s", shown(name), name.p);
		if (!st && !name.n) st = vk_qd_wrong(err, "Sparse vector name cannot be empty");
		if (!st && vk_jv_type(v) != VK_J_OBJECT) st = vk_qd_format(err, "%s: invalid type, expected an object", where);
		if (!st) st = check_object(v, table, where, err);
		snprintf(where, sizeof where, "sparse_vectors.%.*s.index", shown(name), name.p);
		if (!st) st = check_object(index, vk_qdc_sparse_index, where, err);
		if (!st) st = check_sparse_datatype(vk_jv_get(index, "datatype"), where, err);
		if (st) return st;
	}
	return VK_OK;
}

/* Both kinds of a new collection: names are told apart, and counted together. */
static enum vk_status check_both(const vk_jv *vectors, const vk_jv *sparse, struct vk_error *err)
{
	bool single = vk_qdc_is_single(vectors);
	for (const vk_jv *v = vk_jv_first(sparse); v && !single; v = vk_jv_next(v))
		if (vk_jv_get(vectors, vk_jv_key(v).p))
			return vk_qd_wrong(err, "Dense and sparse vector names must be unique - duplicate found with '%.*s'",
					   shown(vk_jv_key(v)), vk_jv_key(v).p);
	if ((single ? 1 : vk_jv_len(vectors)) + vk_jv_len(sparse) > VK_VECTORS_MAX)
		return vk_qd_wrong(err, "a collection has at most %d named vectors", VK_VECTORS_MAX);
	return VK_OK;
}

/* {"modifier", "datatype"} of a sparse vector that is added. */
static enum vk_status check_new_sparse(const vk_jv *v, struct vk_bytes name, struct vk_error *err)
{
	static const struct vk_qdc_member table[] = {{"modifier", WORD, 0, 0, "none idf", NULL},
					      {"datatype", WORD, 0, 0, "float32 float16 uint8 turbo4", NULL}, {0}};
	if (!name.n) return vk_qd_wrong(err, "Sparse vector name cannot be empty");
	enum vk_status st = check_vector_name(name, err);
	if (!st) st = check_object(v, table, "sparse", err);
	return st ? st : check_sparse_datatype(vk_jv_get(v, "datatype"), "sparse", err);
}

/* --- ours: metadata.veckeep --- */

enum vk_status vk_qdc_read_after(const vk_jv *v, int64_t *ms, struct vk_error *err)
{
	struct vk_bytes s;
	double seconds;
	uint64_t u;
	*ms = 0;
	if (absent(v)) return VK_OK;
	if (vk_jv_f64(v, &seconds) && seconds > -1e12 && seconds < 1e12) {
		*ms = (int64_t)(seconds * 1000);
		return VK_OK;
	}
	if (vk_jv_str(v, &s) && vk_parse_duration_ms(s.p, &u) && u < (uint64_t)1 << 62) {
		*ms = (int64_t)u;
		return VK_OK;
	}
	return vk_qd_validation(err, "metadata.veckeep.ttl.after", "expected seconds, or a duration such as \"30d\"");
}

static enum vk_status check_path(const char *where, struct vk_bytes text, struct vk_error *err)
{
	struct vk_arena a;
	struct vk_path p;
	struct vk_error inner = {0};
	vk_arena_init(&a, (size_t)1 << 20);
	enum vk_status st = text.n && text.n <= VK_FIELD_PATH_MAX ? vk_path_parse(&a, text, &p, &inner) : VK_E_INVALID;
	vk_arena_free(&a);
	if (!st) return VK_OK;
	return vk_qd_validation(err, where, "`%.*s` is no path of payload keys%s%.200s", shown(text), text.p ? text.p : "", inner.text[0] ? ": " : "",
				inner.text);
}

static enum vk_status check_ttl(const vk_jv *ttl, struct vk_error *err)
{
	struct vk_bytes field;
	int64_t ms;
	if (absent(ttl)) return VK_OK;
	if (vk_jv_type(ttl) != VK_J_OBJECT || !vk_jv_str(vk_jv_get(ttl, "field"), &field))
		return vk_qd_validation(err, "metadata.veckeep.ttl", "expected {\"field\": payload field, \"after\": duration}");
	enum vk_status st = vk_qd_fields(ttl, "field after", err);
	if (!st) st = check_path("metadata.veckeep.ttl.field", field, err);
	return st ? st : vk_qdc_read_after(vk_jv_get(ttl, "after"), &ms, err);
}

static enum vk_status check_ours(const vk_jv *metadata, struct vk_error *err)
{
	const vk_jv *ours = vk_jv_get(metadata, "veckeep");
	struct vk_bytes s;
	if (absent(metadata)) return VK_OK;
	if (vk_jv_type(metadata) != VK_J_OBJECT) return vk_qd_format(err, "metadata: invalid type, expected an object");
	if (absent(ours)) return VK_OK;
	if (vk_jv_type(ours) != VK_J_OBJECT) return vk_qd_validation(err, "metadata.veckeep", "expected an object");
	enum vk_status st = vk_qd_fields(ours, "spaces text_from provenance ttl index", err);
	if (!st) st = vk_qdc_index_check(vk_jv_get(ours, "index"), err);
	if (st) return st;
	const vk_jv *spaces = vk_jv_get(ours, "spaces"), *from = vk_jv_get(ours, "text_from"), *mode = vk_jv_get(ours, "provenance");
	if (!absent(spaces) && vk_jv_type(spaces) != VK_J_OBJECT)
		return vk_qd_validation(err, "metadata.veckeep.spaces", "expected {vector name: space id}");
	for (const vk_jv *v = vk_jv_first(spaces); v; v = vk_jv_next(v))
		if (!vk_jv_str(v, &s)) return vk_qd_validation(err, "metadata.veckeep.spaces", "a space's id is a string");
	if (!absent(from)) {
		if (!vk_jv_str(from, &s)) return vk_qd_validation(err, "metadata.veckeep.text_from", "expected a payload field");
		if ((st = check_path("metadata.veckeep.text_from", s, err))) return st;
	}
	if (!absent(mode) && (!vk_jv_str(mode, &s) || !is_word(s, "warn require off")))
		return vk_qd_validation(err, "metadata.veckeep.provenance", "expected one of: warn, require, off");
	return check_ttl(vk_jv_get(ours, "ttl"), err);
}

/* --- whole bodies --- */

const vk_jv *vk_qdc_quant_of_body(const vk_jv *body)
{
	const vk_jv *v = vk_jv_get(body, "quantization_config");
	return v ? v : vk_jv_get(body, "quantization");
}

/* A promise that would not be kept is refused; the members are kept for when it can be. */
static enum vk_status check_strict(const vk_jv *strict, struct vk_error *err)
{
	bool on = false;
	enum vk_status st = check_object(strict, vk_qdc_strict, "strict_mode_config", err);
	if (st || !vk_jv_bool(vk_jv_get(strict, "enabled"), &on) || !on) return st;
	return vk_qd_wrong(err, "strict_mode_config.enabled: strict mode is not supported yet; limits are in the server's configuration");
}

static enum vk_status check_common(const vk_jv *body, const vk_jv *p, bool diff, struct vk_error *err)
{
	const struct {
		const char *name;
		const struct vk_qdc_member *table;
	} objects[] = {{"hnsw_config", vk_qdc_hnsw}, {"optimizers_config", vk_qdc_optimizer}, {"wal_config", vk_qdc_wal}};
	enum vk_status st = check_strict(vk_jv_get(body, "strict_mode_config"), err);
	for (size_t i = 0; i < sizeof objects / sizeof *objects && !st; i++)
		st = check_object(vk_jv_get(body, objects[i].name), objects[i].table, objects[i].name, err);
	if (!st) st = check_object(p, vk_qdc_params, diff ? "params" : "", err);
	if (!st) st = check_object(vk_jv_get(p, "payload"), payload, diff ? "params.payload" : "payload", err);
	if (!st) st = check_quant(vk_qdc_quant_of_body(body), "quantization_config", diff, err);
	return st ? st : check_ours(vk_jv_get(body, "metadata"), err);
}

enum vk_status vk_qdc_check_create(const vk_jv *body, struct vk_error *err)
{
	const vk_jv *vectors = vk_jv_get(body, "vectors"), *sparse = vk_jv_get(body, "sparse_vectors");
	struct vk_bytes method;
	enum vk_status st = check_vectors(vectors, err);
	if (!st) st = check_sparse(sparse, err);
	if (!st) st = check_both(vectors, sparse, err);
	if (!st) st = check_common(body, body, false, err);
	if (st) return st;
	if (vk_jv_str(vk_jv_get(body, "sharding_method"), &method) && vk_bytes_is(method, "custom"))
		return vk_qd_wrong(err, "sharding_method: custom shards need a cluster; this server is one node");
	return VK_OK;
}

static enum vk_status check_update(const vk_jv *body, struct vk_error *err)
{
	static const struct vk_qdc_member diff[] = {{"on_disk", BOOL, 0, 0, NULL, NULL}, MEMORY_UNPINNED, {0}};
	char where[PATH_MAX_TEXT];
	const vk_jv *vectors = vk_jv_get(body, "vectors");
	enum vk_status st = VK_OK;
	if (!absent(vectors) && vk_jv_type(vectors) != VK_J_OBJECT) return vk_qd_format(err, "vectors: invalid type, expected an object");
	for (const vk_jv *v = vk_jv_first(vectors); v && !st; v = vk_jv_next(v)) {
		snprintf(where, sizeof where, "vectors.%.*s", shown(vk_jv_key(v)), vk_jv_key(v).p);
		st = check_object(v, diff, where, err);
		if (!st) st = check_object(vk_jv_get(v, "hnsw_config"), vk_qdc_hnsw_own, "vectors.hnsw_config", err);
		if (!st) st = check_quant(vk_jv_get(v, "quantization_config"), "vectors.quantization_config", true, err);
	}
	if (!st) st = check_sparse(vk_jv_get(body, "sparse_vectors"), err);
	return st ? st : check_common(body, vk_jv_get(body, "params"), true, err);
}

int vk_qdc_index_type(const vk_jv *schema)
{
	struct vk_bytes s;
	if (!vk_jv_str(schema, &s) && !vk_jv_str(vk_jv_get(schema, "type"), &s)) return -1;
	for (int i = 0; i < VK_FIELD_TYPES; i++)
		if (vk_bytes_is(s, vk_field_type_names[i])) return i;
	return -1;
}

/* Members that would change which texts match, and do not yet. */
static enum vk_status check_text_index(const vk_jv *v, struct vk_error *err)
{
	static const char *const later[] = {"stopwords", "stemmer"};
	for (size_t i = 0; i < sizeof later / sizeof *later; i++)
		if (!absent(vk_jv_get(v, later[i])))
			return vk_qd_wrong(err, "field_schema.%s: not supported yet, words of texts are compared as they are", later[i]);
	return VK_OK;
}

static enum vk_status check_index(const struct vk_qd_edit *e, struct vk_error *err)
{
	int type = vk_qdc_index_type(e->body);
	bool lookup = true, range = true;
	if (type < 0)
		return vk_qd_format(err, "field_schema: expected one of keyword, integer, float, geo, text, bool, datetime, uuid, or an object "
					 "with such a `type`");
	enum vk_status st = check_path("field_name", e->name, err);
	if (st || vk_jv_type(e->body) != VK_J_OBJECT) return st;
	vk_jv_bool(vk_jv_get(e->body, "lookup"), &lookup);
	vk_jv_bool(vk_jv_get(e->body, "range"), &range);
	if (type == VK_FIELD_INTEGER && !lookup && !range)
		return vk_qd_validation(err, "field_schema",
					"Validation error: the 'lookup' and 'range' capabilities can't be both disabled");
	if (type == VK_FIELD_TEXT && (st = check_text_index(e->body, err))) return st;
	return check_object(e->body, vk_qdc_index[type], "field_schema", err);
}

enum vk_status vk_qd_config_check(const struct vk_qd_edit *e, struct vk_error *err)
{
	enum vk_status st;
	switch (e->kind) {
	case VK_QD_UPDATE: return check_update(e->body, err);
	case VK_QD_VECTOR_ADD:
		st = check_vector_name(e->name, err);
		return st ? st : check_vector(e->body, "dense", err);
	case VK_QD_SPARSE_ADD: return check_new_sparse(e->body, e->name, err);
	case VK_QD_INDEX_ADD: return check_index(e, err);
	case VK_QD_VECTOR_DROP:
	case VK_QD_INDEX_DROP:
	case VK_QD_FOUND: break;
	}
	return VK_OK;
}
