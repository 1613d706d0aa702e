/* huffman.c - see huffman.h.
 *
 * The data are cut into segments of SEGMENT bytes, and neighbours are joined while one table for
 * both costs less than two; each is a deflate block with a table of its own (RFC 1951), or a stored
 * one where that is smaller. Runs of one byte become matches at distance 1 where that takes fewer
 * bits. Lengths are those of huffman_code.h, at most one less than the format's limit, so that four
 * codes go out at a time.
 */
#include "proto/huffman.h"

#include <libdeflate.h>
#include <math.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "proto/err.h"
#include "proto/huffman_code.h"

enum {
    END = 256,                     /* of a block */
    LENGTHS = 257,                 /* of runs: the first symbol for them */
    SYMBOLS = HUFFMAN_SYMBOLS_MAX, /* bytes, end, lengths */
    LENGTH_MAX = 14,               /* of a code */
    RUN_MIN = 4,                   /* below, a run is never worth it; the format has 3 */
    RUN_MAX = 258,
    SEGMENT = 4096,
    STORED_MAX = 65535,
    HEADER_SYMBOLS = 19, /* of the code that describes a table: lengths 0 to 15, repeats */
    HEADER_LENGTH_MAX = 7,
    HEADER_BITS_MAX = 3 + 14 + 3 * HEADER_SYMBOLS + (SYMBOLS + 1) * HEADER_LENGTH_MAX
};

struct bits {
    uint8_t *at;
    uint64_t held;
    uint32_t count; /* below 8 between calls of bits_put */
};

static inline void bits_flush(struct bits *b)
{
    memcpy(b->at, &b->held, sizeof b->held);
    b->at += b->count >> 3;
    b->held >>= b->count & ~7u;
    b->count &= 7;
}

static inline void bits_put(struct bits *b, uint32_t value, uint32_t count)
{
    b->held |= (uint64_t)value << b->count;
    b->count += count;
    bits_flush(b);
}

struct table {
    uint8_t length[SYMBOLS + 1]; /* the last: of the only distance, 1; 0 where there are no runs */
    uint16_t code[SYMBOLS];
};

/* A part of the data that a block has: counts of symbols, and the runs that are worth a match. */
struct run {
    uint32_t at, length; /* of the bytes after the first, from the chunk's beginning on */
};
struct segment {
    uint32_t frequency[SYMBOLS];
    uint32_t extra_bits; /* of the lengths of runs */
    uint32_t runs;
};

/* The lengths of a table as the format describes them: a symbol, and for 16, 17 and 18 how often
 * more. */
struct header {
    uint8_t symbol[SYMBOLS + 1], extra[SYMBOLS + 1];
    uint32_t used, literals;
    uint32_t frequency[HEADER_SYMBOLS];
};

static void header_symbol(struct header *h, uint32_t symbol, uint32_t extra)
{
    h->symbol[h->used] = (uint8_t)symbol;
    h->extra[h->used++] = (uint8_t)extra;
    h->frequency[symbol]++;
}

static void header_make(struct header *h, const struct table *t)
{
    uint8_t length[SYMBOLS + 1];
    *h = (struct header){.literals = SYMBOLS};
    while (h->literals > LENGTHS && t->length[h->literals - 1] == 0)
        h->literals--;
    memcpy(length, t->length, h->literals);
    length[h->literals] = t->length[SYMBOLS];
    uint32_t count = h->literals + 1, run;
    for (uint32_t i = 0; i < count; i += run) {
        uint32_t most = length[i] ? 7 : 138;
        for (run = 1; i + run < count && run < most && length[i + run] == length[i];)
            run++;
        if (length[i] == 0 && run >= 3) {
            header_symbol(h, run > 10 ? 18 : 17, run > 10 ? run - 11 : run - 3);
        } else if (length[i] && run >= 4) {
            header_symbol(h, length[i], 0);
            header_symbol(h, 16, run - 4);
        } else {
            run = 1;
            header_symbol(h, length[i], 0);
        }
    }
}

