/* order.c - see order.h: the one place that decides which row stands where.
 *
 * A keyed permutation of 0 .. n-1 is a balanced Feistel network over the next even power of two
 * (two halves of h bits, 4^h >= n), walked until it lands below n. The walk ends because the
 * network is a bijection and began below n; it takes fewer than 4 turns on average. Integer
 * arithmetic modulo 2^64 only, so every machine and compiler gives the same: a changed constant
 * changes every run's data, and the golden vector in the tests says so.
 */
#include "proto/order.h"

#include "proto/err.h"

#define GOLDEN 0x9e3779b97f4a7c15ull /* 2^64 / golden ratio: step of splitmix64 */

enum { FEISTEL_ROUNDS = 6 };

/* Domains of keys: the same seed gives unrelated permutations for each use. */
enum { KEY_CHUNKS = 1, KEY_ROWS = 2, KEY_FEATURES = 3 };

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection. */
static inline uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t order_hash(const void *data, uint64_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (const unsigned char *at = data, *end = at + bytes; at < end; at++)
        hash = (hash ^ *at) * 0x100000001b3ull;
    return hash;
}

uint64_t order_key(uint64_t a, uint64_t b)
{
    return mix(b + mix(a + GOLDEN));
}

uint64_t order_permute(uint64_t key, uint64_t n, uint64_t i)
{
    ensure(i < n);
    if (n == 1)
        return 0;
    /* bits of n-1, halved upwards */
    unsigned half = (65u - (unsigned)__builtin_clzll(n - 1)) / 2;
    uint64_t mask = half == 32 ? 0xffffffffull : (1ull << half) - 1;
    uint64_t first = mix(key + GOLDEN);
    do {
        uint64_t left = i >> half, right = i & mask, round = first;
        for (int r = 0; r < FEISTEL_ROUNDS; r++, round += GOLDEN) {
            /* the upper bits of the mix are its best */
            uint64_t next = left ^ (mix(round + right) >> (64 - half));
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

/* Rows of the piece `index` when `rows` are cut into pieces of `piece` rows. */
static uint64_t piece_rows(uint64_t rows, uint64_t piece, uint64_t index)
{
    uint64_t first = index * piece;
    ensure(first < rows);
    return rows - first < piece ? rows - first : piece;
}

/* Without streams the file is one part, whose windows have W spans each. */
static uint64_t parts(const struct order *o)
{
    return o->streams ? o->streams : 1;
}

/* Of a part that is not one of the first, which have a row more where parts_longer is not 0. */
static uint64_t part_rows(const struct order *o)
{
    return o->rows / parts(o);
}

static uint64_t parts_longer(const struct order *o)
{
    return o->rows % parts(o);
}

/* Rows of a part that lie in one window. */
static uint64_t window_part_rows(const struct order *o)
{
    return o->span_rows * (o->streams ? 1 : o->window_spans);
}

uint64_t order_spans(const struct order *o)
{
    uint64_t rows = part_rows(o);
    uint64_t longer = rows % o->span_rows ? 0 : parts_longer(o); /* whose last row is a span */
    return parts(o) * ((rows + o->span_rows - 1) / o->span_rows) + longer;
}

uint64_t order_windows(const struct order *o)
{
    uint64_t rows = window_part_rows(o);
    return (part_rows(o) + (parts_longer(o) > 0) + rows - 1) / rows;
}

uint64_t order_span_rows(const struct order *o, uint64_t span)
{
    uint64_t longer = span % parts(o) < parts_longer(o);
    return piece_rows(part_rows(o) + longer, o->span_rows, span / parts(o));
}

uint64_t order_window_rows(const struct order *o, uint64_t window)
{
    uint64_t rows = window_part_rows(o), first = window * rows;
    uint64_t longer = part_rows(o) / rows == window ? parts_longer(o) : 0;
    return parts(o) * (part_rows(o) > first ? piece_rows(part_rows(o), rows, window) : 0) + longer;
}

uint64_t order_window_of(const struct order *o, uint64_t position)
{
    return position / (parts(o) * window_part_rows(o));
}

uint64_t order_window_first(const struct order *o, uint64_t window)
{
    return window * parts(o) * window_part_rows(o);
}

uint64_t order_window_spans(const struct order *o, uint64_t window)
{
    if (o->streams)
        return part_rows(o) > window * o->span_rows ? o->streams : parts_longer(o);
    return (order_window_rows(o, window) - 1) / o->span_rows + 1;
}

uint64_t order_span_first(const struct order *o, uint64_t span)
{
    ensure(!o->shuffle);
    uint64_t part = span % parts(o), longer = parts_longer(o);
    return part * part_rows(o) + (part < longer ? part : longer) + span / parts(o) * o->span_rows;
}

uint64_t order_chunk_at(const struct order *o, uint64_t epoch, uint64_t place)
{
    uint64_t full = o->rows / o->chunk_rows;
    if (!o->shuffle || place >= full) {
        ensure(place < full || (place == full && o->rows % o->chunk_rows));
        return place;
    }
    return order_permute(order_key(order_key(o->seed, KEY_CHUNKS), epoch), full, place);
}

int order_run_next(const struct order *o, uint64_t epoch, uint64_t span, struct order_run *run)
{
    uint64_t span_rows = order_span_rows(o, span), at = run->at + run->rows;
    uint64_t place = span * (o->span_rows / o->chunk_rows) + at / o->chunk_rows;
    *run = (struct order_run){.at = at};
    if (at < span_rows && !o->shuffle) {
        run->first = order_span_first(o, span);
        run->rows = span_rows;
    }
    for (; at < span_rows && o->shuffle; place++) {
        uint64_t first = order_chunk_at(o, epoch, place) * o->chunk_rows;
        if (run->rows && first != run->first + run->rows)
            break;
        if (!run->rows)
            run->first = first;
        uint64_t rows = piece_rows(o->rows, o->chunk_rows, first / o->chunk_rows);
        run->rows += rows;
        at += rows;
    }
    return run->rows > 0;
}

uint64_t order_window_key(const struct order *o, uint64_t epoch, uint64_t window)
{
    return order_key(order_key(order_key(o->seed, KEY_ROWS), epoch), window);
}

struct order_row order_window_place(const struct order *o, uint64_t place)
{
    if (o->streams)
        return (struct order_row){.span = place % o->streams, .row = place / o->streams};
    return (struct order_row){.span = place / o->span_rows, .row = place % o->span_rows};
}

struct order_row order_row_at(const struct order *o, uint64_t epoch, uint64_t position)
{
    ensure(position < o->rows);
    uint64_t window = order_window_of(o, position);
    uint64_t place = position - order_window_first(o, window);
    if (o->shuffle)
        place =
            order_permute(order_window_key(o, epoch, window), order_window_rows(o, window), place);
    struct order_row at = order_window_place(o, place);
    at.span += window * o->window_spans;
    return at;
}

uint64_t order_file_row(const struct order *o, uint64_t epoch, uint64_t position)
{
    struct order_row at = order_row_at(o, epoch, position);
    if (!o->shuffle)
        return order_span_first(o, at.span) + at.row;
    uint64_t row = at.span * o->span_rows + at.row;
    return order_chunk_at(o, epoch, row / o->chunk_rows) * o->chunk_rows + row % o->chunk_rows;
}

void order_features(uint64_t seed, uint32_t features, uint32_t *out)
{
    uint64_t key = order_key(seed, KEY_FEATURES);
    for (uint32_t j = 0; j < features; j++)
        out[j] = (uint32_t)order_permute(key, features, j);
}
