/* probe.h - what the consumers of loaderd that stand in for trainerd in tests and benchmarks share.
 *
 * A probe is called PROBE RUN FILE SPLIT ... [key=value ...] and stands in the run's directory.
 * What fails ends it with a sentence.
 */
#ifndef TESTS_PROBE_H
#define TESTS_PROBE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/feed.h"

_Noreturn static inline void probe_fail(const char *what)
{
    fprintf(stderr, "probe: %s\n", what);
    exit(1);
}

/* The text after "key=", or NULL. */
static inline const char *probe_text(int argc, char **argv, const char *key)
{
    size_t length = strlen(key);
    for (int i = 4; i < argc; i++)
        if (strncmp(argv[i], key, length) == 0 && argv[i][length] == '=')
            return argv[i] + length + 1;
    return NULL;
}

static inline uint64_t probe_number(int argc, char **argv, const char *key, uint64_t otherwise)
{
    const char *text = probe_text(argc, argv, key);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* FILE and SPLIT as trainerd would ask for them. */
static inline struct feed_config probe_config(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (struct feed_config){
        .role = "trainer.train",
        /* two probes of one second must not meet as one peer */
        .incarnation = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
        .file = argv[2],
        .split = argv[3],
        .seed = 7,
        .shuffle = (int)probe_number(argc, argv, "shuffle", 1),
        .span_rows = probe_number(argc, argv, "span_rows", 0),
        .window_spans = 4,
        .slots = probe_number(argc, argv, "slots", 0),
        .arena_limit_bytes = probe_number(argc, argv, "limit_mb", 256) << 20,
        .peer_timeout_ms = 10000,
    };
}

/* Wait at most that long until something comes, and take it. */
static inline void probe_wait(struct feed *f, int most_ms)
{
    struct link_poll_item items[3];
    struct err e = {0};
    int due_ms = feed_timeout_ms(f);
    link_poll(items, feed_poll_items(f, items), due_ms < most_ms ? due_ms : most_ms);
    if (feed_pump(f, &e) < 0)
        probe_fail(e.text);
}

#endif
