/* The directory's JSON files, each read by one function below, into struct vk_model_config. */
#include "embed/encoder/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "embed/encoder/files.h"

/* ---- small readers over JSON ---- */

static struct vk_bytes get_str(const vk_jv *object, const char *key, struct vk_bytes fallback)
{
	struct vk_bytes s;
	return vk_jv_str(vk_jv_get(object, key), &s) ? s : fallback;
}

static bool get_bool(const vk_jv *object, const char *key, bool fallback)
{
	bool b;
	return vk_jv_bool(vk_jv_get(object, key), &b) ? b : fallback;
}

static enum vk_status get_size(const vk_jv *object, const char *key, uint32_t max, uint32_t *out,
			       struct vk_error *err)
{
	uint64_t v;
	if (!vk_jv_u64(vk_jv_get(object, key), &v) || v == 0 || v > max)
		return vk_fail(err, VK_E_INVALID, "config.json: %s must be 1 to %u", key, max);
	*out = (uint32_t)v;
	return VK_OK;
}

/* Refuses when the key is there and is another string. */
static enum vk_status want(const char *file, const vk_jv *object, const char *key,
			   const char *value, struct vk_error *err)
{
	struct vk_bytes s = get_str(object, key, vk_bytes_of(value));
	if (vk_bytes_is(s, value)) return VK_OK;
	return vk_fail(err, VK_E_INVALID, "%s: %s is '%.*s'; the built-in encoder does only '%s'",
		       file, key, (int)(s.n < 64 ? s.n : 64), s.p, value);
}

/* The part after the last '.' and '/': modules are named by their Python path. */
static struct vk_bytes last_part(struct vk_bytes s, char separator)
{
	for (size_t i = s.n; i > 0; i--)
		if (s.p[i - 1] == separator) return (struct vk_bytes){s.p + i, s.n - i};
	return s;
}

/* ---- config.json: the network ---- */

static void set_name(struct vk_model_config *c, const char *dir)
{
	struct vk_bytes d = vk_bytes_of(dir);
	while (d.n > 1 && d.p[d.n - 1] == '/') d.n--;
	struct vk_bytes name = last_part(d, '/');
	snprintf(c->name, sizeof c->name, "%.*s", (int)(name.n < 127 ? name.n : 127), name.p);
}

static enum vk_status read_network(const vk_jv *root, struct vk_model_config *c,
				   struct vk_error *err)
{
	if (vk_jv_type(root) != VK_J_OBJECT)
		return vk_fail(err, VK_E_INVALID, "config.json: no JSON object");
	enum vk_status st = want("config.json", root, "model_type", "bert", err);
	if (!st) st = want("config.json", root, "hidden_act", "gelu", err);
	if (!st) st = want("config.json", root, "position_embedding_type", "absolute", err);
	if (!st) st = get_size(root, "hidden_size", VK_MODEL_HIDDEN_MAX, &c->hidden, err);
	if (!st) st = get_size(root, "intermediate_size", VK_MODEL_INNER_MAX, &c->inner, err);
	if (!st) st = get_size(root, "num_attention_heads", VK_MODEL_HIDDEN_MAX, &c->heads, err);
	if (!st) st = get_size(root, "num_hidden_layers", VK_MODEL_LAYERS_MAX, &c->layers, err);
	if (!st)
		st = get_size(root, "max_position_embeddings", VK_MODEL_POSITIONS_MAX,
			      &c->positions, err);
	if (!st) st = get_size(root, "vocab_size", VK_WORDPIECE_VOCAB_MAX, &c->vocab, err);
	if (st) return st;
	double eps = 1e-12;
	vk_jv_f64(vk_jv_get(root, "layer_norm_eps"), &eps);
	if (!(eps >= 0 && eps <= 0.1))
		return vk_fail(err, VK_E_INVALID, "config.json: layer_norm_eps is out of range");
	c->eps = (float)eps;
	if (c->hidden % c->heads)
		return vk_fail(err, VK_E_INVALID,
			       "config.json: hidden_size %u does not divide by %u heads", c->hidden,
			       c->heads);
	if (c->positions < 2)
		return vk_fail(err, VK_E_INVALID,
			       "config.json: max_position_embeddings must be 2 or more");
	c->tokens_max = c->positions;
	return VK_OK;
}

