/* megabatch.c - see megabatch.h.
 *
 * Spans are copied as they stand in their slots, so that every layout looks the same here and in
 * the arena. Filling goes on whenever rows are asked for or sought; a span is copied when it has
 * come, never waited for.
 */
#include "trainerd/megabatch.h"

#include <stdlib.h>
#include <string.h>

#include "proto/opened.h"

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

static int memory_open(struct megabatch *m, struct err *e)
{
    static const char what[] = "the mega-batch";
    const struct device *d = m->size.device;
    int result = d ? device_reserve(d, m->size.bytes, what, &m->at, e)
                   : region_open_later(&m->region, m->size.bytes, what, e);
    if (!d)
        m->at = m->region.at;
    return result;
}

int megabatch_open(struct megabatch *m, struct feed *f, const struct megabatch_size *size,
                   struct err *e)
{
    const struct order *o = &f->info.order;
    *m = (struct megabatch){.feed = f, .size = *size, .spans = order_spans(o)};
    if (size->kind == MEGABATCH_ARENA)
        return 0;
    if (memory_open(m, e) < 0)
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
    if (m->size.device)
        m->size.device->release(m->at); /* when the copies under way are done */
    region_close(&m->region);
    free(m->chunk_place);
    *m = (struct megabatch){0};
}

int megabatch_complete(const struct megabatch *m)
{
    return m->size.kind == MEGABATCH_WHOLE && m->done == m->spans;
}

int megabatch_busy(const struct megabatch *m)
{
    return m->done < m->held;
}

/* Of span number `index` from m->first on. Rooms are used in turn. */
static char *span_room(const struct megabatch *m, uint64_t index)
{
    uint64_t room = m->size.kind == MEGABATCH_WHOLE ? index : (m->first + index) % m->size.spans;
    return (char *)m->at + room * m->size.span_bytes;
}

/* A later copy may have it since: then that one is waited for, too. */
static int copy_mark_of(const struct megabatch *m, uint64_t copy)
{
    return m->size.mark + (int)(copy % MEGABATCH_MARKS);
}

static void span_copy(struct megabatch *m, const char *from)
{
    const struct device *d = m->size.device;
    uint64_t bytes = opened_span_bytes(&m->feed->consumer.opened);
    char *to = span_room(m, m->held);
    if (!d) {
        memcpy(to, from, bytes);
        m->done++;
    } else {
        d->copy_in(to, from, bytes);
        d->copy_mark(copy_mark_of(m, m->copies));
    }
    m->copies++;
    m->held++;
}

/* What computes from here on with the span's rows waits for its copy. */
static void span_await(struct megabatch *m, uint64_t index)
{
    uint64_t copy = m->copies - m->held + index;
    if (!m->size.device || copy < m->awaited)
        return;
    m->size.device->copy_await(copy_mark_of(m, copy));
    m->awaited = copy + 1;
}

