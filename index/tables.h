/* The tables of a collection's environment. Layouts: store/record_vset.h, record_point.h,
 * record_field.h, record_extra.h. Numbers in keys are big-endian, so that key order is theirs. */
#ifndef VK_INDEX_TABLES_H
#define VK_INDEX_TABLES_H

enum vk_table {
	VK_T_META,    /* word -> bytes: "config" (JSON), "state" (next slot, sequence, counts), cursors */
	VK_T_ID,      /* id key -> slot u32 (with version and CRC: store/record_point.h) */
	VK_T_POINT,   /* slot u32 -> point head: sequence, id key */
	VK_T_PAYLOAD, /* slot u32 -> the client's JSON text; no entry: no payload */
	VK_T_CHANGE,  /* sequence u64 -> slot, op, mask, id key: newest of a point only */
	VK_T_FREE,    /* sequence u64 of the delete, slot u32 -> nothing */
	VK_T_TAIL,    /* set u32, slot u32 -> a row alone */
	VK_T_BLOCK,   /* set u32, block u32 -> rows by rank */
	VK_T_CODE,    /* set u32, block u32 -> the block's 8-bit codes */
	VK_T_BITS,    /* set u32, block u32 -> the block's sign bits, for binary quantisation */
	VK_T_DEAD,    /* set u32, block u32 -> bits over the block's slots: its row no longer counts */
	VK_T_FIELD,   /* field u16, kind u8, value, chunk u16 -> bitmap of 64 Ki slots */
	VK_T_EXTRA,   /* slot u32, kind u8, set u32 -> a sparse vector, or the text of a dense one */
	VK_T_COUNT
};

#define VK_TABLE_NAMES {"meta", "id", "point", "payload", "change", "free", "tail", "block", "code", "bits", "dead", "field", \
			"extra"}

#endif