/* ---- modules.json and the pooling module's config.json ---- */

static const struct {
	const char *old_key, *name;
	enum vk_pooling pooling;
} poolings[] = {
	{"pooling_mode_mean_tokens", "mean", VK_POOL_MEAN},
	{"pooling_mode_cls_token", "cls", VK_POOL_CLS},
	{"pooling_mode_max_tokens", "max", VK_POOL_MAX},
};
#define POOLINGS (sizeof poolings / sizeof poolings[0])

static enum vk_status read_pooling(const vk_jv *root, struct vk_model_config *c,
				   struct vk_error *err)
{
	unsigned found = 0;
	struct vk_bytes mode;
	if (!get_bool(root, "include_prompt", true))
		return vk_fail(err, VK_E_INVALID, "pooling: include_prompt false is not supported");
	if (vk_jv_str(vk_jv_get(root, "pooling_mode"), &mode)) {
		for (size_t i = 0; i < POOLINGS; i++)
			if (vk_bytes_is(mode, poolings[i].name)) {
				c->pooling = poolings[i].pooling;
				return VK_OK;
			}
	} else {
		for (size_t i = 0; i < POOLINGS; i++)
			if (get_bool(root, poolings[i].old_key, false)) {
				c->pooling = poolings[i].pooling;
				found++;
			}
		bool other = get_bool(root, "pooling_mode_mean_sqrt_len_tokens", false) ||
			     get_bool(root, "pooling_mode_weightedmean_tokens", false) ||
			     get_bool(root, "pooling_mode_lasttoken", false);
		if (found == 1 && !other) return VK_OK;
	}
	return vk_fail(err, VK_E_INVALID,
		       "pooling: the built-in encoder does one of mean, cls and max");
}

static enum vk_status read_pooling_at(const char *dir, struct vk_bytes path,
				      struct vk_model_config *c, struct vk_error *err)
{
	char name[256];
	struct vk_model_file f;
	if (path.n > 200 || memchr(path.p, '.', path.n))
		return vk_fail(err, VK_E_INVALID, "modules.json: bad path of the pooling module");
	snprintf(name, sizeof name, "%.*s/config.json", (int)path.n, path.p);
	enum vk_status st = vk_model_json_read(dir, name, true, &f, err);
	if (st) return st;
	st = read_pooling(vk_model_json_root(&f), c, err);
	vk_model_file_free(&f);
	return st;
}

static enum vk_status read_module(const char *dir, const vk_jv *m, struct vk_model_config *c,
				  bool *pooled, struct vk_error *err)
{
	struct vk_bytes type = last_part(get_str(m, "type", VK_LIT("")), '.');
	if (vk_bytes_is(type, "Transformer")) return VK_OK;
	if (vk_bytes_is(type, "Normalize")) {
		c->normalize = true;
		return VK_OK;
	}
	if (vk_bytes_is(type, "Pooling") && !*pooled) {
		*pooled = true;
		return read_pooling_at(dir, get_str(m, "path", VK_LIT("1_Pooling")), c, err);
	}
	return vk_fail(err, VK_E_INVALID,
		       "modules.json: module '%.*s' is not supported (Transformer, one Pooling, "
		       "Normalize are)",
		       (int)(type.n < 64 ? type.n : 64), type.p);
}

/* Without modules.json sentence-transformers takes the mean of the tokens, not normalised. */
static enum vk_status read_modules(const char *dir, struct vk_model_config *c, struct vk_error *err)
{
	struct vk_model_file f;
	enum vk_status st = vk_model_json_read(dir, "modules.json", false, &f, err);
	if (st || !f.doc) return st;
	bool pooled = false;
	for (const vk_jv *m = vk_jv_first(vk_model_json_root(&f)); m && !st; m = vk_jv_next(m))
		st = read_module(dir, m, c, &pooled, err);
	if (!st && !pooled) st = vk_fail(err, VK_E_INVALID, "modules.json: no Pooling module");
	vk_model_file_free(&f);
	return st;
}

/* ---- prompts ---- */

