/* decode.c - see decode.h. The filters are undone last first; only gzip and shuffle move bytes, and
 * the last of those that moves them writes straight to its destination (a slot of the arena when
 * the chunk is whole), so a byte is written once or twice and never more.
 */
#include "loaderd/decode.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { CHECKSUM_BYTES = 4 };

int decoder_open(struct decoder *d, struct err *e)
{
    *d = (struct decoder){0};
    d->inflater = libdeflate_alloc_decompressor();
    if (!d->inflater)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot make a gzip decoder: out of memory");
    return 0;
}

void decoder_close(struct decoder *d)
{
    if (d->inflater)
        libdeflate_free_decompressor(d->inflater);
    free(d->scratch[0]);
    free(d->scratch[1]);
    *d = (struct decoder){0};
}

static unsigned char *scratch_get(struct decoder *d, int which, size_t bytes, struct err *e)
{
    if (d->capacity[which] < bytes) {
        free(d->scratch[which]);
        d->scratch[which] = malloc(bytes);
        d->capacity[which] = d->scratch[which] ? bytes : 0;
    }
    if (!d->scratch[which])
        err_set(e, EXIT_CODE_TEMPORARY, "cannot get %zu bytes to decode a chunk", bytes);
    return d->scratch[which];
}

#ifdef __x86_64__
/* 16 elements of 2, 4 or 8 bytes at a time: interleaving byte planes pairwise doubles the width of
 * what lies together each round, as many rounds as the width has doublings. */
static inline __attribute__((always_inline)) size_t
unshuffle_blocks(const unsigned char *in, unsigned char *out, size_t count, uint32_t width)
{
    size_t at = 0;
    for (; at + 16 <= count; at += 16) {
        __m128i a[8], b[8];
        for (uint32_t j = 0; j < width; j++)
            a[j] = _mm_loadu_si128((const __m128i *)(in + j * count + at));
        /* Plane j is paired with plane j + width/2, so that the order is right after the last
         * round. */
        for (uint32_t round = width; round > 1; round /= 2) {
            for (uint32_t j = 0; j < width / 2; j++) {
                b[2 * j] = _mm_unpacklo_epi8(a[j], a[j + width / 2]);
                b[2 * j + 1] = _mm_unpackhi_epi8(a[j], a[j + width / 2]);
            }
            for (uint32_t j = 0; j < width; j++)
                a[j] = b[j];
        }
        for (uint32_t j = 0; j < width; j++)
            _mm_storeu_si128((__m128i *)(out + at * width + 16 * j), a[j]);
    }
    return at;
}

/* The same for 32 elements: each half of a vector is what 16 of them would have given. */
__attribute__((target("avx2"), always_inline)) static inline size_t
unshuffle_blocks_avx2(const unsigned char *in, unsigned char *out, size_t count, uint32_t width)
{
    size_t at = 0;
    for (; at + 32 <= count; at += 32) {
        __m256i a[8], b[8];
        for (uint32_t j = 0; j < width; j++)
            a[j] = _mm256_loadu_si256((const __m256i *)(in + j * count + at));
        for (uint32_t round = width; round > 1; round /= 2) {
            for (uint32_t j = 0; j < width / 2; j++) {
                b[2 * j] = _mm256_unpacklo_epi8(a[j], a[j + width / 2]);
                b[2 * j + 1] = _mm256_unpackhi_epi8(a[j], a[j + width / 2]);
            }
            for (uint32_t j = 0; j < width; j++)
                a[j] = b[j];
        }
        __m256i *first = (__m256i *)(out + at * width), *second = first + width / 2;
        for (uint32_t j = 0; j < width / 2; j++) {
            _mm256_storeu_si256(first + j, _mm256_permute2x128_si256(a[2 * j], a[2 * j + 1], 0x20));
            _mm256_storeu_si256(second + j,
                                _mm256_permute2x128_si256(a[2 * j], a[2 * j + 1], 0x31));
        }
    }
    return at;
}

__attribute__((target("avx2"))) static size_t
unshuffle_avx2(const unsigned char *in, unsigned char *out, size_t count, uint32_t width)
{
    return width == 2   ? unshuffle_blocks_avx2(in, out, count, 2)
           : width == 4 ? unshuffle_blocks_avx2(in, out, count, 4)
                        : unshuffle_blocks_avx2(in, out, count, 8);
}

/* As many leading elements of 2, 4 or 8 bytes as come in whole vectors; returns how many. */
static size_t unshuffle_vectors(const unsigned char *in, unsigned char *out, size_t count,
                                uint32_t width)
{
    if (__builtin_cpu_supports("avx2"))
        return unshuffle_avx2(in, out, count, width);
    return width == 2   ? unshuffle_blocks(in, out, count, 2)
           : width == 4 ? unshuffle_blocks(in, out, count, 4)
                        : unshuffle_blocks(in, out, count, 8);
}
#endif

void decode_unshuffle(const unsigned char *in, unsigned char *out, size_t bytes,
                      uint32_t element_bytes)
{
    size_t width = element_bytes ? element_bytes : 1, count = bytes / width, at = 0;
#ifdef __x86_64__
    if (width == 2 || width == 4 || width == 8)
        at = unshuffle_vectors(in, out, count, (uint32_t)width);
#endif
    for (; at < count; at++)
        for (size_t j = 0; j < width; j++)
            out[at * width + j] = in[j * count + at];
    memcpy(out + count * width, in + count * width, bytes - count * width);
}

