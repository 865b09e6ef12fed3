/* Data files that the program carries in itself (embed/data.cmake names them). Each is
 * followed by a zero byte that its size does not count. */
#ifndef VK_EMBED_DATA_H
#define VK_EMBED_DATA_H

#include <stdint.h>

/* cl100k_base's tokens: embed/data/README.md tells the layout. */
extern const uint8_t vk_data_cl100k[];
extern const uint64_t vk_data_cl100k_size;

/* Known providers and models: embed/data/models.json, docs/models.md. */
extern const char vk_data_models_json[];
extern const uint64_t vk_data_models_json_size;

#endif
