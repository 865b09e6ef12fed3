/*
 * FAISS behind its face: the border that every call passes, and the table of what there is. Only faiss_face*.cpp know FAISS's
 * classes (faiss_face_parts.h has the model and says who does what). They compile against 1.7.3 (Debian 12) and later.
 *
 * The border. Going in, the calling thread notes whose work it does and sets its own number of OpenMP threads. Coming out, whatever
 * was thrown is a status and a text without FAISS's file names and unprintable bytes; the number of threads is what it was.
 * One interrupt callback serves the whole process: it asks the calling thread's own work, by a thread-local.
 */
#include "index/faiss_face_parts.h"

#include <cstdio>
#include <cstring>

#include <omp.h>

#include <faiss/impl/AuxIndexStructures.h>

namespace vk_face {

namespace {

thread_local const struct vk_faiss_work *working;

struct Interrupt : faiss::InterruptCallback {
	bool want_interrupt() override { return stopped(working); }
};

/* FAISS's "Error in <function> at <file>:<line>: Error: '<condition>' failed: <text>", without where it stood. */
const char *plain(const char *what)
{
	const char *p = std::strstr(what, "failed: ");
	if (p && p[8]) return p + 8;
	p = std::strncmp(what, "Error in ", 9) ? nullptr : std::strstr(what, ".cpp:");
	if (p) p = std::strstr(p, ": ");
	return p && p[2] ? p + 2 : what;
}

} // namespace

bool stopped(const struct vk_faiss_work *w)
{
	return w && w->stopped && w->stopped(w->arg);
}

Working::Working(const struct vk_faiss_work *w) : threads_before(omp_get_max_threads())
{
	static const bool once = [] {
		faiss::InterruptCallback::instance.reset(new Interrupt());
		return true;
	}();
	(void)once;
	working = w;
	omp_set_num_threads(w && w->threads > 1 ? (int)w->threads : 1);
}

Working::~Working()
{
	omp_set_num_threads(threads_before);
	working = nullptr;
}

enum vk_status fail(struct vk_error *err, enum vk_status st, const char *text)
{
	if (!err) return st;
	*err = {};
	err->st = st;
	int n = std::snprintf(err->text, sizeof err->text, "FAISS: %s", plain(text));
	if (n >= (int)sizeof err->text) n = sizeof err->text - 1;
	for (int i = 0; i < n; i++) /* it quotes bytes of files */
		if (err->text[i] < ' ' || err->text[i] > '~') err->text[i] = err->text[i] == '\n' ? ' ' : '?';
	while (n > 0 && err->text[n - 1] == ' ') err->text[--n] = 0;
	return st;
}

} // namespace vk_face

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

extern "C" __attribute__((visibility("default"))) const struct vk_faiss_face vk_faiss_face_table;
const struct vk_faiss_face vk_faiss_face_table = {
	VK_FAISS_FACE_VERSION,
	"FAISS " TEXT(FAISS_VERSION_MAJOR) "." TEXT(FAISS_VERSION_MINOR) "." TEXT(FAISS_VERSION_PATCH),
	vk_face::create, vk_face::destroy, vk_face::train, vk_face::add, vk_face::search, vk_face::describe, vk_face::rows,
	vk_face::write, vk_face::read, vk_face::kmeans,
};
