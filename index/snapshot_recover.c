/*
 * A snapshot put in the place of a collection. Nothing of it is believed before all of it has been checked: the file's hash
 * (when the caller knows it), the archive's structure, the data's size and hash by the manifest, every page of the LMDB file,
 * then the config inside. It lies in a directory of a new id meanwhile, which is an orphan until the one commit that names it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/collections_internal.h"
#include "index/snapshot.h"
#include "store/file.h"
#include "store/mdbcheck.h"
#include "store/tar.h"

#define CHUNK ((size_t)256 << 10)

struct reader {
	const char *path;
	int fd;
	uint64_t bytes; /* of the file */
	struct vk_tar_member data, manifest;
	bool has_data, has_manifest;
	uint8_t sha256[VK_SHA256_SIZE]; /* of the data, by the manifest */
	struct vk_error *err;
};

/* What is wrong with a client's file is the client's error. */
static enum vk_status refuse(struct reader *r, const char *why)
{
	return vk_fail(r->err, VK_E_INVALID, "Wrong input: the snapshot cannot be used: %s", why);
}

/* n bytes from at: into dst (a span), or hashed and, with out >= 0, written there. */
static enum vk_status pump(struct reader *r, uint64_t at, uint64_t n, int out, const char *out_path, uint8_t sha256[VK_SHA256_SIZE])
{
	struct vk_sha256 h;
	char *chunk = malloc(CHUNK);
	enum vk_status st = chunk ? VK_OK : vk_fail(r->err, VK_E_NOMEM, "no memory");
	vk_sha256_init(&h);
	while (!st && n) {
		ssize_t got = pread(r->fd, chunk, n < CHUNK ? (size_t)n : CHUNK, (off_t)at);
		if (got < 0 && errno == EINTR) continue;
		if (got < 0) st = vk_fail(r->err, VK_E_IO, "%s: %s", r->path, strerror(errno));
		else if (got == 0) st = refuse(r, "it is cut short");
		if (st) break;
		vk_sha256_update(&h, chunk, (size_t)got);
		if (out >= 0) st = vk_fd_write(out, chunk, (size_t)got, out_path, r->err);
		at += (uint64_t)got;
		n -= (uint64_t)got;
	}
	vk_sha256_final(&h, sha256);
	free(chunk);
	return st;
}

static enum vk_status check_file(struct reader *r, struct vk_bytes checksum)
{
	uint8_t want[VK_SHA256_SIZE], is[VK_SHA256_SIZE];
	struct stat s;
	r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0 || fstat(r->fd, &s) != 0)
		return vk_fail(r->err, errno == ENOENT ? VK_E_NOT_FOUND : VK_E_IO, "%s: %s", r->path, strerror(errno));
	if (!S_ISREG(s.st_mode)) return refuse(r, "it is no plain file");
	r->bytes = (uint64_t)s.st_size;
	if (!checksum.n) return VK_OK;
	if (!vk_unhex(want, sizeof want, checksum.p, checksum.n)) return refuse(r, "checksum is not 64 hexadecimal digits");
	enum vk_status st = pump(r, 0, r->bytes, -1, NULL, is);
	if (!st && memcmp(want, is, sizeof is) != 0) st = refuse(r, "its checksum is another one");
	return st;
}

static enum vk_status find_members(struct reader *r)
{
	struct vk_tar_member m;
	struct vk_error why = {0};
	uint64_t at = 0;
	enum vk_status st;
	while ((st = vk_tar_next(r->fd, r->bytes, &at, &m, &why)) == VK_OK) {
		bool *has = strcmp(m.name, VK_SNAPSHOT_DATA) == 0 ? &r->has_data
			    : strcmp(m.name, VK_SNAPSHOT_MANIFEST) == 0 ? &r->has_manifest : NULL;
		if (!has || *has) return refuse(r, "the archive holds files that no snapshot has");
		*has = true;
		*(has == &r->has_data ? &r->data : &r->manifest) = m;
	}
	if (st != VK_E_END) return refuse(r, why.text);
	return r->has_data && r->has_manifest ? VK_OK : refuse(r, "the archive lacks " VK_SNAPSHOT_DATA " or " VK_SNAPSHOT_MANIFEST);
}

static bool manifest_fits(struct reader *r, const vk_jv *root)
{
	struct vk_bytes hex;
	uint64_t bytes;
	const vk_jv *data = vk_jv_get(root, "data");
	return vk_jv_str(vk_jv_get(data, "sha256"), &hex) && vk_unhex(r->sha256, sizeof r->sha256, hex.p, hex.n) &&
	       vk_jv_u64(vk_jv_get(data, "bytes"), &bytes) && bytes == r->data.bytes;
}