static enum vk_status read_prompts(const char *dir, struct vk_arena *arena,
				   struct vk_model_config *c, struct vk_error *err)
{
	struct vk_model_file f;
	enum vk_status st =
	    vk_model_json_read(dir, "config_sentence_transformers.json", false, &f, err);
	if (st || !f.doc) return st;
	const vk_jv *prompts = vk_jv_get(vk_model_json_root(&f), "prompts");
	size_t n = vk_jv_type(prompts) == VK_J_OBJECT ? vk_jv_len(prompts) : 0;
	if (n > VK_MODEL_PROMPTS_MAX) n = VK_MODEL_PROMPTS_MAX;
	c->prompts = vk_arena_calloc(arena, n + 1, sizeof c->prompts[0]);
	if (!c->prompts) st = vk_fail(err, VK_E_NOMEM, "model: out of memory");
	for (const vk_jv *p = vk_jv_first(prompts); p && !st && c->prompts_n < n;
	     p = vk_jv_next(p)) {
		struct vk_bytes text, key = vk_jv_key(p);
		if (!vk_jv_str(p, &text)) continue;
		struct vk_model_prompt *to = &c->prompts[c->prompts_n++];
		to->name = vk_arena_strndup(arena, key.p, key.n);
		to->text = (struct vk_bytes){vk_arena_strndup(arena, text.p, text.n), text.n};
		if (!to->name || !to->text.p) st = vk_fail(err, VK_E_NOMEM, "model: out of memory");
	}
	vk_model_file_free(&f);
	return st;
}

/* ---- the tokenizer ---- */

/* tokenizer_config.json and sentence_bert_config.json: what they say wins over tokenizer.json,
 * as it does in the reference. */
struct overrides {
	int lower_case, strip_accents, cjk; /* -1: not said */
	uint32_t tokens_max;		    /* 0: not said */
};

static int get_tristate(const vk_jv *root, const char *key)
{
	bool b;
	return vk_jv_bool(vk_jv_get(root, key), &b) ? b : -1;
}

static enum vk_status check_tokenizer_class(const vk_jv *root, struct vk_error *err)
{
	struct vk_bytes cls = get_str(root, "tokenizer_class", VK_LIT("BertTokenizer"));
	if (vk_bytes_is(cls, "BertTokenizer") || vk_bytes_is(cls, "BertTokenizerFast") ||
	    vk_bytes_is(cls, "PreTrainedTokenizerFast") || vk_bytes_is(cls, "TokenizersBackend"))
		return VK_OK;
	return vk_fail(
	    err, VK_E_INVALID,
	    "tokenizer_config.json: tokenizer_class '%.*s' is not supported; the built-in encoder "
	    "has BERT's WordPiece only (no SentencePiece, no byte-level BPE)",
	    (int)(cls.n < 64 ? cls.n : 64), cls.p);
}

static enum vk_status read_overrides(const char *dir, struct overrides *o, struct vk_error *err)
{
	struct vk_model_file f;
	double v;
	*o = (struct overrides){-1, -1, -1, 0};
	enum vk_status st = vk_model_json_read(dir, "tokenizer_config.json", false, &f, err);
	if (st) return st;
	const vk_jv *root = vk_model_json_root(&f);
	st = check_tokenizer_class(root, err);
	o->lower_case = get_tristate(root, "do_lower_case");
	o->strip_accents = get_tristate(root, "strip_accents");
	o->cjk = get_tristate(root, "tokenize_chinese_chars");
	/* "No limit" is written as 1e30 in places. */
	if (vk_jv_f64(vk_jv_get(root, "model_max_length"), &v) && v >= 2 &&
	    v <= VK_MODEL_POSITIONS_MAX)
		o->tokens_max = (uint32_t)v;
	vk_model_file_free(&f);
	if (!st) st = vk_model_json_read(dir, "sentence_bert_config.json", false, &f, err);
	if (st) return st;
	root = vk_model_json_root(&f);
	if (vk_jv_f64(vk_jv_get(root, "max_seq_length"), &v) && v >= 2 &&
	    v <= VK_MODEL_POSITIONS_MAX)
		o->tokens_max = (uint32_t)v;
	if (get_bool(root, "do_lower_case", false)) o->lower_case = 1;
	vk_model_file_free(&f);
	return VK_OK;
}

