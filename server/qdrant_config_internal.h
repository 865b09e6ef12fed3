/* Private to server/qdrant_config*.c: the tables of what a config may say, and checks that the writer needs again. */
#ifndef VK_SERVER_QDRANT_CONFIG_INTERNAL_H
#define VK_SERVER_QDRANT_CONFIG_INTERNAL_H

#include "server/qdrant_config.h"

enum vk_qdc_type {
	VK_QDC_UINT, VK_QDC_FLOAT, VK_QDC_BOOL, VK_QDC_WORD, VK_QDC_OBJECT,
	VK_QDC_THREADS /* a whole number, or "auto" */
};

struct vk_qdc_member { /* a table ends with a row without a name */
	const char *name;
	enum vk_qdc_type type;
	double min, max;   /* max 0: none */
	const char *words; /* WORD: space-separated */
	const char *dflt;  /* JSON text when it was never said; NULL: not shown */
};
extern const struct vk_qdc_member vk_qdc_hnsw[], vk_qdc_hnsw_own[], vk_qdc_optimizer[], vk_qdc_wal[], vk_qdc_params[], vk_qdc_strict[];
extern const struct vk_qdc_member vk_qdc_sparse_index[];
extern const struct vk_qdc_member *const vk_qdc_index[VK_FIELD_TYPES]; /* params of payload indexes */

#define VK_QDC_QUANTS 4
struct vk_qdc_quant {
	const char *name;
	const struct vk_qdc_member *members;
	const char *required;
};
extern const struct vk_qdc_quant vk_qdc_quants[VK_QDC_QUANTS];

enum vk_status vk_qdc_check_create(const vk_jv *body, struct vk_error *err);
/* `vectors` that is one vector's own parameters. */
bool vk_qdc_is_single(const vk_jv *vectors);
/* quantization_config, also by its older name. */
const vk_jv *vk_qdc_quant_of_body(const vk_jv *body);
/* ttl.after: seconds, or a duration. */
enum vk_status vk_qdc_read_after(const vk_jv *v, int64_t *ms, struct vk_error *err);
/* A vector's name for errors. */
static inline const char *vk_qdc_shown(struct vk_bytes name)
{
	return name.n ? name.p : "default";
}
/* Do both say the same, as text? (server/qdrant_config_now.c) */
bool vk_qdc_same_json(const vk_jv *a, const vk_jv *b);
/* What only the config of this moment can refuse. (server/qdrant_config_now.c) */
enum vk_status vk_qdc_check_now(const struct vk_qd_edit *e, const struct vk_colconf *now, struct vk_error *err);
/* metadata.veckeep.index (server/qdrant_config_index.c): its form; that it names vectors of the collection (now NULL: of `vectors`,
 * a new one's); and what comes out for one vector: "index" into an open object, unless nothing is said at all. */
enum vk_status vk_qdc_index_check(const vk_jv *index, struct vk_error *err);
enum vk_status vk_qdc_index_names(const vk_jv *index, const vk_jv *vectors, const struct vk_colconf *now, struct vk_error *err);
enum vk_status vk_qdc_index_put(struct vk_jw *w, const vk_jv *index, bool single, struct vk_bytes name,
				const struct vk_vector_conf *was, const vk_jv *params, struct vk_error *err);
int vk_qdc_index_type(const vk_jv *schema); /* enum vk_field_type, or -1 */

#endif
