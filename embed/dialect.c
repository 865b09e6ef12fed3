/* The table of dialects: a new one is a file, a row here and in docs/providers.md. */
#include "embed/dialect.h"

#include "embed/dialect_parts.h"

static const struct vk_dialect builtin = {
	.name = "builtin",
	.local = true,
	.caps = {.items = 256, .concurrency = 1},
};

/* NAMES is the same list for people; test_dialect compares the two. */
#define NAMES "openai, azure-openai, ollama, tei, builtin"
static const struct vk_dialect *const table[] = {
	&vk_dialect_openai, &vk_dialect_azure_openai, &vk_dialect_ollama, &vk_dialect_tei, &builtin,
};

const struct vk_dialect *vk_dialect_find(struct vk_bytes name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (vk_bytes_is(name, table[i]->name)) return table[i];
	return NULL;
}

const char *vk_dialect_names(void)
{
	return NAMES;
}
