/* fanout.c - <stage>.pub of three stages -> monitor.pub, unchanged; see fanout.h. */
#include "monitord/fanout.h"

#include "proto/log.h"

enum { MESSAGES_A_TURN = 256 }; /* of one stream, so that samples are taken in time */

static const char *const endpoints[FANOUT_STREAMS] = {"loader.pub", "trainer.pub", "fisher.pub"};

int fanout_open(struct fanout *f, struct err *e)
{
    *f = (struct fanout){0};
    for (int i = 0; i < FANOUT_STREAMS; i++) {
        if (link_open(&f->from[i], LINK_SUB, ".", endpoints[i], NULL, e) < 0 ||
            link_subscribe(&f->from[i], "", e) < 0) {
            fanout_close(f);
            return -1;
        }
    }
    return 0;
}

void fanout_close(struct fanout *f)
{
    for (int i = 0; i < FANOUT_STREAMS; i++)
        link_close(&f->from[i]);
}

/* The first of a kind is worth a line, then every tenfold: a broken stage must not fill the disk.
 */
static void malformed_count(struct fanout *f, const char *endpoint, const struct err *why)
{
    uint64_t n = ++f->malformed;
    while (n % 10 == 0)
        n /= 10;
    if (n == 1)
        log_warn("endpoint=%s malformed=%llu A message was dropped: %s", endpoint,
                 (unsigned long long)f->malformed, why->text);
}

int fanout_turn(struct fanout *f, struct link *to, fanout_visit *visit, void *self)
{
    int more = 0;
    for (int i = 0; i < FANOUT_STREAMS; i++) {
        int taken = 0;
        for (; taken < MESSAGES_A_TURN; taken++) {
            struct err why = {0};
            enum msg_type type;
            union msg m;
            int result = link_forward(&f->from[i], to, &type, &m, &why);
            if (result == 0)
                break;
            if (result < 0) {
                malformed_count(f, endpoints[i], &why);
                continue;
            }
            f->forwarded++;
            visit(self, type, &m);
        }
        more |= taken == MESSAGES_A_TURN;
    }
    return more;
}

int fanout_poll_items(struct fanout *f, struct link_poll_item *items)
{
    for (int i = 0; i < FANOUT_STREAMS; i++)
        items[i] = (struct link_poll_item){.link = &f->from[i], .fd = -1};
    return FANOUT_STREAMS;
}
