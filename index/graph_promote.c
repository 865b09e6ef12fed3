/*
 * Promotion: mapped sections of a graph become memory. Read-only file pages get no huge pages from the kernel, and walks touch
 * everything. Piece by piece from the end, an anonymous copy is moved over the mapping by mremap: one system call under the
 * kernel's own lock, so a reader sees either.
 *
 * Threads: searches go on meanwhile, the grower does not. Memory: a piece is held twice.
 * Errors: VK_E_NOMEM; what is promoted by then stays so, the rest is mapped as it was, and the graph serves.
 */
#include <string.h>
#include <sys/mman.h>

#include "index/graph_file.h"
#include "store/patch.h"

#define HUGE ((size_t)2 << 20)
#define PIECE ((size_t)64 << 20) /* of a promotion: what is held twice */

/* The bytes [from, to) of a section, copied and moved over themselves. */
static bool promote_piece(struct vk_graph_slab *s, size_t from, size_t to)
{
	const size_t n = to - from;
	uint8_t *room = mmap(NULL, n + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED) return false;
	/* As far from a huge page's beginning as its future place, so that huge pages move whole; the rest is given back first,
	 * since after the move its neighbourhood may be another thread's. */
	const size_t before = (size_t)((uintptr_t)(s->p + from) - (uintptr_t)room) & (HUGE - 1);
	uint8_t *copy = room + before;
	if (before) munmap(room, before);
	if (before < HUGE) munmap(copy + n, HUGE - before);
	(void)madvise(copy, n, MADV_HUGEPAGE);
	memcpy(copy, s->p + from, n);
	if (mremap(copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, s->p + from) != MAP_FAILED) return true;
	munmap(copy, n);
	return false;
}

/* From the end, so that `mapped` stays what it is: file pages from the beginning on. */
static enum vk_status promote(struct vk_graph_slab *s)
{
	/* Cut where huge pages begin; to the end of the last one, since what lies behind the file's pages is memory already. */
	const size_t skew = (size_t)((uintptr_t)s->p & (HUGE - 1));
	size_t end = (size_t)vk_graph_file_up(s->mapped + skew, HUGE) - skew;
	if (end > s->reserved) end = s->reserved;
	while (s->mapped) {
		size_t from = end > PIECE ? (end - 1 + skew) / PIECE * PIECE - skew : 0;
		if (!promote_piece(s, from, end)) return VK_E_NOMEM;
		end = from;
		if (!from) vk_patch_remove(s->p); /* memory now */
		if (from < s->mapped) s->mapped = from;
	}
	return VK_OK;
}

enum vk_status vk_graph_promote(struct vk_graph *g)
{
	enum vk_status st = VK_OK;
	for (int i = VK_SECTION_LABEL; !st && i < VK_SECTIONS; i++) st = promote(vk_graph_slab_of(g, i));
	return st;
}
