// What test_clients_qdrant_js.py runs: @qdrant/js-client-rest as an application would use it; JSON with what it got on stdout.
// Argument: base URL of the server.
import { File } from 'node:buffer';

// The client's HTTP library asks for a global that the Node of Debian 12 has only here.
globalThis.File ??= File;
const { QdrantClient } = await import('@qdrant/js-client-rest');

const client = new QdrantClient({ url: process.argv[2], checkCompatibility: false });
const out = {};

out.version = (await client.versionInfo()).version;
out.created = await client.createCollection('js', { vectors: { size: 4, distance: 'Dot' }, metadata: { by: 'js' } });
out.exists = (await client.collectionExists('js')).exists;
out.index = (await client.createPayloadIndex('js', { field_name: 'city', field_schema: 'keyword', wait: true })).status;
out.upsert = (await client.upsert('js', {
	wait: true,
	points: [
		{ id: 1, vector: [0.05, 0.61, 0.76, 0.74], payload: { city: 'Berlin', n: 1 } },
		{ id: 2, vector: [0.19, 0.81, 0.75, 0.11], payload: { city: ['Berlin', 'London'] } },
		{ id: '5c56c793-69f3-4fbf-87e6-c4bf54c28c26', vector: [0.36, 0.55, 0.47, 0.94], payload: { city: 'Moscow' } },
		{ id: 'any string', vector: [0.18, 0.01, 0.85, 0.8] },
	],
})).status;
out.batch = (await client.upsert('js', { wait: true, batch: { ids: [9], vectors: [[1, 0, 0, 0]], payloads: [{ deep: { a: [1, { b: 'ü' }] } }] } })).status;
out.query = (await client.query('js', { query: [0.2, 0.1, 0.9, 0.7], limit: 3, with_payload: true })).points;
out.filtered = (await client.query('js', { query: [0.2, 0.1, 0.9, 0.7], limit: 2, filter: { must: [{ key: 'city', match: { value: 'Berlin' } }] } })).points;
out.batches = (await client.queryBatch('js', { searches: [{ query: 1, limit: 1 }, { query: [1, 0, 0, 0], limit: 1 }] })).map((r) => r.points.map((p) => p.id));
out.groups = (await client.queryGroups('js', { query: [0.2, 0.1, 0.9, 0.7], group_by: 'city', limit: 5, group_size: 1 })).groups.map((g) => g.id);
out.retrieve = (await client.retrieve('js', { ids: [9, 'any string'], with_vector: true })).sort((a, b) => String(a.id).localeCompare(String(b.id)));
out.scroll = await client.scroll('js', { limit: 2, with_payload: false });
out.count = (await client.count('js', { exact: true })).count;
out.facet = (await client.facet('js', { key: 'city' })).hits;
out.setPayload = (await client.setPayload('js', { payload: { extra: true }, points: [1], wait: true })).status;
out.overwrite = (await client.overwritePayload('js', { payload: { only: 1 }, points: [2], wait: true })).status;
out.deletePayload = (await client.deletePayload('js', { keys: ['n'], points: [1], wait: true })).status;
out.clearPayload = (await client.clearPayload('js', { points: [9], wait: true })).status;
out.payloads = Object.fromEntries((await client.retrieve('js', { ids: [1, 2, 9] })).map((p) => [p.id, p.payload]));
out.vectors = (await client.updateVectors('js', { points: [{ id: 1, vector: [1, 1, 1, 1] }], wait: true })).status;
out.batchUpdate = (await client.batchUpdate('js', { wait: true, operations: [{ delete: { points: [2] } }, { set_payload: { payload: { z: 1 }, points: [9] } }] })).map((r) => r.status);
out.deleted = (await client.delete('js', { wait: true, filter: { must: [{ is_empty: { key: 'z' } }] } })).status;
out.left = (await client.scroll('js', {})).points.map((p) => p.id);
out.alias = await client.updateCollectionAliases({ actions: [{ create_alias: { alias_name: 'current', collection_name: 'js' } }] });
out.aliases = (await client.getAliases()).aliases;
out.byAlias = (await client.count('current')).count;
out.snapshot = typeof (await client.createSnapshot('js')).name;
out.snapshots = (await client.listSnapshots('js')).length;
out.info = (({ points_count, config, payload_schema }) => ({ points_count, vectors: config.params.vectors, metadata: config.metadata, schema: Object.keys(payload_schema) }))(await client.getCollection('js'));
try {
	await client.upsert('js', { wait: true, points: [{ id: 1, vector: [1, 2] }] });
} catch (e) {
	out.wrongDims = { status: e.status, text: e.data?.status?.error };
}
try {
	await client.getCollection('nope');
} catch (e) {
	out.notFound = { status: e.status, text: e.data?.status?.error };
}
out.dropped = await client.deleteCollection('js');
out.collections = (await client.getCollections()).collections;
console.log(JSON.stringify(out));
