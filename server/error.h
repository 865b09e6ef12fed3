/*
 * Errors in the shape of the API that a path belongs to:
 *   OpenAI  {"error":{"message","type","param","code"}}       everything that is not below
 *   Ollama  {"error":"text"}                                  /api/...
 *   Cohere  {"message":"text"}                                /v2/...
 *   Qdrant  {"status":{"error":"text"},"time":0.0}            /collections, /aliases, /snapshots, ...
 * and the headers that clients act on: Retry-After (seconds, rounded up), retry-after-ms,
 * x-should-retry: false, WWW-Authenticate.
 */
#ifndef VK_SERVER_ERROR_H
#define VK_SERVER_ERROR_H

#include "base/status.h"
#include "server/http.h"

enum vk_api { VK_API_OPENAI, VK_API_OLLAMA, VK_API_COHERE, VK_API_QDRANT };
enum vk_api vk_api_of_path(struct vk_bytes path);

/* Fills req->reply, whatever was in it before: body, stream and content type are dropped, headers
 * that the flow has set stay. The request is not finished by this. */
void vk_reply_error(struct vk_req *req, const struct vk_error *err);

/* vk_http_opts.reject. */
void vk_reply_reject(void *app, struct vk_req *req, const struct vk_error *err);

#endif
