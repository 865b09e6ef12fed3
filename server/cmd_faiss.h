/* What `veckeep faiss import` and `veckeep faiss export` share: the collection they speak of. */
#ifndef VK_SERVER_CMD_FAISS_H
#define VK_SERVER_CMD_FAISS_H

#include "server/cli_client.h"

struct vk_faiss_target {
	bool there;
	uint64_t dims, points;
	char distance[16]; /* Cosine, Dot, Euclid, Manhattan */
};

/* /collections/NAME and what follows, into b. */
void vk_faiss_path(struct vk_buf *b, const char *collection, const char *rest);
/* Asks the server about the collection's vector (using "": the unnamed one). The exit code after saying what is wrong; a
 * collection that is not there is no fault. */
int vk_faiss_target(struct vk_client *c, const char *collection, const char *using, struct vk_faiss_target *out);

int vk_faiss_import_main(int argc, char **argv); /* cmd_faiss_import.c */
int vk_faiss_export_main(int argc, char **argv); /* cmd_faiss_export.c */

#endif
