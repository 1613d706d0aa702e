/* megabatch.c - see megabatch.h.
 *
 * Spans are copied as they stand in their slots, so that every layout looks the same here and in
 * the arena. Filling goes on whenever rows are asked for or sought; a span is copied when it has
 * come, never waited for.
 */
#include "trainerd/megabatch.h"

#include <stdlib.h>
#include <string.h>

enum { SPAN_ALIGNMENT = 64 };

uint64_t megabatch_samples(uint64_t chunk_bytes, uint64_t sample_bytes, uint64_t rows,
                           uint64_t batch_rows)
{
    uint64_t samples = chunk_bytes / sample_bytes;
    if (samples < batch_rows)
        samples = batch_rows;
    return samples < rows ? samples : rows;
}

struct megabatch_size megabatch_size_make(uint64_t spans, uint64_t span_bytes_max,
                                          uint64_t window_spans, uint64_t chunk_bytes)
{
    struct megabatch_size size = {.kind = MEGABATCH_WHOLE, .spans = spans};
    size.span_bytes = (span_bytes_max + SPAN_ALIGNMENT - 1) / SPAN_ALIGNMENT * SPAN_ALIGNMENT;
    uint64_t fit = chunk_bytes / size.span_bytes;
    if (fit < spans) {
        size.kind = MEGABATCH_WINDOWS;
        size.spans = fit / window_spans * window_spans;
    }
    if (!size.spans)
        return (struct megabatch_size){.kind = MEGABATCH_ARENA};
    size.bytes = region_bytes(size.spans * size.span_bytes);
    return size;
}

int megabatch_open(struct megabatch *m, struct feed *f, const struct megabatch_size *size,
                   struct err *e)
{
    const struct order *o = &f->info.order;
    *m = (struct megabatch){.feed = f, .size = *size, .spans = order_spans(o)};
    if (size->kind == MEGABATCH_ARENA)
        return 0;
    if (region_open(&m->region, size->bytes, "the mega-batch", e) < 0)
        return -1;
    if (size->kind == MEGABATCH_WHOLE && o->shuffle) {
        uint64_t chunks = (o->rows - 1) / o->chunk_rows + 1;
        ensure(chunks <= UINT32_MAX);
        m->chunk_place = malloc(chunks * sizeof *m->chunk_place);
        if (!m->chunk_place)
            return err_errno(e, EXIT_CODE_TEMPORARY, "cannot hold the places of the chunks");
    }
    return 0;
}

void megabatch_close(struct megabatch *m)
{
    region_close(&m->region);
    free(m->chunk_place);
    *m = (struct megabatch){0};
}

int megabatch_complete(const struct megabatch *m)
{
    return m->size.kind == MEGABATCH_WHOLE && m->held == m->spans;
}

static char *span_room(const struct megabatch *m, uint64_t index)
{
    return (char *)m->region.at + index * m->size.span_bytes;
}

/* Which of the held spans that one is; m->held or more if it is not there. */
static uint64_t span_index(const struct megabatch *m, uint64_t span)
{
    if (span >= m->first)
        return span - m->first;
    return m->size.kind == MEGABATCH_WHOLE ? span + m->spans - m->first : m->held;
}

/* The chunks that stand in this span of m->epoch. */
static void chunks_note(struct megabatch *m, uint64_t span)
{
    const struct order *o = &m->feed->info.order;
    uint64_t chunks = (o->rows - 1) / o->chunk_rows + 1, each = o->span_rows / o->chunk_rows;
    for (uint64_t i = span * each; i < (span + 1) * each && i < chunks; i++)
        m->chunk_place[order_chunk_at(o, m->epoch, i)] = (uint32_t)i;
}

