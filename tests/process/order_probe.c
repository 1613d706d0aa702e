/* order_probe.c - a consumer of loaderd that tells in which order it was given which rows.
 *
 *   order_probe RUN FILE SPLIT state=FILE [key=value ...]
 *       epochs=1 batch=64 shuffle=1 slots=0 span_rows=0 limit_mb=256  dies_at=ROWS
 * kills=ROWS,ROWS...
 *
 * A loaderd must serve RUN. After every batch the rows read so far, a hash of their sequence and
 * their order-independent digest are written to the state file: a probe that finds one goes on from
 * there. Counted in rows of all epochs: at each of `kills` it kills loaderd, at `dies_at` itself,
 * before that batch is written if the number is odd.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "proto/rowhash.h"
#include "proto/run.h"
#include "tests/probe.h"

enum { RESTART_MS = 10 }; /* between looks for a loaderd that is not back yet */

struct state {
    uint64_t rows, order, digest;
};

static void state_write(int fd, const struct state *s)
{
    if (pwrite(fd, s, sizeof *s, 0) != (ssize_t)sizeof *s)
        probe_fail("cannot write the state file");
}

/* One more row: its hash is linked to those before it. */
static void row_take(const struct feed *f, struct state *s, struct feed_row row)
{
    const struct msg_field_info *x = &f->info.features[0], *y = &f->info.targets;
    struct rowhash_field fields[2] = {{feed_field(x, row), x->row_bytes}};
    if (y->name[0])
        fields[1] = (struct rowhash_field){feed_field(y, row), y->row_bytes};
    uint64_t hash = rowhash_sum(fields, 1 + (y->name[0] != 0), 1);
    s->order = order_key(s->order, hash);
    s->digest += hash;
    s->rows++;
}

/* Kill loaderd as often as that is due; returns what is left of `kills`. */
static const char *kills_turn(struct feed *f, const char *kills, uint64_t rows)
{
    char *rest;
    pid_t pid;
    while (kills && *kills && rows >= strtoull(kills, &rest, 10)) {
        while ((pid = run_lock_holder("loaderd")) <= 0 || kill(pid, SIGKILL) != 0)
            probe_wait(f, RESTART_MS);
        while (run_lock_holder("loaderd") == pid) /* it does not die at once */
            probe_wait(f, RESTART_MS);
        kills = rest + (*rest == ',');
    }
    return kills;
}

/* Up to one batch from where *s stands; how many rows came. */
static uint64_t batch_read(struct feed *f, struct state *s, uint64_t batch, uint64_t epochs)
{
    uint64_t rows = f->info.order.rows, epoch = s->rows / rows, at = s->rows % rows;
    uint64_t wanted = rows - at < batch ? rows - at : batch;
    struct feed_row *row = malloc(wanted * sizeof *row);
    if (!row)
        probe_fail("no memory for a batch");
    feed_seek(f, epoch, at, epochs - 1);
    uint64_t got = feed_rows(f, epoch, at, wanted, row);
    for (uint64_t i = 0; i < got; i++)
        row_take(f, s, row[i]);
    free(row);
    return got;
}

int main(int argc, char **argv)
{
    const char *path = argc < 4 ? NULL : probe_text(argc, argv, "state");
    struct state s = {0};
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || chdir(argv[1]) != 0)
        probe_fail("usage: order_probe RUN FILE SPLIT state=FILE [key=value ...]");
    if (pread(fd, &s, sizeof s, 0) < 0)
        probe_fail("cannot read the state file");
    struct feed_config config = probe_config(argc, argv);
    uint64_t epochs = probe_number(argc, argv, "epochs", 1);
    uint64_t batch = probe_number(argc, argv, "batch", 64);
    uint64_t dies_at = probe_number(argc, argv, "dies_at", UINT64_MAX);
    const char *kills = probe_text(argc, argv, "kills");
    struct feed *f = calloc(1, sizeof *f);
    if (!f)
        probe_fail("no memory for a feed");
    feed_open(f, &config);
    while (!feed_ready(f))
        probe_wait(f, FEED_IDLE_MS);
    while (s.rows < epochs * f->info.order.rows) {
        uint64_t came = batch_read(f, &s, batch, epochs);
        kills = kills_turn(f, kills, s.rows);
        if (s.rows >= dies_at && dies_at % 2)
            raise(SIGKILL);
        state_write(fd, &s);
        if (s.rows >= dies_at)
            raise(SIGKILL);
        if (!came)
            probe_wait(f, FEED_IDLE_MS);
    }
    printf("{\"rows\": %" PRIu64 ", \"order\": \"%016" PRIx64 "\", \"digest\": \"%016" PRIx64
           "\"}\n",
           s.rows, s.order, s.digest);
    feed_close(f);
    free(f);
    close(fd);
    return 0;
}
