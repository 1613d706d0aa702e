/* aborts.h - for unit tests: what ensure() ends ends a child, and leaves no core file. */
#ifndef TESTS_ABORTS_H
#define TESTS_ABORTS_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body` in a child and says whether ensure() ended it. */
#define ABORTS(body)                                                                               \
    ({                                                                                             \
        pid_t child_ = fork();                                                                     \
        if (child_ == 0) {                                                                         \
            struct rlimit none_ = {0, 0};                                                          \
            setrlimit(RLIMIT_CORE, &none_);                                                        \
            body;                                                                                  \
            _exit(0);                                                                              \
        }                                                                                          \
        int status_ = 0;                                                                           \
        waitpid(child_, &status_, 0);                                                              \
        WIFSIGNALED(status_) && WTERMSIG(status_) == SIGABRT;                                      \
    })

#endif
