/* test_sequences.c - rows cut into sequences: each row once, behind the row it goes on from. */
#include "tests/test.h"
#include "trainerd/sequences.h"

enum { ROWS = 400 };

static uint16_t begins[ROWS];

/* A block: in the streams' states stands the row that was there last. */
static void block_check(const struct sequences *q, uint64_t at, int64_t *state, int *seen)
{
    state[q->to] = state[q->from];
    for (uint64_t k = 0, count; (count = sequences_with(q, k)) > 0; k++)
        for (uint64_t i = 0; i < count; i++) {
            uint64_t row = at + q->all[i].first + k;
            CHECK(row < at + q->block_rows && !seen[row]++);
            CHECK(begins[row] || state[i] == (int64_t)row - 1);
            state[i] = (int64_t)row;
        }
}

static void rows_check(uint64_t streams, uint64_t rows_max)
{
    struct sequences q;
    struct err e;
    int64_t state[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    int seen[ROWS] = {0};
    const struct msg_field_info field = {.name = "begins", .row_bytes = sizeof *begins};
    CHECK_OK(sequences_open(&q, streams, rows_max, &e), e);
    for (uint64_t at = 0; at < ROWS; at += q.block_rows) {
        uint64_t count = ROWS - at < rows_max ? ROWS - at : 1 + test_random() % rows_max;
        for (uint64_t i = 0; i < count; i++)
            q.rows[i] = (struct feed_row){(const char *)begins, at + i};
        sequences_cut(&q, &field, count);
        CHECK(q.block_rows > 0 && q.block_rows <= count && q.count <= streams);
        CHECK(q.block_rows == count || (q.count == streams && begins[at + q.block_rows]));
        block_check(&q, at, state, seen);
    }
    for (int r = 0; r < ROWS; r++)
        CHECK(seen[r]);
    sequences_close(&q);
    sequences_close(&q);
}

TEST(rows_are_cut_into_sequences_that_go_on)
{
    for (int every = 1; every <= 64; every *= 4)
        for (uint64_t streams = 1; streams <= 8; streams += 7)
            for (uint64_t rows_max = 1; rows_max <= 121; rows_max += 40) {
                for (int r = 0; r < ROWS; r++)
                    begins[r] = test_random() % (uint64_t)every ? 0 : 256;
                rows_check(streams, rows_max);
            }
}

TEST(where_no_row_begins_there_is_one_sequence)
{
    struct sequences q;
    struct err e;
    CHECK_OK(sequences_open(&q, 4, 10, &e), e);
    sequences_cut(&q, &(struct msg_field_info){0}, 10);
    CHECK(q.count == 1 && q.block_rows == 10 && sequences_with(&q, 9) == 1);
    CHECK_EQ(sequences_with(&q, 10), 0);
    sequences_close(&q);
}