static void apply_overrides(const struct overrides *o, struct vk_wordpiece_options *w, int *strip)
{
	if (o->lower_case >= 0) w->lower_case = o->lower_case;
	if (o->cjk >= 0) w->cjk_spacing = o->cjk;
	if (o->strip_accents >= 0) *strip = o->strip_accents;
	w->strip_accents = *strip >= 0 ? *strip : w->lower_case; /* unsaid: goes with the case */
}

static enum vk_status read_options(const vk_jv *root, const struct overrides *o,
				   struct vk_arena *arena, struct vk_wordpiece_options *w,
				   struct vk_error *err)
{
	static const char file[] = "tokenizer.json";
	const vk_jv *normalizer = vk_jv_get(root, "normalizer"), *model = vk_jv_get(root, "model");
	int strip = get_tristate(normalizer, "strip_accents");
	uint64_t chars;
	enum vk_status st = want(file, model, "type", "WordPiece", err);
	if (!st) st = want(file, normalizer, "type", "BertNormalizer", err);
	if (!st) st = want(file, vk_jv_get(root, "pre_tokenizer"), "type", "BertPreTokenizer", err);
	if (st) return st;
	w->clean_text = get_bool(normalizer, "clean_text", true);
	w->cjk_spacing = get_bool(normalizer, "handle_chinese_chars", true);
	w->lower_case = get_bool(normalizer, "lowercase", true);
	if (vk_jv_u64(vk_jv_get(model, "max_input_chars_per_word"), &chars))
		w->max_chars = chars > VK_WORDPIECE_CHARS_MAX ? 0 : (uint32_t)chars;
	struct vk_bytes unk = get_str(model, "unk_token", VK_LIT("[UNK]"));
	struct vk_bytes prefix = get_str(model, "continuing_subword_prefix", VK_LIT("##"));
	w->unk_token = vk_arena_strndup(arena, unk.p, unk.n);
	w->continuing = vk_arena_strndup(arena, prefix.p, prefix.n);
	if (!w->unk_token || !w->continuing)
		return vk_fail(err, VK_E_NOMEM, "model: out of memory");
	apply_overrides(o, w, &strip);
	return VK_OK;
}

static enum vk_status add_added(struct vk_wordpiece *w, const vk_jv *added, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	for (const vk_jv *a = vk_jv_first(added); a && !st; a = vk_jv_next(a)) {
		struct vk_bytes text;
		uint64_t id;
		if (!vk_jv_str(vk_jv_get(a, "content"), &text) ||
		    !vk_jv_u64(vk_jv_get(a, "id"), &id) || id >= VK_WORDPIECE_VOCAB_MAX)
			return vk_fail(err, VK_E_INVALID,
				       "tokenizer.json: an added token lacks id or content");
		if (get_bool(a, "normalized", false) || get_bool(a, "single_word", false))
			return vk_fail(err, VK_E_INVALID,
				       "tokenizer.json: added token %u is matched after "
				       "normalisation or by word, "
				       "which is not supported",
				       (unsigned)id);
		st = vk_wordpiece_add_special(w, text, (uint32_t)id, err);
	}
	return st;
}

static enum vk_status add_vocab(struct vk_wordpiece *w, const vk_jv *vocab, struct vk_error *err)
{
	enum vk_status st = VK_OK;
	if (vk_jv_type(vocab) != VK_J_OBJECT)
		return vk_fail(err, VK_E_INVALID, "tokenizer.json: model.vocab is no object");
	for (const vk_jv *v = vk_jv_first(vocab); v && !st; v = vk_jv_next(v)) {
		uint64_t id;
		if (!vk_jv_u64(v, &id) || id >= VK_WORDPIECE_VOCAB_MAX)
			return vk_fail(err, VK_E_INVALID,
				       "tokenizer.json: an id of model.vocab is out of range");
		st = vk_wordpiece_add(w, vk_jv_key(v), (uint32_t)id, err);
	}
	return st;
}

static enum vk_status tokenizer_of_json(const vk_jv *root, const struct overrides *o,
					struct vk_arena *arena, struct vk_wordpiece_options *w,
					struct vk_wordpiece **out, struct vk_error *err)
{
	enum vk_status st = read_options(root, o, arena, w, err);
	if (st) return st;
	*out = vk_wordpiece_new(w);
	if (!*out) return vk_fail(err, VK_E_NOMEM, "tokenizer: out of memory");
	st = add_vocab(*out, vk_jv_get(vk_jv_get(root, "model"), "vocab"), err);
	if (!st) st = add_added(*out, vk_jv_get(root, "added_tokens"), err);
	return st;
}

