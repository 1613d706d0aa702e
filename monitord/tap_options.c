/* tap_options.c - the command line of tap: its help, its options and which of them go together. */
#include "monitord/tap_options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mark.h"
#include "proto/msg.h"

static const char help[] =
    "tap - look into a run: its streams, its progress, its stages\n"
    "\n"
    "  tap --run DIR [--topic PREFIX]... [--count N]     messages of the run as JSON lines\n"
    "  tap --run DIR --progress [--until-pid PID]        progress of the run, until it ends\n"
    "  tap --run DIR --ask STAGE VERB [TEXT]             ask a stage and print its answer as JSON\n"
    "  tap --messages-reference                          all messages as a Markdown page\n"
    "\n"
    "  --run DIR             directory of the run (no default)\n"
    "  --topic PREFIX        only topics that begin with PREFIX; may be repeated (default: all)\n"
    "  --count N             end after N messages, 1 to 1000000000 (default: never)\n"
    "  --progress            a bar on a terminal, plain lines elsewhere; ends with the run and its "
    "exit\n"
    "                        code, on SIGTERM with 0, on SIGINT with 130\n"
    "  --until-pid PID       with --progress: also end, with 111, when process PID is gone and "
    "left\n"
    "                        no verdict (default: none)\n"
    "  --ask STAGE VERB      STAGE: loaderd, trainerd, fisherd or monitord (the last d may be "
    "left\n"
    "                        out); VERB: status, stop, checkpoint, release or mark; 111 without an "
    "answer\n"
    "                        in 5 s\n"
    "  --ask STAGE mark TEXT  a mark of that name in the stage's journal, the memory profile and "
    "the report\n"
    "  --messages-reference  names, fields, types, limits\n"
    "  --help                this text\n"
    "\n"
    "Exit codes: 0 done, 100 wrong options, no such run or a verb refused, 111 no answer.\n"
    "Example: tap --run runs/fashion --topic trainer.step --count 10\n";

void tap_help_print(FILE *out)
{
    fputs(help, out);
}

static int number_parse(const char *option, const char *text, uint64_t max, uint64_t *value,
                        struct err *e)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || *value < 1 || *value > max)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is \"%s\"; a whole number from 1 to %" PRIu64 " is accepted", option,
                       text, max);
    return 0;
}

/* Which of the four uses the options ask for must be clear. */
static int options_check(const struct tap *t, struct err *e)
{
    const char *wrong = NULL;
    if (t->help || t->reference)
        return 0;
    if (!t->run)
        return err_set(e, EXIT_CODE_PERMANENT, "--run DIR is missing; see tap --help");
    if (t->until_pid && !t->progress)
        wrong = "--until-pid goes with --progress only";
    else if (t->progress && t->stage)
        wrong = "--progress and --ask exclude each other";
    else if ((t->progress || t->stage) && (t->topic_count || t->count))
        wrong = "--topic and --count do not go with --progress or --ask";
    return wrong ? err_set(e, EXIT_CODE_PERMANENT, "%s; see tap --help", wrong) : 0;
}

static int topic_add(struct tap *t, const char *prefix, struct err *e)
{
    if (t->topic_count == TAP_TOPICS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--topic %s is one too many; at most %d are accepted, use shorter prefixes",
                       prefix, TAP_TOPICS_MAX);
    t->topics[t->topic_count++] = prefix;
    return 0;
}

/* --ask takes two words, three of a mark: getopt gives the first, the others follow it. */
static int ask_take(struct tap *t, const char *stage, int argc, char **argv, struct err *e)
{
    if (optind >= argc)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--ask %s lacks its verb: status, stop, checkpoint, release or mark", stage);
    t->stage = stage;
    t->verb = argv[optind++];
    if (strcmp(t->verb, msg_name(MSG_mark)) != 0)
        return 0;
    if (optind >= argc)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "--ask %s mark lacks its text: --ask %s mark \"what happens now\"", stage,
                       stage);
    t->text = argv[optind++];
    return mark_check(t->text, e);
}

static int option_take(struct tap *t, int option, int argc, char **argv, struct err *e)
{
    switch (option) {
    case 'r':
        t->run = optarg;
        return 0;
    case 't':
        return topic_add(t, optarg, e);
    case 'n':
        return number_parse("--count", optarg, 1000000000, &t->count, e);
    case 'p':
        t->progress = 1;
        return 0;
    case 'u':
        return number_parse("--until-pid", optarg, INT32_MAX, &t->until_pid, e);
    case 'a':
        return ask_take(t, optarg, argc, argv, e);
    case 'h':
        t->help = 1;
        return 0;
    case 'm':
        t->reference = 1;
        return 0;
    default:
        return err_set(e, EXIT_CODE_PERMANENT, "%s %s; see tap --help", argv[optind - 1],
                       option == ':' ? "lacks its value" : "is not an option");
    }
}

int tap_options_parse(struct tap *t, int argc, char **argv, struct err *e)
{
    static const struct option known[] = {
        {"run", required_argument, NULL, 'r'},
        {"topic", required_argument, NULL, 't'},
        {"count", required_argument, NULL, 'n'},
        {"progress", no_argument, NULL, 'p'},
        {"ask", required_argument, NULL, 'a'},
        {"until-pid", required_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},
        {"messages-reference", no_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+:", known, NULL)) != -1)
        if (option_take(t, option, argc, argv, e) < 0)
            return -1;
    if (optind < argc)
        return err_set(e, EXIT_CODE_PERMANENT, "\"%s\" is not an option; see tap --help",
                       argv[optind]);
    return options_check(t, e);
}
