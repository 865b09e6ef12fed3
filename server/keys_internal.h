/* Shared by auth.c (who is it), keys.c (sources and the set) and keytext.c (a key's text). */
#ifndef VK_SERVER_KEYS_INTERNAL_H
#define VK_SERVER_KEYS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "server/auth.h"

#define VK_KEY_PREFIX "vkeep_"
#define VK_KEY_ID_LEN 12
#define VK_KEY_SECRET_LEN 43
#define VK_KEY_CRC_LEN 6
#define VK_KEY_BUCKETS 256
#define VK_KEYS_MAX 10000

enum vk_key_source { VK_KEY_ENV, VK_KEY_CONFIG, VK_KEY_CATALOG };

struct vk_key {
	struct vk_key *next_hash; /* same bucket */
	struct vk_key *next;      /* all keys of a set, in order */
	enum vk_key_source source;
	uint8_t sha256[VK_SHA256_SIZE];
	char id[64], name[64];
	uint32_t scopes;
	const char *collections; /* interned: lives as long as the struct vk_keys */
	int64_t expires_ms, created_ms;
	_Atomic int64_t last_used_ms;
};

struct vk_keys {
	struct vk_catalog *catalog; /* may be NULL: no stored keys then */
	pthread_rwlock_t lock;      /* the lists and buckets */
	pthread_mutex_t change;     /* one change at a time; taken before lock */
	struct vk_key *config, *stored; /* environment and config; catalog */
	struct vk_key *bucket[VK_KEY_BUCKETS];
	atomic_size_t count;
	struct pattern {
		struct pattern *next;
		char text[];
	} *patterns;
};

/* The set. find: under the read lock. */
struct vk_key *vk_keys_find(struct vk_keys *k, const uint8_t sha256[VK_SHA256_SIZE]);

/* Texts. check: is it well-formed and does its crc agree? */
enum vk_key_form { VK_KEY_FOREIGN, VK_KEY_DAMAGED, VK_KEY_GOOD };
enum vk_key_form vk_key_form_of(struct vk_bytes text);
void vk_keytext_make(char text[VK_KEY_TEXT_MAX], char id[64]);

#endif
