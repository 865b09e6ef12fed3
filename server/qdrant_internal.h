/*
 * Private to the files that a request of the Qdrant face is made of: qdrant.c (its life),
 * qdrant_admit.c (may it come in), qdrant_error.c (Qdrant's words for what went wrong),
 * qdrant_light.c (where a short one runs), qdrant_reply.c (the envelope). All others need qdrant.h only.
 */
#ifndef VK_SERVER_QDRANT_INTERNAL_H
#define VK_SERVER_QDRANT_INTERNAL_H

#include "server/qdrant.h"

/* ?wait, ?timeout, ?ordering, ?consistency into q: VK_E_INVALID, 400 or 422. (server/qdrant_admit.c) */
enum vk_status vk_qd_url_params(struct vk_qd *q, struct vk_error *err);

/* Would its work be over before the pool had begun it? (server/qdrant_light.c) */
bool vk_qd_is_light(const struct vk_qd *q);
/* Runs q->work on this thread and remembers what it took. q may be gone afterwards. */
void vk_qd_work(struct vk_qd *q);

/* The text with `prefix` before it, cut where it must be, never in the middle of a character. (server/qdrant_error.c) */
void vk_qd_prefix(struct vk_error *e, const char *prefix);
/* Fills the error reply, with the prefix that its HTTP status has unless the text brings one. Ends nothing. (server/qdrant_error.c) */
void vk_qd_error(struct vk_req *req, const struct vk_error *err);

#endif
