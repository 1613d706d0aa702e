/* daemon_process.h - what daemon.c does to its process: arguments, signals, supervisor, the last
 * word. Only daemon.c includes it.
 */
#ifndef PROTO_DAEMON_PROCESS_H
#define PROTO_DAEMON_PROCESS_H

#include "proto/daemon.h"

/* --help: purpose, usage, arguments, pipeline options, example. */
void process_help(const struct daemon_spec *spec);

/* 1 if `word` is among the arguments. */
int process_asks(int argc, char **argv, const char *word);

/* *run is --run's value, borrowed from argv. 0, or -1 and *e (permanent). */
int process_arguments(int argc, char **argv, const char **run, struct err *e);

/* Signals: nothing ignored that a parent ignored (but SIGPIPE is), nothing blocked but SIGTERM and
 * SIGINT, which come through *signal_fd; SIGALRM says so and kills. */
int process_signals(int *signal_fd, struct err *e);

/* Name of a signal waiting in signal_fd, or NULL. */
const char *process_signal_take(int signal_fd);

/* Descriptor of FINETUNED_READY_FD, or -1 if it is not set (started by hand). When set, this
 * process is killed when its parent dies. 0, or -1 and *e. */
int process_supervised(int *ready_fd, struct err *e);

/* Tell the supervisor that the stage is ready, and close *ready_fd. A supervisor that is gone is an
 * error: nobody would ever stop this process. */
int process_ready(int *ready_fd, struct err *e);

/* Write exits/<stage>; a failure is logged. */
void process_exit_write(const char *stage, int code, const char *sentence);

#endif
