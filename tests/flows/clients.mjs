// What test_clients_node.py runs: each client asks as an application would; JSON with what it got on stdout.
// Arguments: base URL of the server.
import { AzureOpenAI, OpenAI } from 'openai';
import { Ollama } from 'ollama';
import { OpenAIEmbeddings } from '@langchain/openai';

const url = process.argv[2];
const out = {};
const openai = new OpenAI({ apiKey: 'unused', baseURL: `${url}/v1`, maxRetries: 0 });

const rows = (reply) => reply.data.map((d) => Array.from(d.embedding));
out.default = rows(await openai.embeddings.create({ model: 'm', input: ['node a', 'node b', 'node a'] }));
out.float = rows(await openai.embeddings.create({ model: 'm', input: 'node a', encoding_format: 'float' }));
const base64 = await openai.embeddings.create({ model: 'm', input: 'node b', encoding_format: 'base64' });
out.base64 = base64.data.map((d) => (typeof d.embedding === 'string' ? d.embedding : Array.from(d.embedding)));
out.models = (await openai.models.list()).data.map((m) => m.id);
try {
	await openai.embeddings.create({ model: 'nope', input: 'x' });
} catch (e) {
	out.notFound = { status: e.status, code: e.code, name: e.constructor.name };
}

const azure = new AzureOpenAI({ apiKey: 'unused', apiVersion: '2024-10-21', endpoint: url });
out.azure = rows(await azure.embeddings.create({ model: 'm', input: ['azure a'] }));

const langchain = new OpenAIEmbeddings({ apiKey: 'unused', model: 'm', configuration: { baseURL: `${url}/v1` } });
out.langchain = await langchain.embedDocuments(['chain a', 'chain\nb']);
out.langchainQuery = await langchain.embedQuery('chain q');

const ollama = new Ollama({ host: url });
out.ollama = (await ollama.embed({ model: 'm', input: ['ollama a', 'ollama b'] })).embeddings;
out.ollamaOld = (await ollama.embeddings({ model: 'm', prompt: 'ollama a' })).embedding;

console.log(JSON.stringify(out));
