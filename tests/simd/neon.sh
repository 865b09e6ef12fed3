#!/usr/bin/env bash
# The kernel tests on AArch64: the simd room and its tests, cross-built and run under qemu, once on a
# CPU without the dot-product instructions and once on one that has them all. No cmocka for that
# target is needed: tests/simd/neon/cmocka.h stands in.
#
#   tests/simd/neon.sh [BUILD DIR]      default build/neon; VK_TEST_SEED replays, VK_TEST_SHARE=1
# runs the tests whole (minutes)
set -euo pipefail
cd "$(dirname "$0")/../.."
DIR=${1:-build/neon}
CC=${CC_ARM64:-aarch64-linux-gnu-gcc}
QEMU=${QEMU_ARM64:-qemu-aarch64}
FLAGS=(-std=gnu11 -O2 -g -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wstrict-prototypes -fno-math-errno
	-ffp-contract=off -D_GNU_SOURCE -I.)
TESTS=(crc32c base64 vec score code code_dots)

mkdir -p "$DIR"
objects=()
for source in simd/*.c; do
	[ "$source" = simd/gemm.c ] && continue # a static program loads no library
	object=$DIR/$(basename "$source" .c).o
	"$CC" "${FLAGS[@]}" -c "$source" -o "$object"
	objects+=("$object")
done
for t in "${TESTS[@]}"; do
	"$CC" "${FLAGS[@]}" -Itests/simd/neon -static "tests/simd/test_$t.c" "${objects[@]}" -lm -lpthread \
		-o "$DIR/test_$t"
done
export VK_TEST_SHARE=${VK_TEST_SHARE:-40}
for cpu in cortex-a53 max; do
	for t in "${TESTS[@]}"; do
		SECONDS=0
		"$QEMU" -cpu "$cpu" "$DIR/test_$t" >"$DIR/$t-$cpu.log" || {
			tail -n 20 "$DIR/$t-$cpu.log"
			echo "neon: test_$t failed on $cpu" >&2
			exit 1
		}
		echo "neon: test_$t on $cpu: $(grep -c '^ok' "$DIR/$t-$cpu.log") passed, $SECONDS s"
	done
done