uint32_t decode_fletcher32(const unsigned char *data, size_t bytes)
{
    uint32_t low = 0, high = 0;
    size_t words = bytes / 2;
    while (words) {
        size_t run = words > 360 ? 360 : words; /* as many as 32 bits hold without overflow */
        words -= run;
        for (; run; run--, data += 2) {
            low += (uint32_t)data[0] << 8 | data[1];
            high += low;
        }
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    if (bytes % 2) {
        low += (uint32_t)data[0] << 8;
        high += low;
        low = (low & 0xffff) + (low >> 16);
        high = (high & 0xffff) + (high >> 16);
    }
    low = (low & 0xffff) + (low >> 16);
    high = (high & 0xffff) + (high >> 16);
    return high << 16 | low;
}

uint32_t decode_crc32(uint32_t crc, const void *data, size_t bytes)
{
    return libdeflate_crc32(crc, data, bytes);
}

/* HDF5 up to 1.6.2 stored the sums with the bytes of each half exchanged; both are accepted, as
 * there. */
static int fletcher32_check(const unsigned char *data, size_t bytes, struct err *e)
{
    if (bytes < CHECKSUM_BYTES)
        return err_set(e, EXIT_CODE_PERMANENT, "it is shorter than its checksum");
    const unsigned char *at = data + bytes - CHECKSUM_BYTES;
    uint32_t stored =
        (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    uint32_t sum = decode_fletcher32(data, bytes - CHECKSUM_BYTES);
    uint32_t swapped = (sum & 0x00ff00ff) << 8 | (sum >> 8 & 0x00ff00ff);
    if (stored != sum && stored != swapped)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "its fletcher32 checksum is %08x and its bytes give %08x", stored, sum);
    return 0;
}

static int gzip_inflate(struct decoder *d, const void *in, size_t in_bytes, void *out,
                        size_t out_bytes, struct err *e)
{
    enum libdeflate_result result =
        libdeflate_zlib_decompress(d->inflater, in, in_bytes, out, out_bytes, NULL);
    switch (result) {
    case LIBDEFLATE_SUCCESS:
        return 0;
    case LIBDEFLATE_SHORT_OUTPUT:
        return err_set(e, EXIT_CODE_PERMANENT, "its gzip data expand to less than %zu bytes",
                       out_bytes);
    case LIBDEFLATE_INSUFFICIENT_SPACE:
        return err_set(e, EXIT_CODE_PERMANENT, "its gzip data expand to more than %zu bytes",
                       out_bytes);
    default:
        return err_set(e, EXIT_CODE_PERMANENT, "its gzip data (%zu bytes) are damaged", in_bytes);
    }
}

static int step_runs(uint32_t mask, uint32_t i)
{
    return !(mask >> i & 1);
}

static int step_moves(const struct decode_plan *plan, uint32_t mask, uint32_t i)
{
    const struct decode_step *s = &plan->step[i];
    return step_runs(mask, i) &&
           (s->kind == DECODE_GZIP || (s->kind == DECODE_SHUFFLE && s->element_bytes > 1));
}

/* Bytes that step i was given when the chunk of out_bytes was written. What came out of gzip had
 * any size: then it is `now_bytes`, those we have. */
static size_t step_bytes(const struct decode_plan *plan, uint32_t mask, uint32_t i,
                         size_t out_bytes, size_t now_bytes)
{
    for (uint32_t j = 0; j < i; j++) {
        if (step_runs(mask, j) && plan->step[j].kind == DECODE_GZIP)
            return now_bytes;
        if (step_runs(mask, j) && plan->step[j].kind == DECODE_FLETCHER32)
            out_bytes += CHECKSUM_BYTES;
    }
    return out_bytes;
}

static int size_wrong(size_t held, size_t wanted, struct err *e)
{
    return err_set(e, EXIT_CODE_PERMANENT, "it holds %zu bytes where %zu belong", held, wanted);
}

/* Does a step before i, so one that is undone later, move the bytes again? */
static int moves_later(const struct decode_plan *plan, uint32_t mask, uint32_t i)
{
    while (i > 0)
        if (step_moves(plan, mask, --i))
            return 1;
    return 0;
}

int decode_chunk(struct decoder *d, const struct decode_plan *plan, uint32_t mask, const void *raw,
                 size_t raw_bytes, void *out, size_t out_bytes, struct err *e)
{
    const unsigned char *now = raw;
    size_t now_bytes = raw_bytes;
    int scratch = 0;
    for (uint32_t left = plan->count; left > 0; left--) {
        uint32_t i = left - 1;
        const struct decode_step *step = &plan->step[i];
        if (step_runs(mask, i) && step->kind == DECODE_FLETCHER32) {
            if (fletcher32_check(now, now_bytes, e) != 0)
                return -1;
            now_bytes -= CHECKSUM_BYTES;
        }
        if (!step_moves(plan, mask, i))
            continue;

        size_t bytes = step_bytes(plan, mask, i, out_bytes, now_bytes);
        if (step->kind == DECODE_SHUFFLE && bytes != now_bytes)
            return size_wrong(now_bytes, bytes, e);
        unsigned char *to = out;
        if ((bytes != out_bytes || moves_later(plan, mask, i)) &&
            !(to = scratch_get(d, scratch, bytes, e)))
            return -1;
        if (step->kind == DECODE_SHUFFLE)
            decode_unshuffle(now, to, bytes, step->element_bytes);
        else if (gzip_inflate(d, now, now_bytes, to, bytes, e) != 0)
            return -1;
        now = to;
        now_bytes = bytes;
        scratch = !scratch;
    }
    if (now_bytes != out_bytes)
        return size_wrong(now_bytes, out_bytes, e);
    if (now != out)
        memcpy(out, now, out_bytes);
    return 0;
}
