/* web.c - the web page: a program of its own, beside the runs.
 *
 * It reads runs' directories and listens to their streams as tap does, so it may come, go, hang or
 * be killed without any stage noticing. web_server.h has what it answers.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitord/web_metrics.h"
#include "monitord/web_server.h"
#include "proto/daemon.h"
#include "proto/link.h"
#include "proto/log.h"

enum { PORT = 8650, TURN_MS = 500 };

static const char help[] =
    "web - a page in the browser with what runs do, and figures for Prometheus\n"
    "\n"
    "  web [--runs DIR | --run DIR] [--port PORT] [--token-file FILE]\n"
    "\n"
    "  --runs DIR            all runs below DIR (default: runs)\n"
    "  --run DIR             that run alone\n"
    "  --port PORT           where it listens, on this machine only; 0: any free one (default: "
    "8650)\n"
    "  --token-file FILE     a secret for reading alone is written there, for Prometheus (default: "
    "nowhere)\n"
    "  --metrics-reference   Prometheus' figures as a Markdown page\n"
    "  --version             of finetuned\n"
    "  --help                this text\n"
    "\n"
    "Ctrl-C ends it, and no run. Exit codes: 0 ended by Ctrl-C or SIGTERM, 100 wrong options, no "
    "such\ndirectory or the port is taken, 111 may work later.\n"
    "Example: web --runs runs\n";

struct options_of_web {
    const char *runs, *run, *token_file;
    uint16_t port;
    int says; /* 'h', 'v', 'm': prints something and ends */
};

static volatile sig_atomic_t signal_caught;

static void signal_note(int number)
{
    signal_caught = number;
}

static int port_parse(const char *text, uint16_t *port, struct err *e)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > UINT16_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--port is \"%.64s\"; a number from 0 to 65535 is accepted", text);
    *port = (uint16_t)value;
    return 0;
}

static int option_take(struct options_of_web *o, int option, char **argv, struct err *e)
{
    switch (option) {
    case 'd':
        o->runs = optarg;
        return 0;
    case 'r':
        o->run = optarg;
        return 0;
    case 't':
        o->token_file = optarg;
        return 0;
    case 'p':
        return port_parse(optarg, &o->port, e);
    case 'h':
    case 'v':
    case 'm':
        o->says = option;
        return 0;
    default:
        return err_set(e, EXIT_CODE_PERMANENT, "%.64s %s; see web --help", argv[optind - 1],
                       option == ':' ? "lacks its value" : "is not an option");
    }
}

static int options_parse(struct options_of_web *o, int argc, char **argv, struct err *e)
{
    static const struct option known[] = {
        {"runs", required_argument, NULL, 'd'},
        {"run", required_argument, NULL, 'r'},
        {"port", required_argument, NULL, 'p'},
        {"token-file", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {"metrics-reference", no_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int option;
    *o = (struct options_of_web){.port = PORT};
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+:", known, NULL)) != -1)
        if (option_take(o, option, argv, e) < 0)
            return -1;
    if (optind < argc)
        return err_set(e, EXIT_CODE_PERMANENT, "\"%.64s\" is not an option; see web --help",
                       argv[optind]);
    if (o->runs && o->run)
        return err_set(e, EXIT_CODE_PERMANENT, "--runs and --run exclude each other");
    return 0;
}

static void say(int what)
{
    if (what == 'h')
        fputs(help, stdout);
    else if (what == 'v')
        printf("web %s\n", FINETUNED_VERSION);
    else
        web_metrics_reference(stdout);
}

static int serve(const struct options_of_web *o, struct err *e)
{
    static struct web_server s; /* too large for some stacks */
    struct sigaction note = {.sa_handler = signal_note}, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &note, NULL);
    sigaction(SIGINT, &note, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    if (web_server_open(&s, o->runs ? o->runs : "runs", o->run, o->port, o->token_file, e) < 0)
        return -1;
    printf("web: http://127.0.0.1:%u/#%s\n", s.http.port, s.guard.token);
    fflush(stdout);
    while (!signal_caught)
        web_server_turn(&s, TURN_MS);
    web_server_close(&s);
    return 0;
}

int main(int argc, char **argv)
{
    struct options_of_web o;
    struct err e = {0};
    log_stage_set("web");
    int result = options_parse(&o, argc, argv, &e);
    if (result == 0 && o.says)
        say(o.says);
    else if (result == 0)
        result = serve(&o, &e);
    link_shutdown();
    if (result < 0)
        fprintf(stderr, "web: %s\n", e.text);
    return result < 0 ? e.code : EXIT_CODE_DONE;
}