/* The feed reads from the next span that is missing on. */
static void feed_follow(struct megabatch *m)
{
    const struct order *o = &m->feed->info.order;
    uint64_t next = m->first + m->held;
    if (m->size.kind == MEGABATCH_WHOLE)
        feed_seek(m->feed, m->epoch, order_window_first(o, next % m->spans / o->window_spans),
                  m->epoch);
    else if (next < m->spans)
        feed_seek(m->feed, m->epoch, order_window_first(o, next / o->window_spans), m->last_epoch);
    else if (m->epoch < m->last_epoch)
        feed_seek(m->feed, m->epoch + 1, 0, m->last_epoch);
}

/* Copies what has come. */
static void fill(struct megabatch *m)
{
    const struct order *o = &m->feed->info.order;
    int whole = m->size.kind == MEGABATCH_WHOLE;
    if (!m->begun || megabatch_complete(m))
        return;
    while (m->held < m->size.spans) {
        uint64_t span = m->first + m->held;
        if (span >= m->spans && !whole)
            break;
        span %= m->spans;
        const char *from = feed_span(m->feed, m->epoch, span);
        if (!from)
            break;
        memcpy(span_room(m, m->held), from, m->feed->consumer.opened.span_bytes_max);
        if (m->chunk_place)
            chunks_note(m, span);
        m->held++;
        int window_ends = span % o->window_spans == o->window_spans - 1 || span == m->spans - 1;
        if (window_ends && !megabatch_complete(m))
            feed_follow(m); /* a window less in the arena: the next ones may come */
    }
    if (megabatch_complete(m))
        feed_rest(m->feed);
}

static void begin(struct megabatch *m, uint64_t epoch, uint64_t window)
{
    m->begun = 1;
    m->epoch = epoch;
    m->first = window * m->feed->info.order.window_spans;
    m->held = 0;
    feed_follow(m);
}

void megabatch_seek(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t last_epoch)
{
    const struct order *o = &m->feed->info.order;
    if (m->size.kind == MEGABATCH_ARENA) {
        feed_seek(m->feed, epoch, position, last_epoch);
        return;
    }
    m->last_epoch = last_epoch;
    if (position == o->rows) {
        epoch++;
        position = 0;
    }
    uint64_t window = order_window_of(o, position), span = window * o->window_spans;
    int within =
        m->begun && (m->size.kind == MEGABATCH_WHOLE ||
                     (epoch == m->epoch && span >= m->first && span - m->first < m->size.spans));
    if (!within)
        begin(m, epoch, window);
    fill(m);
    if (!megabatch_complete(m))
        feed_follow(m); /* it may have rested */
}

/* Where the row at `position` lies; 0 if its span is not here. */
static int row_find(const struct megabatch *m, uint64_t epoch, uint64_t position,
                    struct feed_row *row)
{
    const struct order *o = &m->feed->info.order;
    struct order_row at = order_row_at(o, epoch, position);
    if (m->chunk_place && epoch != m->epoch) {
        uint64_t of_file = order_file_row(o, epoch, position);
        if (m->held < m->spans) /* a chunk's place is noted with its span */
            return 0;
        uint64_t laid = m->chunk_place[of_file / o->chunk_rows] * o->chunk_rows;
        laid += of_file % o->chunk_rows;
        at = (struct order_row){.span = laid / o->span_rows, .row = laid % o->span_rows};
    }
    uint64_t index = span_index(m, at.span);
    if (index >= m->held)
        return 0;
    *row = (struct feed_row){span_room(m, index), at.row};
    return 1;
}

uint64_t megabatch_rows(struct megabatch *m, uint64_t epoch, uint64_t position, uint64_t count,
                        struct feed_row *rows)
{
    uint64_t found = 0;
    if (m->size.kind == MEGABATCH_ARENA)
        return feed_rows(m->feed, epoch, position, count, rows);
    fill(m);
    if (!m->begun || (m->size.kind == MEGABATCH_WINDOWS && epoch != m->epoch))
        return 0;
    while (found < count && row_find(m, epoch, position + found, &rows[found]))
        found++;
    return found;
}