static void header_put(struct bits *b, const struct header *h)
{
    static const uint8_t order[HEADER_SYMBOLS] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                  11, 4,  12, 3, 13, 2, 14, 1, 15};
    static const uint8_t extra_bits[HEADER_SYMBOLS] = {[16] = 2, [17] = 3, [18] = 7};
    uint8_t length[HEADER_SYMBOLS];
    uint16_t code[HEADER_SYMBOLS];
    uint32_t described = HEADER_SYMBOLS;
    huffman_lengths(h->frequency, HEADER_SYMBOLS, HEADER_LENGTH_MAX, length);
    huffman_codes(length, HEADER_SYMBOLS, code);
    while (described > 4 && length[order[described - 1]] == 0)
        described--;
    bits_put(b, h->literals - 257, 5);
    bits_put(b, 0, 5); /* one code of distances */
    bits_put(b, described - 4, 4);
    for (uint32_t i = 0; i < described; i++)
        bits_put(b, length[order[i]], 3);
    for (uint32_t i = 0; i < h->used; i++) {
        bits_put(b, code[h->symbol[i]], length[h->symbol[i]]);
        bits_put(b, h->extra[i], extra_bits[h->symbol[i]]);
    }
}

/* The symbol of a run's length, and how many bits of it follow: eight lengths with a symbol each,
 * then four symbols for each number of bits. */
static uint32_t length_symbol(uint32_t length, uint32_t *extra)
{
    uint32_t above = length - 3, bits = 0;
    while (length < RUN_MAX && above >> (bits + 3))
        bits++;
    *extra = bits;
    return length == RUN_MAX ? SYMBOLS - 1 : LENGTHS + 4 * bits + (above >> bits);
}

/* The codes of two bytes, and the bits that they have above 32. */
static inline uint64_t pair_of(const uint32_t *both, const uint8_t *data)
{
    uint32_t a = both[data[0]], b = both[data[1]];
    return (a & 0xffff) | (b & 0xffff) << (a >> 16) | (uint64_t)((a >> 16) + (b >> 16)) << 32;
}

/* Four codes fit what bits_flush leaves free. They are put together two by two first, so that only
 * one of four waits for the one before. */
static void literals_put(struct bits *b, const uint32_t *both, const uint8_t *data, uint64_t bytes)
{
    uint64_t i = 0;
    struct bits w = *b;
    for (; i + 4 <= bytes; i += 4) {
        uint64_t low = pair_of(both, data + i), high = pair_of(both, data + i + 2);
        uint32_t low_bits = (uint32_t)(low >> 32);
        w.held |= ((low & UINT32_MAX) | (high & UINT32_MAX) << low_bits) << w.count;
        w.count += low_bits + (uint32_t)(high >> 32);
        bits_flush(&w);
    }
    for (; i < bytes; i++)
        bits_put(&w, both[data[i]] & 0xffff, both[data[i]] >> 16);
    *b = w;
}

static void run_put(struct bits *b, const struct table *t, uint32_t length)
{
    uint32_t extra, symbol = length_symbol(length, &extra);
    bits_put(b, t->code[symbol], t->length[symbol]);
    bits_put(b, (length - 3) & ((1u << extra) - 1), extra);
    bits_put(b, 0, 1); /* the distance */
}

/* Bytes [first, end) of the data, of which the runs are matches. */
static void symbols_put(struct bits *b, const struct table *t, const uint8_t *data, uint64_t first,
                        uint64_t end, const struct run *runs, uint32_t count)
{
    uint32_t both[256]; /* code, and its length above */
    for (uint32_t k = 0; k < 256; k++)
        both[k] = t->code[k] | (uint32_t)t->length[k] << 16;
    for (uint32_t k = 0; k < count; k++) {
        literals_put(b, both, data + first, runs[k].at - first);
        run_put(b, t, runs[k].length);
        first = runs[k].at + runs[k].length;
    }
    literals_put(b, both, data + first, end - first);
    bits_put(b, t->code[END], t->length[END]);
}

