/* Every route, its scope and its handler. A new surface is a row here and a flow beside. */
#include "server/app.h"
#include "server/flows.h"
#include "server/flows_qdrant.h"

const struct vk_route vk_routes[] = {
	{VK_GET, "/", "root", 0, vk_flow_root, true},
	{VK_GET, "/healthz", "health", 0, vk_flow_livez, true},
	{VK_GET, "/livez", "health", 0, vk_flow_livez, true},
	{VK_GET, "/readyz", "health", 0, vk_flow_readyz, true},
	{VK_GET, "/metrics", "metrics", VK_SCOPE_METRICS, vk_flow_metrics, false},
	{VK_GET, "/openapi.json", "openapi", 0, vk_flow_openapi, true},

	{VK_POST, "/v1/embeddings", "embeddings", VK_SCOPE_EMBED, vk_flow_embeddings, false},
	{VK_POST, "/embeddings", "embeddings", VK_SCOPE_EMBED, vk_flow_embeddings, false},
	{VK_POST, "/openai/deployments/{deployment}/embeddings", "embeddings", VK_SCOPE_EMBED,
	 vk_flow_embeddings, false},
	{VK_POST, "/openai/v1/embeddings", "embeddings", VK_SCOPE_EMBED, vk_flow_embeddings, false},
	{VK_GET, "/v1/models", "models", 0, vk_flow_models, false},
	{VK_GET, "/models", "models", 0, vk_flow_models, false},
	{VK_GET, "/v1/models/{id...}", "model", 0, vk_flow_model, false},

	{VK_POST, "/api/embed", "ollama", VK_SCOPE_EMBED, vk_flow_ollama_embed, false},
	{VK_POST, "/api/embeddings", "ollama", VK_SCOPE_EMBED, vk_flow_ollama_embeddings, false},
	{VK_GET, "/api/tags", "ollama_tags", 0, vk_flow_ollama_tags, false},
	{VK_GET, "/api/version", "ollama_tags", 0, vk_flow_ollama_version, false},
	{VK_POST, "/v1/inference", "inference", VK_SCOPE_EMBED, vk_flow_inference, false},

	{VK_GET, "/v1/cache", "cache", VK_SCOPE_READ, vk_flow_cache, false},
	{VK_POST, "/v1/cache/purge", "cache_purge", VK_SCOPE_ADMIN, vk_flow_purge, false},
	{VK_POST, "/v1/cache/why", "cache_why", VK_SCOPE_READ, vk_flow_why, false},
	{VK_GET, "/v1/spaces", "spaces", VK_SCOPE_READ, vk_flow_spaces, false},
	{VK_GET, "/v1/spaces/{id...}", "space", VK_SCOPE_READ, vk_flow_space, false},
	{VK_GET, "/v1/providers", "providers", VK_SCOPE_READ, vk_flow_providers, false},
	{VK_GET, "/v1/usage", "usage", VK_SCOPE_READ, vk_flow_usage, false},
	{VK_GET, "/v1/keys", "keys", VK_SCOPE_ADMIN, vk_flow_keys, false},
	{VK_POST, "/v1/keys", "keys", VK_SCOPE_ADMIN, vk_flow_key_create, false},
	{VK_DELETE, "/v1/keys/{id}", "keys", VK_SCOPE_ADMIN, vk_flow_key_revoke, false},
	{VK_POST, "/v1/backup", "backup", VK_SCOPE_ADMIN, vk_flow_backup, false},

	{VK_POST, "/collections/{collection_name}/points/query", "points_query", VK_SCOPE_READ, vk_flow_points_query, false},
	{VK_POST, "/collections/{collection_name}/points/query/batch", "points_query", VK_SCOPE_READ, vk_flow_points_query_batch, false},
	{VK_POST, "/collections/{collection_name}/points/query/groups", "points_query", VK_SCOPE_READ, vk_flow_points_query_groups, false},
	{VK_POST, "/collections/{collection_name}/points/search", "points_search", VK_SCOPE_READ, vk_flow_points_search, false},
	{VK_POST, "/collections/{collection_name}/points/search/batch", "points_search", VK_SCOPE_READ, vk_flow_points_search_batch, false},
	{VK_POST, "/collections/{collection_name}/points/search/groups", "points_search", VK_SCOPE_READ, vk_flow_points_search_groups, false},
	{VK_POST, "/collections/{collection_name}/points/search/matrix/pairs", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/search/matrix/offsets", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/recommend", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/recommend/batch", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/recommend/groups", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/discover", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points/discover/batch", "points_later", VK_SCOPE_READ, vk_flow_points_later, false},
	{VK_POST, "/collections/{collection_name}/points", "points_retrieve", VK_SCOPE_READ, vk_flow_points_retrieve, false},
	{VK_GET, "/collections/{collection_name}/points/{id}", "points_retrieve", VK_SCOPE_READ, vk_flow_point_get, false},
	{VK_POST, "/collections/{collection_name}/points/scroll", "points_scroll", VK_SCOPE_READ, vk_flow_points_scroll, false},
	{VK_POST, "/collections/{collection_name}/points/count", "points_count", VK_SCOPE_READ, vk_flow_points_count, false},
	{VK_POST, "/collections/{collection_name}/facet", "facet", VK_SCOPE_READ, vk_flow_facet, false},
};
const size_t vk_routes_n = sizeof vk_routes / sizeof *vk_routes;
