/*
 * Reading a config's values: typed, with defaults, ${ENV} filled in, and errors that name the
 * place (`providers."openai".caps.items: expected a whole number`). The first error sticks; every
 * later call returns its default, so a reader is straight-line code with one check at the end.
 */
#ifndef VK_BASE_CFG_H
#define VK_BASE_CFG_H

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"

struct vk_cfg {
	struct vk_arena *arena; /* what is returned lives here */
	const char *(*getenv)(void *arg, const char *name);
	void *getenv_arg;
	const char *base_dir;   /* relative paths hang here; NULL: as they are */
	struct vk_error *err;
	bool failed;
};

/* Fails with "path: text", once. */
void vk_cfg_fail(struct vk_cfg *c, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* "parent.key", or parent."key" when the key is no plain word; in the arena. */
const char *vk_cfg_path(struct vk_cfg *c, const char *parent, struct vk_bytes key);

/* Any member of object that is not in the list (space-separated) is an error naming it. object NULL
 * is fine; not an object is an error. Returns false when there is nothing to read. */
bool vk_cfg_object(struct vk_cfg *c, const vk_jv *object, const char *path, const char *fields);

/* NULL stands for absent (and null) where there is no default. Strings have ${ENV} filled in. */
const char *vk_cfg_str(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		       const char *dflt);
/* A path: relative ones are joined to base_dir. */
const char *vk_cfg_file(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
			const char *dflt);
uint64_t vk_cfg_u64(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		    uint64_t dflt, uint64_t min, uint64_t max);
bool vk_cfg_bool(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key, bool dflt);
double vk_cfg_f64(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		  double dflt, double min, double max);
/* A number of bytes or a string such as "20GiB", "512 MB", "64KiB". */
uint64_t vk_cfg_size(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
		     uint64_t dflt);
/* Milliseconds: a number is seconds, or a string "250ms", "30s", "5m", "12h", "30d". */
uint64_t vk_cfg_duration_ms(struct vk_cfg *c, const vk_jv *object, const char *path, const char *key,
			    uint64_t dflt_ms);
/* A list of strings, NULL-terminated; absent: an empty list. A single string is a list of one. */
const char *const *vk_cfg_list(struct vk_cfg *c, const vk_jv *object, const char *path,
			       const char *key);
/* One string value with its ${ENV} filled in; NULL after an error. */
const char *vk_cfg_expand(struct vk_cfg *c, const char *path, struct vk_bytes s);
/* "250ms", "30s", ... into ms; false: no duration. Also for the command line. */
bool vk_parse_duration_ms(const char *s, uint64_t *ms);
bool vk_parse_size(const char *s, uint64_t *bytes);

#endif
