/* layout_batches.c - see layout.h: how many items a span or a batch of a ragged layout can have.
 *
 * The order is pure, so the batches of a whole run are known before it begins: each epoch's
 * positions are walked window by window, as the consumer will read them, and the rows' items are
 * added up batch by batch.
 */
#include "loaderd/layout.h"

#include <stdlib.h>
#include <string.h>

/* Rows that are walked at most, some 0.1 us each, for batches and for samples: within
 * READER_WALK_CPU_S. */
#define WALK_ROWS_MAX   (1ull << 25)
#define SAMPLE_ROWS_MAX (1ull << 22)

static uint64_t cut_items(const struct source_pointer *cut, uint64_t row, uint64_t rows)
{
    uint64_t last = cut->count - 1, end = last - row < rows ? last : row + rows;
    return cut->at[end] - cut->at[row];
}

uint64_t layout_items_max(const struct source_pointer *cut, const struct order *o)
{
    uint64_t most = 0;
    for (uint64_t span = 0; span < order_spans(o); span++) {
        uint64_t items = cut_items(cut, order_span_first(o, span), order_span_rows(o, span));
        most = items > most ? items : most;
    }
    return most;
}

static int larger_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

int layout_largest_make(struct layout_largest *l, const struct source_pointer *cut,
                        uint64_t chunk_rows, struct err *e)
{
    uint64_t chunks = (cut->count - 2) / chunk_rows + 1;
    uint64_t *sum = malloc(chunks * sizeof *sum);
    if (!sum)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot count the items of %llu chunks: no memory",
                       (unsigned long long)chunks);
    for (uint64_t i = 0; i < chunks; i++)
        sum[i] = cut_items(cut, i * chunk_rows, chunk_rows);
    qsort(sum, chunks, sizeof *sum, larger_first);
    for (uint64_t i = 1; i < chunks; i++)
        sum[i] += sum[i - 1];
    *l = (struct layout_largest){cut, chunks, sum};
    return 0;
}

uint64_t layout_largest_items(const struct layout_largest *l, uint64_t count)
{
    return l->sum[(count < l->chunks ? count : l->chunks) - 1];
}

void layout_largest_free(struct layout_largest *l)
{
    free(l->sum);
    *l = (struct layout_largest){0};
}

/* Most items of any `rows` rows: those of the largest. Their smallest, t, is found by halving. */
static uint64_t largest_rows(const struct source_pointer *cut, uint64_t rows)
{
    uint64_t count = cut->count - 1;
    struct order single = {.rows = count, .span_rows = 1};
    uint64_t low = 0, high = layout_items_max(cut, &single);
    if (rows >= count)
        return cut->at[count];
    while (low < high) { /* the largest t with at least `rows` rows of t items or more */
        uint64_t t = low + (high - low + 1) / 2, found = 0;
        for (uint64_t row = 0; row < count; row++)
            found += cut->at[row + 1] - cut->at[row] >= t;
        if (found >= rows)
            low = t;
        else
            high = t - 1;
    }
    uint64_t sum = 0, more = 0;
    for (uint64_t row = 0; row < count; row++) {
        uint64_t items = cut->at[row + 1] - cut->at[row];
        sum += items > low ? items : 0;
        more += items > low;
    }
    return sum + (rows - more) * low;
}

/* Items of the rows since a batch or slice began, and the most there have been, by cut. */
struct tally {
    uint64_t rows, sum[LAYOUT_CUTS_MAX], most[LAYOUT_CUTS_MAX];
};

struct walk {
    struct order order;
    const struct source_pointer *cut[LAYOUT_CUTS_MAX];
    uint32_t cut_count;
    struct tally batch, slice; /* slice.rows 0: not asked for */
    uint64_t *chunk_first; /* of a window: the file's row with which each of its chunks begins */
};

static void tally_end(struct walk *w, struct tally *t)
{
    for (uint32_t c = 0; c < w->cut_count; c++) {
        t->most[c] = t->sum[c] > t->most[c] ? t->sum[c] : t->most[c];
        t->sum[c] = 0;
    }
}

static void row_add(struct walk *w, uint64_t row, uint64_t *position)
{
    for (uint32_t c = 0; c < w->cut_count; c++) {
        uint64_t items = w->cut[c]->at[row + 1] - w->cut[c]->at[row];
        w->batch.sum[c] += items;
        w->slice.sum[c] += items;
    }
    uint64_t in_batch = ++*position % w->batch.rows;
    if (w->slice.rows && in_batch % w->slice.rows == 0)
        tally_end(w, &w->slice);
    if (in_batch == 0)
        tally_end(w, &w->batch);
}

