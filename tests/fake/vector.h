/* The vector function that every test knows: f(space, role, dims, input bytes). README.md has the
 * definition, tests/flows/vectors.py the same in numpy. */
#ifndef FAKE_VECTOR_H
#define FAKE_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

uint64_t fake_splitmix(uint64_t *state);
void fake_vector(float *row, const char *space, const char *role, uint32_t dims, const void *input,
	size_t input_n);
/* To unit length; sums in double, left to right, then one float multiply a component. */
void fake_normalize(float *row, uint32_t dims);
/* "[0.5,-0.25,...]": digits enough that every f32 reads back to the same bits. */
void fake_vector_json(struct fake_buf *out, const float *row, uint32_t dims);
/* The row's little-endian bytes as padded base64 within quotes. */
void fake_vector_base64(struct fake_buf *out, const float *row, uint32_t dims);

#endif
