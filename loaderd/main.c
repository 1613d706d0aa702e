/* main.c - loaderd: HDF5 files into the arenas of those who train and estimate.
 *
 * A consumer (trainerd, fisherd) asks for a split of a file over loader.ctl, hands in its arena at
 * loader.door and grants slots; each stream has a reader process, this same program as `loaderd
 * --reader`, which reads and decodes chunks straight into the slots. This process only speaks, so
 * no file can hurt it.
 *
 *   main -> daemon_run -> turn: streams_pump       stream.c   streams, doors, readers' answers
 *                         request: streams_request proto/server.c  what is to be done
 *   main -> --reader: reader_main                  reader.c   what touches the file
 */
#include <stdio.h>
#include <string.h>

#include "loaderd/describe.h"
#include "loaderd/reader.h"
#include "loaderd/reader_base.h"
#include "loaderd/stream.h"

enum { TICK_MS = 1000 };

struct loaderd {
    struct streams streams;
};

static int start(void *self, struct daemon *d, struct err *e)
{
    struct loaderd *l = self;
    return streams_open(&l->streams, d, e);
}

static int turn(void *self, struct daemon *d, int *sleep_ms, struct err *e)
{
    struct loaderd *l = self;
    int streams = 0;
    (void)e;
    streams_pump(&l->streams);
    for (int i = 0; i < STREAMS_MAX; i++)
        streams += l->streams.stream[i] != NULL;
    snprintf(d->doing, sizeof d->doing, "serves %d streams, delivered %llu spans", streams,
             (unsigned long long)l->streams.spans);
    d->extra[0] = (struct link_poll_item){.fd = l->streams.wake};
    d->extra_count = 1;
    *sleep_ms = TICK_MS;
    return DAEMON_GO_ON;
}

static int request(void *self, struct daemon *d, const struct link_peer *peer, enum msg_type type,
                   const union msg *m)
{
    struct loaderd *l = self;
    (void)d;
    return streams_request(&l->streams, peer, type, m);
}

static void stop(void *self, struct daemon *d)
{
    struct loaderd *l = self;
    (void)d;
    streams_close(&l->streams);
}

static int command(void *self, int argc, char **argv)
{
    (void)self;
    if (argc == 3 && strcmp(argv[1], "--base") == 0 && strcmp(argv[2], "reader") == 0)
        return reader_base_main();
    if (argc >= 2 && strcmp(argv[1], "--reader") == 0)
        return reader_main();
    if (argc >= 2 && strcmp(argv[1], "--describe") == 0)
        return describe_main(argc - 1, argv + 1);
    return -1;
}

static const struct daemon_spec spec = {
    .stage = "loaderd",
    .purpose =
        "reads HDF5 files and fills the shared memory of trainerd and fisherd with their rows.",
    .example = "loaderd --run runs/fashion",
    .deadline_s = 30,
    .start = start,
    .turn = turn,
    .request = request,
    .stop = stop,
    .command = command,
    .extra_help =
        "  --describe --config FILE [--set section.key=value]...\n"
        "      print what the two splits of the data file deliver, as key=value lines, and end\n"
        "  --base reader\n"
        "      the same as --base for a reader, which is a process of its own\n"
        "  --reader\n"
        "      started by loaderd itself, one a stream: the process that reads the file\n",
};

int main(int argc, char **argv)
{
    static struct loaderd self;
    return daemon_run(argc, argv, &spec, &self);
}
