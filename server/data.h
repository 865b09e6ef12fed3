/* Data files that the program carries in itself (server/data.cmake names them). Each is followed
 * by a zero byte that its size does not count. */
#ifndef VK_SERVER_DATA_H
#define VK_SERVER_DATA_H

#include <stdint.h>

/* Our own API's description, served at /openapi.json. */
extern const char vk_data_openapi_json[];
extern const uint64_t vk_data_openapi_json_size;

#endif