static void window_walk(struct walk *w, uint64_t epoch, uint64_t window, uint64_t *position)
{
    const struct order *o = &w->order;
    uint64_t rows = order_window_rows(o, window), key = order_window_key(o, epoch, window);
    uint64_t place = window * o->window_spans * (o->span_rows / o->chunk_rows);
    for (uint64_t i = 0; i * o->chunk_rows < rows; i++)
        w->chunk_first[i] = order_chunk_at(o, epoch, place + i) * o->chunk_rows;
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t at = order_permute(key, rows, i);
        row_add(w, w->chunk_first[at / o->chunk_rows] + at % o->chunk_rows, position);
    }
}

static void epoch_walk(struct walk *w, uint64_t epoch)
{
    uint64_t position = 0;
    for (uint64_t window = 0; w->order.shuffle && window < order_windows(&w->order); window++)
        window_walk(w, epoch, window, &position);
    while (position < w->order.rows)
        row_add(w, order_file_row(&w->order, epoch, position), &position);
    tally_end(w, &w->batch);
    if (w->slice.rows)
        tally_end(w, &w->slice);
}

/* Epochs that have to be walked: in file order all are the same. */
static uint64_t epochs_count(const struct reader_open *open)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < open->epoch_count; i++)
        count += open->epochs[i].count;
    return open->shuffle || !count ? count : 1;
}

static int walk_run(struct walk *w, const struct reader_open *open, uint64_t rows_max,
                    struct err *e)
{
    uint64_t left = epochs_count(open), rows = w->order.rows;
    if (left > rows_max / rows) {
        for (uint32_t c = 0; c < w->cut_count; c++) {
            w->batch.most[c] = largest_rows(w->cut[c], w->batch.rows);
            w->slice.most[c] = w->slice.rows ? largest_rows(w->cut[c], w->slice.rows) : 0;
        }
        return 0;
    }
    uint64_t window_rows = w->order.window_spans * w->order.span_rows;
    if (window_rows > rows)
        window_rows = rows;
    w->chunk_first = malloc((window_rows / w->order.chunk_rows + 1) * sizeof *w->chunk_first);
    if (!w->chunk_first)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot walk the batches: no memory");
    for (uint32_t i = 0; i < open->epoch_count; i++)
        for (uint64_t k = 0; k < open->epochs[i].count && left; k++, left--)
            epoch_walk(w, open->epochs[i].first + k);
    free(w->chunk_first);
    return 0;
}

/* The most items of a slice of samples, by cut: in orders like fisherd's, shuffled with windows of
 * one span, whose key nobody knows yet. Rows that lie together in a file may be alike, so such
 * slices differ more than those of longer windows. */
static int samples_walk(const struct walk *of, uint64_t most[LAYOUT_CUTS_MAX], struct err *e)
{
    enum { ORDERS = 8 };
    struct walk w = *of;
    struct reader_open orders = {
        .shuffle = 1, .epoch_count = 1, .epochs = {{.first = 0, .count = ORDERS}}};
    w.order.shuffle = 1;
    w.order.window_spans = 1;
    w.order.streams = 0;
    memset(w.batch.most, 0, sizeof w.batch.most);
    memset(w.slice.most, 0, sizeof w.slice.most);
    int result = walk_run(&w, &orders, SAMPLE_ROWS_MAX, e);
    memcpy(most, w.slice.most, sizeof w.slice.most);
    return result;
}

int layout_batches(const struct reader_open *open, const struct layout *l,
                   struct reader_described *d, struct err *e)
{
    uint64_t samples[LAYOUT_CUTS_MAX] = {0};
    struct walk w = {.order = {.seed = open->seed,
                               .shuffle = open->shuffle,
                               .rows = d->rows,
                               .chunk_rows = d->chunk_rows,
                               .span_rows = d->span_rows,
                               .window_spans = open->window_spans,
                               .streams = d->streams},
                     .batch = {.rows = open->batch_rows},
                     .slice = {.rows = open->slice_rows < open->batch_rows ? open->slice_rows
                                                                           : open->batch_rows}};
    for (uint32_t i = 0; i < d->field_count; i++)
        if (l->field[i].from == LAYOUT_POINTER)
            w.cut[w.cut_count++] = l->field[i].cut;
    if (!w.cut_count || !w.batch.rows || !w.order.window_spans)
        return 0;
    if (walk_run(&w, open, WALK_ROWS_MAX, e) != 0 ||
        (w.slice.rows && samples_walk(&w, samples, e) != 0))
        return -1;
    for (uint32_t i = 0; i < d->field_count; i++)
        for (uint32_t c = 0; c < w.cut_count; c++)
            if (l->field[i].from == LAYOUT_ITEMS && l->field[i].cut == w.cut[c]) {
                d->fields[i].batch_items_max = w.batch.most[c];
                d->fields[i].slice_items_max = w.slice.most[c];
                d->fields[i].sample_items_max = samples[c];
            }
    return 0;
}
