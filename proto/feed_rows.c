/* feed_rows.c - see feed.h: from positions of an epoch to rows in the arena.
 *
 * A row can be read when every span of its window is READY, since the order of rows mixes the whole
 * window. The window read last is remembered with its spans' addresses, so that a batch costs one
 * permutation and one division a row. Seeking is an event for consumer.c like any other.
 */
#include "proto/feed_private.h"

void feed_seek(struct feed *f, uint64_t epoch, uint64_t position, uint64_t last_epoch)
{
    const struct order *o = &f->info.order;
    ensure(f->info_set && position <= o->rows);
    if (position == o->rows) {
        epoch++;
        position = 0;
    }
    feed_seek_span(f, epoch, order_window_of(o, position) * o->window_spans, last_epoch);
}

void feed_seek_span(struct feed *f, uint64_t epoch, uint64_t span, uint64_t last_epoch)
{
    const struct consumer_cursor *now = &f->consumer.cursor;
    struct consumer_event event = {
        .type = CONSUMER_EV_CURSOR,
        .now_ms = feed_clock_ms(),
        .cursor = {.epoch = epoch, .span = span, .last_epoch = last_epoch}};
    ensure(f->info_set);
    f->resting = 0;
    if (f->failure.code || (f->consumer.cursor_set && now->epoch == epoch && now->span == span &&
                            now->last_epoch == last_epoch))
        return;
    f->window.valid = 0; /* its slots may be freed now */
    feed_step(f, &event);
}

const char *feed_span(const struct feed *f, uint64_t epoch, uint64_t span)
{
    int slot = consumer_find(&f->consumer, epoch, span);
    return slot < 0 ? NULL : feed_slot_span(f, (uint64_t)slot);
}

/* Makes f->window the window that holds `position`. 1, or 0 if one of its spans is missing. */
static int window_find(struct feed *f, uint64_t epoch, uint64_t position)
{
    const struct order *o = &f->info.order;
    struct feed_window *w = &f->window;
    uint64_t window = order_window_of(o, position);
    if (w->valid && w->epoch == epoch && w->window == window)
        return 1;
    w->valid = 0;
    w->rows = order_window_rows(o, window);
    uint64_t first_span = window * o->window_spans, missing = order_window_spans(o, window);
    uint64_t spans = missing;
    for (uint64_t i = 0; i < f->consumer.config.slots; i++) {
        const struct slot *slot = &f->consumer.slots[i];
        if (slot->state != SLOT_READY || slot->epoch != epoch || slot->span < first_span ||
            slot->span - first_span >= spans)
            continue;
        w->spans[slot->span - first_span] = feed_slot_span(f, i);
        missing--;
    }
    if (missing)
        return 0;
    w->epoch = epoch;
    w->window = window;
    w->first_row = order_window_first(o, window);
    w->key = order_window_key(o, epoch, window);
    w->valid = 1;
    return 1;
}

/* Fills from f->window until it or `count` ends; returns how many. */
static uint64_t window_fill(const struct feed *f, uint64_t position, uint64_t count,
                            struct feed_row *rows)
{
    const struct feed_window *w = &f->window;
    const struct order *o = &f->info.order;
    uint64_t first = position - w->first_row;
    if (count > w->rows - first)
        count = w->rows - first;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = first + i;
        if (o->shuffle)
            place = order_permute(w->key, w->rows, place);
        struct order_row at = order_window_place(o, place);
        rows[i] = (struct feed_row){w->spans[at.span], at.row};
    }
    return count;
}

uint64_t feed_rows(struct feed *f, uint64_t epoch, uint64_t position, uint64_t count,
                   struct feed_row *rows)
{
    uint64_t done = 0;
    ensure(f->info_set && position + count <= f->info.order.rows);
    while (done < count && window_find(f, epoch, position + done))
        done += window_fill(f, position + done, count - done, rows + done);
    return done;
}

const void *feed_items(const struct feed *f, const struct msg_field_info *field,
                       struct feed_row row, uint64_t *count)
{
    const struct msg_field_info *pointer =
        span_field(f->info.fields, f->info.field_count, field->pointer);
    ensure(pointer);
    const volatile uint64_t *at = feed_field(pointer, row); /* another process may write there */
    uint64_t first = at[0], end = at[1];
    int within = first <= end && end <= field->items_max;
    *count = within ? end - first : 0;
    return within ? row.span + field->offset + first * field->row_bytes : NULL;
}

struct feed_graph feed_graph(const struct feed *f, struct feed_row row)
{
    const struct feed_info *i = &f->info;
    struct feed_graph g = {0};
    uint64_t ends, features = 0;
    g.nodes = feed_items(f, &i->features[0], row, &g.node_count);
    g.sources = feed_items(f, &i->edge_source, row, &g.edge_count);
    g.targets = feed_items(f, &i->edge_target, row, &ends);
    if (i->edge_features.name[0])
        g.edge_features = feed_items(f, &i->edge_features, row, &features);
    /* each was read from the pointer once: between two readings it may have changed */
    if (ends != g.edge_count || (i->edge_features.name[0] && features != g.edge_count))
        return (struct feed_graph){0};
    return g;
}