/* Copies from here on wait for what was asked of rows until now: their room is used again. */
static void rooms_reuse(struct megabatch *m)
{
    if (!m->size.device)
        return;
    m->size.device->compute_mark(m->size.mark);
    m->size.device->compute_await(m->size.mark);
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

/* The feed reads from the next span that is missing, or still being copied, on: each slot goes back
 * as soon as it can. */
static void feed_follow(struct megabatch *m)
{
    uint64_t next = m->first + m->done;
    if (m->size.kind == MEGABATCH_WHOLE)
        feed_seek_span(m->feed, m->epoch, next % m->spans, m->epoch);
    else if (next < m->spans)
        feed_seek_span(m->feed, m->epoch, next, m->last_epoch);
    else if (m->epoch < m->last_epoch)
        feed_seek_span(m->feed, m->epoch + 1, 0, m->last_epoch);
}

/* Waits for the copies of the first `count` held spans: their slots go back. */
static void copies_wait(struct megabatch *m, uint64_t count)
{
    if (m->size.device && m->done < count)
        m->size.device->copy_wait(copy_mark_of(m, m->copies - m->held + count - 1));
    m->done = m->done < count ? count : m->done;
}

/* Copies that have ended since: their slots may be filled again. */
static void copies_end(struct megabatch *m)
{
    uint64_t before = m->done;
    while (m->size.device && m->done < m->held &&
           m->size.device->copy_done(copy_mark_of(m, m->copies - m->held + m->done)))
        m->done++;
    if (m->done > before && !megabatch_complete(m))
        feed_follow(m);
}

/* Copies what has come. */
static void fill(struct megabatch *m)
{
    const struct order *o = &m->feed->info.order;
    int whole = m->size.kind == MEGABATCH_WHOLE;
    if (!m->begun || megabatch_complete(m))
        return;
    copies_end(m);
    while (m->held < m->size.spans && m->held - m->done < MEGABATCH_MARKS) {
        uint64_t span = m->first + m->held;
        if (span >= m->spans && !whole)
            break;
        span %= m->spans;
        const char *from = feed_span(m->feed, m->epoch, span);
        if (!from)
            break;
        span_copy(m, from);
        if (m->chunk_place)
            chunks_note(m, span);
        int window_ends = span % o->window_spans == o->window_spans - 1 || span == m->spans - 1;
        if (window_ends && !m->size.device && !megabatch_complete(m))
            feed_follow(m); /* a window less in the arena: the next ones may come */
    }
}

int megabatch_is_filled(struct megabatch *m)
{
    if (m->size.kind != MEGABATCH_WHOLE || !m->begun)
        return 1;
    fill(m);
    return m->held == m->spans;
}

void megabatch_rest(struct megabatch *m, int anyway)
{
    int all = m->size.kind == MEGABATCH_WHOLE && m->held == m->spans;
    if (!all && !anyway)
        return;
    copies_wait(m, m->held);
    feed_rest(m->feed);
}

int megabatch_go_on(struct megabatch *m)
{
    struct err kept; /* by the feed */
    if (!m->size.device || !m->begun || m->done == m->size.spans || megabatch_complete(m) ||
        feed_pump(m->feed, &kept) < 0)
        return 0;
    fill(m);
    return 1;
}

static void begin(struct megabatch *m, uint64_t epoch, uint64_t window)
{
    copies_wait(m, m->held);
    m->begun = 1;
    m->epoch = epoch;
    m->first = window * m->feed->info.order.window_spans;
    m->held = m->done = 0;
    rooms_reuse(m);
    feed_follow(m);
}

/* WINDOWS: the spans before that one are used up. */
static void drop(struct megabatch *m, uint64_t span)
{
    uint64_t count = span - m->first;
    if (m->size.kind == MEGABATCH_WHOLE || !count)
        return;
    copies_wait(m, count);
    m->first = span;
    m->held -= count;
    m->done -= count;
    rooms_reuse(m);
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
                     (epoch == m->epoch && span >= m->first && span - m->first <= m->held));
    if (within)
        drop(m, span);
    else
        begin(m, epoch, window);
    fill(m);
    if (!megabatch_complete(m))
        feed_follow(m); /* it may have rested */
}

/* Is all of the window here that this span of m->epoch is of? Rows in pieces of a few would cost
 * more than what is won by taking them early. */
static int window_is_held(const struct megabatch *m, uint64_t span)
{
    const struct order *o = &m->feed->info.order;
    uint64_t first = span / o->window_spans * o->window_spans, last = first + o->window_spans - 1;
    last = last < m->spans ? last : m->spans - 1;
    return span_index(m, first) < m->held && span_index(m, last) < m->held;
}

/* Where the row at `position` lies; 0 if it is not to be had yet. */
static int row_find(struct megabatch *m, uint64_t epoch, uint64_t position, struct feed_row *row)
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
    if (m->held < m->spans && !window_is_held(m, at.span))
        return 0;
    uint64_t index = span_index(m, at.span);
    span_await(m, index);
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