static enum vk_status read_manifest(struct reader *r)
{
	struct vk_arena arena;
	struct vk_json *doc = NULL;
	int64_t format = 0;
	size_t n = (size_t)r->manifest.bytes;
	if (r->manifest.bytes > VK_SNAPSHOT_MANIFEST_MAX) return refuse(r, "its manifest is too large");
	char *text = malloc(n + 1);
	if (!text) return vk_fail(r->err, VK_E_NOMEM, "no memory");
	vk_arena_init(&arena, 8 * VK_SNAPSHOT_MANIFEST_MAX);
	enum vk_status st = VK_OK;
	if (pread(r->fd, text, n, (off_t)r->manifest.at) != (ssize_t)n) st = refuse(r, "it is cut short");
	if (!st && vk_json_parse(&arena, (struct vk_bytes){text, n}, NULL, &doc, NULL)) st = refuse(r, "its manifest is no JSON");
	const vk_jv *root = st ? NULL : vk_json_root(doc);
	if (!st && !vk_jv_i64(vk_jv_get(root, "veckeep_snapshot"), &format)) st = refuse(r, "its manifest is not one of ours");
	if (!st && format != VK_SNAPSHOT_FORMAT) st = refuse(r, "it was written by a version that is not known here");
	if (!st && !manifest_fits(r, root)) st = refuse(r, "its manifest is damaged");
	vk_json_free(doc);
	vk_arena_free(&arena);
	free(text);
	return st;
}

/* data.mdb into dir, checked on the way. */
static enum vk_status lay_data(struct reader *r, const char *dir)
{
	char to[4300];
	uint8_t sha256[VK_SHA256_SIZE];
	enum vk_status st = vk_dir_make(dir, r->err);
	if (st) return st;
	snprintf(to, sizeof to, "%s/" VK_SNAPSHOT_DATA, dir);
	int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) return vk_fail(r->err, VK_E_IO, "%s: %s", to, strerror(errno));
	st = pump(r, r->data.at, r->data.bytes, fd, to, sha256);
	if (!st && fsync(fd) != 0) st = vk_fail(r->err, VK_E_IO, "%s: %s", to, strerror(errno));
	close(fd);
	if (!st && memcmp(sha256, r->sha256, sizeof sha256) != 0) st = refuse(r, "its data is damaged: the hash is not the manifest's");
	if (!st) st = vk_dir_sync(dir, r->err);
	return st;
}

static enum vk_status open_data(struct reader *r, struct vk_collections *cs, const char *dir, struct vk_collection **out)
{
	struct vk_collection_opts o = {.writers = cs->writers, .map_bytes = cs->map_bytes};
	struct vk_error why = {0};
	char path[4300];
	snprintf(path, sizeof path, "%s/" VK_SNAPSHOT_DATA, dir);
	enum vk_status st = vk_mdb_check(path, &why);
	if (!st) st = vk_collection_open(dir, (struct vk_bytes){0}, &o, out, &why);
	if (!st) return VK_OK;
	if (st == VK_E_NOMEM || st == VK_E_NO_SPACE || st == VK_E_BUSY) return vk_fail(r->err, st, "%s", why.text);
	return refuse(r, why.text[0] ? why.text : vk_status_text(st));
}

enum vk_status vk_snapshot_recover(struct vk_collections *cs, struct vk_bytes collection, const char *path, struct vk_bytes checksum,
				   int64_t now_ms, struct vk_error *err)
{
	char name[VK_NAME_MAX + 1] = "", dir[4200] = "";
	uint32_t id = 0;
	struct vk_collection *c = NULL;
	struct reader r = {.path = path, .fd = -1, .err = err};
	enum vk_status st = vk_collection_name_check(collection, err);
	if (!st && cs->read_only) st = vk_fail(err, VK_E_INVALID, "Opened for reading only.");
	if (st) return st;
	/* An alias means what it leads to; another name becomes a new collection. */
	if (!vk_collections_real_name(cs, collection, name)) memcpy(name, collection.p, collection.n);
	st = check_file(&r, checksum);
	if (!st) st = find_members(&r);
	if (!st) st = read_manifest(&r);
	if (!st) {
		vk_collections_new_dir(cs, &id, dir);
		st = lay_data(&r, dir);
	}
	if (!st) st = open_data(&r, cs, dir, &c);
	if (!st) st = vk_collections_install(cs, vk_bytes_of(name), id, c, true, now_ms, err);
	if (st) {
		if (c) vk_collection_unref(c);
		if (dir[0]) vk_dir_remove(dir);
	}
	if (r.fd >= 0) close(r.fd);
	return st;
}
