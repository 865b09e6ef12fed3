# What the room carries inside the program: file -> symbol (embed/data.h).
vk_embed_file(vk_embed ${CMAKE_SOURCE_DIR}/embed/data/cl100k.bin cl100k)
vk_embed_file(vk_embed ${CMAKE_SOURCE_DIR}/embed/data/models.json models_json)
