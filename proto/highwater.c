/* highwater.c - a stage's memory peak and CPU time in a mapped page. See highwater.h.
 *
 * The page is shared with the file, so what was raised last survives kill -9 of the stage.
 */
#include "proto/highwater.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/log.h"

/* Versions differ in what stands at the end: what an older one lacks is 0. */
enum { PAGE_BYTES = 4096, VERSION_LEAST = 2, VERSION = 4 };
static const uint64_t magic =
    0x6b7261576867694cull; /* arbitrary: tells a page of ours from any other */

static int page_valid(const struct highwater_page *page)
{
    return page->magic == magic && page->version >= VERSION_LEAST && page->version <= VERSION;
}

int highwater_open(struct highwater *h, const char *stage, struct err *e)
{
    char path[PATH_MAX];
    *h = (struct highwater){0};
    ensure((size_t)snprintf(path, sizeof path, "highwater/%s", stage) < sizeof path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    /* Storage now, not at the first write: a full disk would then be a SIGBUS. */
    int number = posix_fallocate(fd, 0, PAGE_BYTES);
    void *page = MAP_FAILED;
    if (number == 0)
        page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = number;
    int result = 0;
    if (page == MAP_FAILED)
        result = err_errno(e, EXIT_CODE_TEMPORARY, "cannot map %s", path);
    close(fd);
    if (result < 0)
        return -1;

    h->page = page;
    if (!page_valid(h->page)) {
        if (h->page->magic != 0)
            log_warn("path=%s The page of memory peaks is from another version; it begins anew.",
                     path);
        *h->page = (struct highwater_page){.magic = magic, .version = VERSION};
    }
    h->page->version = VERSION;
    h->cpu_us_before = h->page->cpu_us;
    h->page->device_bytes = h->page->heap_bytes = 0; /* what another incarnation said */
    return 0;
}

uint64_t highwater_bytes(pid_t pid, const char *name)
{
    char path[32], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            return strtoull(line + length + 1, NULL, 10) * 1024;
    return 0;
}

static uint64_t cpu_us(int who)
{
    struct rusage u;
    if (getrusage(who, &u) < 0)
        return 0;
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* CPU time of another process that has not been waited for. */
static uint64_t process_cpu_us(pid_t pid)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

/* 2 to 15 microseconds in a stage: malloc walks along what is free. */
static uint64_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* VmHWM is the peak of a stage (ru_maxrss would not do: it survives exec and so counts the parent);
 * RssAnon what a helper has for itself (what it shares is counted in its parent and in the arena's
 * maker). */
void highwater_raise(struct highwater *h)
{
    uint64_t rss = highwater_bytes(getpid(), "VmHWM"), helpers_rss = 0;
    uint64_t cpu = h->cpu_us_before + cpu_us(RUSAGE_SELF) + cpu_us(RUSAGE_CHILDREN);
    for (int i = 0; i < h->helpers; i++) {
        helpers_rss += highwater_bytes(h->helper[i], "RssAnon");
        cpu += process_cpu_us(h->helper[i]);
    }
    h->page->heap_bytes = heap_bytes();
    if (rss > h->page->rss_peak_bytes)
        h->page->rss_peak_bytes = rss;
    if (helpers_rss > h->page->helpers_peak_bytes)
        h->page->helpers_peak_bytes = helpers_rss;
    if (cpu > h->page->cpu_us)
        h->page->cpu_us = cpu;
}

void highwater_device(struct highwater *h, uint64_t bytes, uint64_t high, uint64_t locked)
{
    if (!h->page)
        return;
    h->page->device_bytes = bytes;
    if (high > h->page->device_peak_bytes)
        h->page->device_peak_bytes = high;
    if (locked > h->page->locked_peak_bytes)
        h->page->locked_peak_bytes = locked;
}

void highwater_mean_add(struct highwater_mean *m, double value)
{
    if (isnan(value))
        return;
    m->most = m->count && m->most > value ? m->most : value;
    m->sum += value;
    m->count++;
}

void highwater_helper_add(struct highwater *h, pid_t pid)
{
    for (int i = 0; i < h->helpers; i++)
        if (h->helper[i] == pid)
            return;
    ensure(h->helpers < HIGHWATER_HELPERS_MAX);
    h->helper[h->helpers++] = pid;
}

void highwater_helper_remove(struct highwater *h, pid_t pid)
{
    for (int i = 0; i < h->helpers; i++) {
        if (h->helper[i] != pid)
            continue;
        highwater_raise(h);
        h->helper[i] = h->helper[--h->helpers];
        return;
    }
}

void highwater_close(struct highwater *h)
{
    if (!h->page)
        return;
    highwater_raise(h);
    munmap(h->page, PAGE_BYTES);
    h->page = NULL;
}

int highwater_read(const char *path, struct highwater_page *page, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot open %s", path);
    ssize_t n = pread(fd, page, sizeof *page, 0);
    close(fd);
    if (n != (ssize_t)sizeof *page || !page_valid(page))
        return err_set(e, EXIT_CODE_PERMANENT, "%s is no page of memory peaks of this version (%d)",
                       path, VERSION);
    return 0;
}
