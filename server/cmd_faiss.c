/* veckeep faiss: index files of FAISS into and out of collections. */
#include "server/cmd_faiss.h"

#include <stdio.h>

#include "server/cmd.h"

void vk_faiss_path(struct vk_buf *b, const char *collection, const char *rest)
{
	vk_buf_init(b, 65536);
	vk_buf_puts(b, "/collections/");
	vk_url_put(b, collection, false);
	vk_buf_puts(b, rest);
}

static int read_target(struct vk_json_reply *r, struct vk_client *c, const char *using, struct vk_faiss_target *out)
{
	const vk_jv *result = vk_jv_get(r->root, "result");
	const vk_jv *vectors = vk_jv_get(vk_jv_get(vk_jv_get(result, "config"), "params"), "vectors");
	const vk_jv *v = *using ? vk_jv_get(vectors, using) : vectors;
	out->dims = vk_reply_u64(v, "size");
	out->points = vk_reply_u64(result, "points_count");
	snprintf(out->distance, sizeof out->distance, "%s", vk_reply_str(r, v, "distance"));
	if (out->dims) return 0;
	return *using ? vk_cli_say(c->cli, VK_EXIT_FAILED, "the collection has no vector \"%s\"", using)
		      : vk_cli_say(c->cli, VK_EXIT_FAILED, "the collection has no unnamed vector: --using says which one");
}

int vk_faiss_target(struct vk_client *c, const char *collection, const char *using, struct vk_faiss_target *out)
{
	struct vk_json_reply reply;
	struct vk_buf path;
	*out = (struct vk_faiss_target){0};
	vk_faiss_path(&path, collection, "/exists");
	int rc = vk_client_json(c, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, &reply);
	out->there = !rc && vk_reply_bool(vk_jv_get(reply.root, "result"), "exists");
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	if (rc || !out->there) return rc;
	vk_faiss_path(&path, collection, "");
	rc = vk_client_json(c, "GET", vk_buf_cstr(&path), (struct vk_bytes){0}, &reply);
	if (!rc) rc = read_target(&reply, c, using, out);
	vk_json_reply_free(&reply);
	vk_buf_free(&path);
	return rc;
}

int vk_faiss_main(int argc, char **argv)
{
	static const struct vk_cli_sub subs[] = {
		{"import", "vectors of a FAISS index file into a collection", vk_faiss_import_main},
		{"export", "a collection's vectors as a FAISS index file", vk_faiss_export_main},
	};
	return vk_cli_dispatch("veckeep faiss", "FAISS index files: into collections and out of them.\n", subs,
			       sizeof subs / sizeof *subs, argc, argv);
}
