/*
 * Loads vk_faiss.so, once, when somebody first wants FAISS. The object is linked with libopenblas.so.0: that name is already
 * loaded by then (vk_gemm_init() has set its kernels and its one thread), so the loader gives it the same instance. It is never
 * unloaded: OpenMP's threads may stand in it.
 */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "index/faiss_internal.h"
#include "simd/gemm.h"

#define OBJECT "vk_faiss.so"

static struct {
	pthread_once_t once;
	const struct vk_faiss_face *face;
	struct vk_error err;
} loaded = {.once = PTHREAD_ONCE_INIT};

const struct vk_faiss_face *vk_faiss_face_at(const char *path, struct vk_error *err)
{
	vk_gemm_init();
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		vk_fail(err, VK_E_UNAVAILABLE, "FAISS cannot be loaded: %s", dlerror());
		return NULL;
	}
	const struct vk_faiss_face *face = dlsym(lib, VK_FAISS_FACE_SYMBOL);
	if (!face || face->version != VK_FAISS_FACE_VERSION) {
		vk_fail(err, VK_E_UNAVAILABLE, "FAISS cannot be loaded: %s is not of this program's version", path);
		dlclose(lib);
		return NULL;
	}
	return face;
}

/* Beside the program (a build), or in its library directory (an installation). */
static bool find(char *path, size_t n)
{
	static const char *const places[] = {"/" OBJECT, "/../lib/veckeep/" OBJECT};
	char dir[PATH_MAX];
	ssize_t got = readlink("/proc/self/exe", dir, sizeof dir - 1);
	if (got <= 0) return false;
	dir[got] = 0;
	*strrchr(dir, '/') = 0;
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
		if ((size_t)snprintf(path, n, "%s%s", dir, places[i]) < n && access(path, R_OK) == 0) return true;
	return false;
}

static void load(void)
{
	char path[PATH_MAX + 64];
	if (find(path, sizeof path))
		loaded.face = vk_faiss_face_at(path, &loaded.err);
	else
		vk_fail(&loaded.err, VK_E_UNAVAILABLE, "FAISS is not there: no " OBJECT " beside the program (it is built where "
			"libfaiss-dev is installed)");
}

const struct vk_faiss_face *vk_faiss_face(struct vk_error *err)
{
	pthread_once(&loaded.once, load);
	if (!loaded.face && err) *err = loaded.err;
	return loaded.face;
}
