# What the room carries inside the program: file -> symbol (server/data.h).
vk_embed_file(vk_server ${CMAKE_SOURCE_DIR}/server/data/openapi.json openapi_json)
