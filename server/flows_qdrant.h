/* The handlers of the Qdrant face, one block a file. Each fills the reply or parks; see server/qdrant.h for their common life. */
#ifndef VK_SERVER_FLOWS_QDRANT_H
#define VK_SERVER_FLOWS_QDRANT_H

#include "server/http.h"

/* qdrant_collections.c: collections themselves */
void vk_flow_collections(void *app, struct vk_req *req);
void vk_flow_collection(void *app, struct vk_req *req);
void vk_flow_collection_create(void *app, struct vk_req *req);
void vk_flow_collection_update(void *app, struct vk_req *req);
void vk_flow_collection_drop(void *app, struct vk_req *req);
void vk_flow_collection_exists(void *app, struct vk_req *req);
void vk_flow_vector_add(void *app, struct vk_req *req);
void vk_flow_vector_drop(void *app, struct vk_req *req);
void vk_flow_index_add(void *app, struct vk_req *req);
void vk_flow_index_drop(void *app, struct vk_req *req);
/* qdrant_aliases.c */
void vk_flow_aliases(void *app, struct vk_req *req);
void vk_flow_collection_aliases(void *app, struct vk_req *req);
void vk_flow_aliases_change(void *app, struct vk_req *req);
/* qdrant_points.c: writes */
void vk_flow_points_upsert(void *app, struct vk_req *req);
void vk_flow_points_delete(void *app, struct vk_req *req);
void vk_flow_vectors_update(void *app, struct vk_req *req);
void vk_flow_vectors_delete(void *app, struct vk_req *req);
void vk_flow_payload_set(void *app, struct vk_req *req);
void vk_flow_payload_overwrite(void *app, struct vk_req *req);
void vk_flow_payload_delete(void *app, struct vk_req *req);
void vk_flow_payload_clear(void *app, struct vk_req *req);
void vk_flow_points_batch(void *app, struct vk_req *req);
/* flow_points_query.c: searches */
void vk_flow_points_query(void *app, struct vk_req *req);
void vk_flow_points_query_batch(void *app, struct vk_req *req);
void vk_flow_points_query_groups(void *app, struct vk_req *req);
void vk_flow_points_search(void *app, struct vk_req *req);
void vk_flow_points_search_batch(void *app, struct vk_req *req);
void vk_flow_points_search_groups(void *app, struct vk_req *req);
void vk_flow_points_later(void *app, struct vk_req *req);
/* flow_points_read.c: points as they are */
void vk_flow_points_retrieve(void *app, struct vk_req *req);
void vk_flow_point_get(void *app, struct vk_req *req);
void vk_flow_points_scroll(void *app, struct vk_req *req);
void vk_flow_points_count(void *app, struct vk_req *req);
void vk_flow_facet(void *app, struct vk_req *req);
/* qdrant_snapshots.c */
void vk_flow_snapshots(void *app, struct vk_req *req);
void vk_flow_snapshot_create(void *app, struct vk_req *req);
void vk_flow_snapshot_get(void *app, struct vk_req *req);
void vk_flow_snapshot_delete(void *app, struct vk_req *req);
void vk_flow_snapshot_upload(void *app, struct vk_req *req);
void vk_flow_snapshot_recover(void *app, struct vk_req *req);
void vk_flow_snapshots_full(void *app, struct vk_req *req);
/* qdrant_cluster.c: what a cluster would say, said by one node */
void vk_flow_cluster(void *app, struct vk_req *req);
void vk_flow_collection_cluster(void *app, struct vk_req *req);
void vk_flow_optimizations(void *app, struct vk_req *req);
void vk_flow_telemetry(void *app, struct vk_req *req);
void vk_flow_issues(void *app, struct vk_req *req);
void vk_flow_not_distributed(void *app, struct vk_req *req);
/* flow_documents.c */
void vk_flow_document_put(void *app, struct vk_req *req);
void vk_flow_document_get(void *app, struct vk_req *req);
void vk_flow_document_delete(void *app, struct vk_req *req);
/* flow_v1_collections.c: what veckeep knows of a collection that Qdrant has no word for */
void vk_flow_v1_collection(void *app, struct vk_req *req);
void vk_flow_v1_spaces(void *app, struct vk_req *req);
/* flow_v1_index.c: indexes of its vectors */
void vk_flow_v1_index(void *app, struct vk_req *req);
void vk_flow_v1_index_update(void *app, struct vk_req *req);
void vk_flow_v1_index_rebuild(void *app, struct vk_req *req);
void vk_flow_v1_index_cancel(void *app, struct vk_req *req);

#endif