static enum vk_status tokenizer_of_lines(struct vk_bytes txt, const struct overrides *o,
					 struct vk_wordpiece_options *w, struct vk_wordpiece **out,
					 struct vk_error *err)
{
	static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
	int strip = -1;
	apply_overrides(o, w, &strip);
	*out = vk_wordpiece_new(w);
	if (!*out) return vk_fail(err, VK_E_NOMEM, "tokenizer: out of memory");
	enum vk_status st = vk_wordpiece_add_lines(*out, txt, err);
	for (size_t i = 0; !st && i < sizeof specials / sizeof specials[0]; i++) {
		struct vk_bytes s = vk_bytes_of(specials[i]);
		uint32_t id = vk_wordpiece_find(*out, s);
		if (id != UINT32_MAX) st = vk_wordpiece_add_special(*out, s, id, err);
	}
	return st;
}

static void hash_tokenizer(const struct vk_model_file *f, const struct vk_wordpiece_options *w,
			   uint32_t tokens_max, uint8_t out[32])
{
	char options[128];
	int n = snprintf(options, sizeof options,
			 "wordpiece1 clean=%d cjk=%d accents=%d lower=%d max=%u", w->clean_text,
			 w->cjk_spacing, w->strip_accents, w->lower_case, tokens_max);
	struct vk_sha256 s;
	vk_sha256_init(&s);
	vk_sha256_update(&s, options, (size_t)n);
	vk_sha256_update(&s, f->text, f->n);
	vk_sha256_final(&s, out);
}

static enum vk_status read_tokenizer(const char *dir, struct vk_arena *arena,
				     struct vk_model_config *c, struct vk_error *err)
{
	struct overrides o;
	struct vk_model_file f;
	struct vk_wordpiece_options w = VK_WORDPIECE_DEFAULTS;
	enum vk_status st = read_overrides(dir, &o, err);
	if (!st) st = vk_model_json_read(dir, "tokenizer.json", false, &f, err);
	if (st) return st;
	if (f.doc) {
		st = tokenizer_of_json(vk_model_json_root(&f), &o, arena, &w, &c->tokenizer, err);
	} else {
		st = vk_model_file_read(dir, "vocab.txt", false, &f, err);
		if (!st && !f.text)
			st = vk_fail(err, VK_E_NOT_FOUND,
				     "%.300s: neither tokenizer.json nor vocab.txt is there", dir);
		if (!st)
			st = tokenizer_of_lines((struct vk_bytes){f.text, f.n}, &o, &w,
						&c->tokenizer, err);
	}
	if (!st) st = vk_wordpiece_seal(c->tokenizer, err);
	if (!st && vk_wordpiece_ids(c->tokenizer) > c->vocab)
		st = vk_fail(err, VK_E_INVALID,
			     "tokenizer: ids up to %u, but config.json's vocab_size is %u",
			     vk_wordpiece_ids(c->tokenizer) - 1, c->vocab);
	if (!st && o.tokens_max && o.tokens_max < c->tokens_max) c->tokens_max = o.tokens_max;
	if (!st) hash_tokenizer(&f, &w, c->tokens_max, c->tokenizer_sha256);
	vk_model_file_free(&f);
	return st;
}

enum vk_status vk_model_config_read(const char *dir, struct vk_arena *arena,
				    struct vk_model_config *c, struct vk_error *err)
{
	struct vk_model_file f;
	*c = (struct vk_model_config){.pooling = VK_POOL_MEAN};
	set_name(c, dir);
	enum vk_status st = vk_model_json_read(dir, "config.json", true, &f, err);
	if (st) return st;
	st = read_network(vk_model_json_root(&f), c, err);
	vk_model_file_free(&f);
	if (!st) st = read_modules(dir, c, err);
	if (!st) st = read_prompts(dir, arena, c, err);
	if (!st) st = read_tokenizer(dir, arena, c, err);
	if (st) {
		vk_wordpiece_free(c->tokenizer);
		c->tokenizer = NULL;
	}
	return st;
}