static void stored_put(struct bits *b, const uint8_t *data, uint64_t bytes, int last)
{
    do {
        uint64_t part = bytes < STORED_MAX ? bytes : STORED_MAX;
        bits_put(b, last && part == bytes, 3);
        bits_put(b, 0, (8 - b->count) & 7);
        bits_put(b, (uint32_t)part, 16);
        bits_put(b, (uint32_t)~part & 0xffff, 16);
        memcpy(b->at, data, part);
        b->at += part;
        data += part;
        bytes -= part;
    } while (bytes > 0);
}

static void block_put(struct bits *b, const struct segment *s, const uint8_t *data, uint64_t first,
                      uint64_t end, const struct run *runs, int last)
{
    struct table t = {0};
    struct header h;
    uint64_t bits = HEADER_BITS_MAX + s->extra_bits + s->runs;
    huffman_lengths(s->frequency, SYMBOLS, LENGTH_MAX, t.length);
    huffman_codes(t.length, SYMBOLS, t.code);
    t.length[SYMBOLS] = s->runs > 0;
    for (uint32_t i = 0; i < SYMBOLS; i++)
        bits += (uint64_t)s->frequency[i] * t.length[i];
    if (bits >= 8 * (end - first)) {
        stored_put(b, data + first, end - first, last);
        return;
    }
    header_make(&h, &t);
    bits_put(b, (uint32_t)(last ? 1 : 0) | 2u << 1, 3);
    header_put(b, &h);
    symbols_put(b, &t, data, first, end, runs, s->runs);
}

/* In eight counts a byte: neighbours are mostly the same, and one count would make each wait for
 * the one before. At most SEGMENT bytes, so that a count fits 16 bits. */
static void frequencies_count(const uint8_t *data, uint64_t bytes, uint32_t *frequency)
{
    uint16_t eight[8][256] = {{0}};
    uint64_t i = 0, next;
    for (; i + 8 <= bytes; i += 8) {
        memcpy(&next, data + i, sizeof next);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++)
            eight[k][next >> 8 * k & 0xff]++;
    }
    for (; i < bytes; i++)
        eight[0][data[i]]++;
    for (int j = 0; j < 8; j++)
        for (uint32_t k = 0; k < 256; k++)
            frequency[k] += eight[j][k];
}

/* How long a run of each byte has to be to take fewer bits as a match: about 9, with its length's
 * and its distance's. */
static void run_lengths(const uint32_t *frequency, uint32_t total, uint32_t *least)
{
    for (uint32_t k = 0; k < 256; k++) {
        float bits = frequency[k] ? log2f((float)total / (float)frequency[k]) : 8;
        uint32_t length = (uint32_t)(9 / (bits > 1 ? bits : 1)) + 1;
        least[k] = length > RUN_MIN ? length : RUN_MIN;
    }
}

/* The first place from `i` on where four bytes are what the one before is; `end` when there is
 * none. */
static uint64_t run_find(const uint8_t *data, uint64_t i, uint64_t end)
{
#ifdef __SSE2__
    for (; i + 16 <= end; i += 13) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(data + i));
        __m128i before = _mm_loadu_si128((const __m128i *)(const void *)(data + i - 1));
        uint32_t same = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(here, before));
        same &= same >> 1;
        same &= same >> 2;
        if (same)
            return i + (uint64_t)__builtin_ctz(same);
    }
#endif
    for (; i + RUN_MIN <= end; i++) {
        uint32_t four;
        memcpy(&four, data + i, sizeof four);
        if (four == data[i - 1] * 0x01010101u)
            return i;
    }
    return end;
}

