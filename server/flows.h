/* The handlers that routes.c names, one file a surface. Each fills the reply or parks. */
#ifndef VK_SERVER_FLOWS_H
#define VK_SERVER_FLOWS_H

#include "base/json.h"
#include "server/http.h"

/* flow_openai.c */
void vk_flow_embeddings(void *app, struct vk_req *req);
void vk_flow_models(void *app, struct vk_req *req);
void vk_flow_model(void *app, struct vk_req *req);
/* flow_ollama.c */
void vk_flow_ollama_embed(void *app, struct vk_req *req);
void vk_flow_ollama_embeddings(void *app, struct vk_req *req);
void vk_flow_ollama_tags(void *app, struct vk_req *req);
void vk_flow_ollama_version(void *app, struct vk_req *req);
/* flow_inference.c */
void vk_flow_inference(void *app, struct vk_req *req);
/* flow_health.c */
void vk_flow_root(void *app, struct vk_req *req);
void vk_flow_livez(void *app, struct vk_req *req);
void vk_flow_readyz(void *app, struct vk_req *req);
void vk_flow_v1_health(void *app, struct vk_req *req);
void vk_flow_metrics(void *app, struct vk_req *req);
void vk_flow_openapi(void *app, struct vk_req *req);
/* flow_cache.c */
void vk_flow_cache(void *app, struct vk_req *req);
void vk_flow_purge(void *app, struct vk_req *req);
void vk_flow_why(void *app, struct vk_req *req);
/* flow_admin.c */
void vk_flow_spaces(void *app, struct vk_req *req);
void vk_flow_space(void *app, struct vk_req *req);
void vk_flow_providers(void *app, struct vk_req *req);
void vk_flow_usage(void *app, struct vk_req *req);
void vk_flow_keys(void *app, struct vk_req *req);
void vk_flow_key_create(void *app, struct vk_req *req);
void vk_flow_key_revoke(void *app, struct vk_req *req);
void vk_flow_backup(void *app, struct vk_req *req);

/* A vk_gone_fn for work that ends by itself and finishes its request (flow_cache.c). */
void vk_flow_never_gone(struct vk_req *req, enum vk_gone why);

/* Starts a 200 JSON reply that may be compressed; write it through w. */
void vk_flow_json(struct vk_req *req, struct vk_jw *w);

#endif
