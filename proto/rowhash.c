/* rowhash.c - see rowhash.h. The words of a block are independent, so four of them go through one
 * vector instruction where the processor has AVX2; sums modulo 2^64 make the order of no matter.
 */
#include "proto/rowhash.h"

#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "proto/order.h"

enum { BLOCK_WORDS = 512 };

typedef uint64_t block_fn(const unsigned char *at, uint64_t words);

static uint64_t keys[BLOCK_WORDS];
static pthread_once_t keys_once = PTHREAD_ONCE_INIT;

static void keys_make(void)
{
    for (uint64_t j = 0; j < BLOCK_WORDS; j++)
        keys[j] = order_key(ROWHASH_KEY, j);
}

static inline uint64_t word_mix(uint64_t w, uint64_t key)
{
    uint64_t t = w ^ key;
    return w + (t & 0xffffffff) * (t >> 32);
}

static uint64_t block_plain(const unsigned char *at, uint64_t words)
{
    uint64_t sum = 0, w;
    for (uint64_t j = 0; j < words; j++) {
        memcpy(&w, at + 8 * j, sizeof w);
        sum += word_mix(w, keys[j]);
    }
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t block_avx2(const unsigned char *at, uint64_t words)
{
    __m256i sum[4] = {0};
    uint64_t j = 0, lane[4];
    for (; j + 16 <= words; j += 16)
        for (int i = 0; i < 4; i++) {
            __m256i w = _mm256_loadu_si256((const __m256i *)(at + 8 * j) + i);
            __m256i t = _mm256_xor_si256(w, _mm256_loadu_si256((const __m256i *)(keys + j) + i));
            __m256i product = _mm256_mul_epu32(t, _mm256_srli_epi64(t, 32));
            sum[i] = _mm256_add_epi64(sum[i], _mm256_add_epi64(w, product));
        }
    __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), //
                                   _mm256_add_epi64(sum[2], sum[3]));
    _mm256_storeu_si256((__m256i *)lane, all);
    uint64_t total = lane[0] + lane[1] + lane[2] + lane[3], w;
    for (; j < words; j++) {
        memcpy(&w, at + 8 * j, sizeof w);
        total += word_mix(w, keys[j]);
    }
    return total;
}
#endif

static uint64_t field_hash(uint64_t h, const unsigned char *at, uint64_t bytes, block_fn *block)
{
    while (bytes >= 8 * BLOCK_WORDS) {
        h = order_key(h, block(at, BLOCK_WORDS));
        at += 8 * BLOCK_WORDS;
        bytes -= 8 * BLOCK_WORDS;
    }
    if (!bytes)
        return h;
    uint64_t words = bytes / 8, last = 0, sum = block(at, words);
    if (bytes % 8) {
        memcpy(&last, at + 8 * words, bytes % 8);
        sum += word_mix(last, keys[words]);
    }
    return order_key(h, sum);
}

static uint64_t rows_sum(const struct rowhash_field *fields, uint32_t field_count, uint64_t rows,
                         block_fn *block)
{
    uint64_t sum = 0;
    pthread_once(&keys_once, keys_make);
    for (uint64_t row = 0; row < rows; row++) {
        uint64_t h = 0;
        for (uint32_t i = 0; i < field_count; i++) {
            const struct rowhash_field *f = &fields[i];
            uint64_t first = f->pointer ? f->pointer[row] : row, items = 1;
            if (f->pointer) {
                items = f->pointer[row + 1] - first;
                h = order_key(h, items);
            }
            h = field_hash(h, (const unsigned char *)f->at + first * f->row_bytes,
                           items * f->row_bytes, block);
        }
        sum += h;
    }
    return sum;
}

uint64_t rowhash_sum(const struct rowhash_field *fields, uint32_t field_count, uint64_t rows)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return rows_sum(fields, field_count, rows, block_avx2);
#endif
    return rows_sum(fields, field_count, rows, block_plain);
}

uint64_t rowhash_sum_plain(const struct rowhash_field *fields, uint32_t field_count, uint64_t rows)
{
    return rows_sum(fields, field_count, rows, block_plain);
}
