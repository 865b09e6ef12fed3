/*
 * Time to live: when a point's payload says that it is over. The field's value is a datetime or a number of
 * Unix seconds; with an index on the field only values of the index's type count, so that index and payload
 * always agree. Several values: the latest. No value: the point stays.
 */
#ifndef VK_INDEX_TTL_H
#define VK_INDEX_TTL_H

#include "index/config.h"
#include "index/field.h"

static inline bool vk_ttl_on(const struct vk_colconf *c) { return c->ttl_field != NULL; }
/* payload NULL: none. */
bool vk_ttl_expired(const struct vk_colconf *c, const vk_jv *payload, int64_t now_ms);
/* An index that finds the expired: ready and ordered by time; NULL when there is none. */
const struct vk_field_conf *vk_ttl_index(const struct vk_colconf *c);
/* An index's value as Unix ms, less the time to live: expired when <= now. */
int64_t vk_ttl_of_order(const struct vk_colconf *c, const struct vk_field_conf *f,
			const struct vk_order_value *v);

#endif