/* The runs of [first, end) that are worth it, and what the segment then counts. */
static void segment_read(struct segment *s, const uint8_t *data, uint64_t first, uint64_t end,
                         struct run *runs)
{
    uint32_t least[256], length, extra;
    memset(s, 0, sizeof *s);
    frequencies_count(data + first, end - first, s->frequency);
    s->frequency[END] = 1;
    run_lengths(s->frequency, (uint32_t)(end - first), least);
    for (uint64_t i = first + 1; (i = run_find(data, i, end)) < end; i += length) {
        for (length = RUN_MIN;
             i + length < end && length < RUN_MAX && data[i + length] == data[i - 1];)
            length++;
        if (length >= least[data[i]]) {
            runs[s->runs++] = (struct run){(uint32_t)i, length};
            s->frequency[data[i]] -= length;
            s->frequency[length_symbol(length, &extra)]++;
            s->extra_bits += extra;
        }
    }
}

/* Bits of a block of these counts with a table of its own, about. */
static float segment_bits(const struct segment *s)
{
    float total = 0, bits = 0, symbols = 0;
    for (uint32_t k = 0; k < SYMBOLS; k++) {
        if (!s->frequency[k])
            continue;
        float count = (float)s->frequency[k];
        total += count;
        symbols++;
        bits -= count * log2f(count);
    }
    return bits + total * log2f(total) + (float)(s->extra_bits + s->runs) + 60 +
           4 * symbols; /* the table's description */
}

static void segments_join(struct segment *to, const struct segment *other)
{
    for (uint32_t k = 0; k < SYMBOLS; k++)
        to->frequency[k] += other->frequency[k];
    to->frequency[END] = 1;
    to->extra_bits += other->extra_bits;
    to->runs += other->runs;
}

uint64_t huffman_bound(uint64_t bytes)
{
    /* every block is at most its data and a stored block's header for each 64 KiB; then the
     * stream's ends, and what bits_flush writes ahead */
    return bytes + (bytes / SEGMENT + 1) * 8 + 32;
}

/* Blocks one after the other: one grows while the next segment is cheaper inside it than on its
 * own. `runs` has room for those of all segments. */
static void blocks_put(struct bits *b, const uint8_t *data, uint64_t bytes, struct run *runs)
{
    struct segment block, next, both;
    uint64_t first = 0, end = bytes < SEGMENT ? bytes : SEGMENT;
    segment_read(&block, data, 0, end, runs);
    float cost = segment_bits(&block);
    while (end < bytes) {
        uint64_t next_end = bytes - end < SEGMENT ? bytes : end + SEGMENT;
        segment_read(&next, data, end, next_end, runs + block.runs);
        both = block;
        segments_join(&both, &next);
        float alone = segment_bits(&next), joined = segment_bits(&both);
        if (joined <= cost + alone) {
            block = both;
            cost = joined;
        } else {
            block_put(b, &block, data, first, end, runs, 0);
            memmove(runs, runs + block.runs, next.runs * sizeof *runs);
            first = end;
            block = next;
            cost = alone;
        }
        end = next_end;
    }
    block_put(b, &block, data, first, bytes, runs, 1);
}

uint64_t huffman_pack(const uint8_t *data, uint64_t bytes, uint8_t *packed)
{
    struct run runs[HUFFMAN_BYTES_MAX / RUN_MIN];
    struct bits b = {.at = packed};
    uint32_t sum = libdeflate_adler32(1, data, bytes);
    ensure(bytes <= HUFFMAN_BYTES_MAX);
    bits_put(&b, 0x78, 8);
    bits_put(&b, 0x01, 8);
    if (bytes == 0)
        stored_put(&b, data, 0, 1);
    else
        blocks_put(&b, data, bytes, runs);
    bits_put(&b, 0, (8 - b.count) & 7);
    for (int shift = 24; shift >= 0; shift -= 8)
        bits_put(&b, sum >> shift & 0xff, 8);
    ensure((uint64_t)(b.at - packed) <= huffman_bound(bytes));
    return (uint64_t)(b.at - packed);
}
