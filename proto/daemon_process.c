/* daemon_process.c - see daemon_process.h. */
#include "proto/daemon_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "proto/durable.h"
#include "proto/log.h"

void process_help(const struct daemon_spec *spec)
{
    printf("%s - %s\n\nusage: %s --run DIR\n\n"
           "  --run DIR    directory of the run, made by `prepare run`; its pipeline.yaml is read\n"
           "  --base       print what the process takes of memory before it has any work\n"
           "  --help       this\n"
           "  --version    version\n%s\n",
           spec->stage, spec->purpose, spec->stage, spec->extra_help ? spec->extra_help : "");
    options_print_help(stdout);
    printf("\nExit codes: 0 done; 100 a restart cannot help; 111 a restart may help.\n\n"
           "example: %s\n",
           spec->example);
}

int process_asks(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return 1;
    return 0;
}

int process_arguments(int argc, char **argv, const char **run, struct err *e)
{
    *run = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--run") == 0 && i + 1 < argc && !*run)
            *run = argv[++i];
        else if (strncmp(argv[i], "--run=", 6) == 0 && !*run)
            *run = argv[i] + 6;
        else
            return err_set(e, EXIT_CODE_PERMANENT,
                           "argument \"%.100s\" is unknown, repeated or lacks its value; accepted "
                           "is --run DIR (see --help)",
                           argv[i]);
    }
    if (!*run || !**run)
        return err_set(e, EXIT_CODE_PERMANENT, "--run DIR is missing (see --help)");
    return 0;
}

/* A hang ends here: a line in the log, then the death that the supervisor sees. */
static void on_alarm(int number)
{
    static const char text[] = "a turn took longer than its deadline: ended by SIGALRM\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

int process_signals(int *signal_fd, struct err *e)
{
    /* Only ignored signals are inherited over exec; a shell's `&` leaves SIGINT ignored. */
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            signal(number, SIG_DFL);
    }
    signal(SIGPIPE, SIG_IGN); /* a logger that died must not end its stage */
    struct sigaction alarm_action = {.sa_handler = on_alarm, .sa_flags = (int)SA_NODEFER};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigaction(SIGALRM, &alarm_action, NULL) < 0 || sigprocmask(SIG_SETMASK, &set, NULL) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot set up signals");
    *signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (*signal_fd < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot set up signals");
    return 0;
}

const char *process_signal_take(int signal_fd)
{
    struct signalfd_siginfo info;
    if (read(signal_fd, &info, sizeof info) != sizeof info)
        return NULL;
    return info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM";
}

int process_supervised(int *ready_fd, struct err *e)
{
    const char *text = getenv("FINETUNED_READY_FD");
    char *end;
    *ready_fd = -1;
    if (!text)
        return 0;
    long fd = strtol(text, &end, 10);
    if (!*text || *end || fd < 0 || fd > 1023 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "FINETUNED_READY_FD is \"%.20s\"; accepted is the number of an open "
                       "descriptor",
                       text);
    *ready_fd = (int)fd;
    pid_t parent = getppid();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot ask to die with the supervisor");
    if (getppid() != parent)
        return err_set(e, EXIT_CODE_TEMPORARY, "the supervisor died while this stage started");
    return 0;
}

int process_ready(int *ready_fd, struct err *e)
{
    if (*ready_fd < 0)
        return 0;
    ssize_t written = write(*ready_fd, "\n", 1);
    int number = errno;
    close(*ready_fd);
    *ready_fd = -1;
    errno = number;
    if (written != 1)
        return err_errno(e, EXIT_CODE_TEMPORARY,
                         "cannot tell the supervisor that this stage is ready");
    return 0;
}

void process_exit_write(const char *stage, int code, const char *sentence)
{
    char path[128], text[1024];
    struct err e;
    ensure((size_t)snprintf(path, sizeof path, "exits/%s", stage) < sizeof path);
    int length = snprintf(text, sizeof text, "%d %s\n", code, sentence);
    if (durable_write(path, text, (size_t)length, &e) < 0)
        log_warn("The reason of this exit is not recorded: %s", e.text);
}
