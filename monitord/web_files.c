/* web_files.c - see web_files.h. */
#include "monitord/web_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitord/stages.h"

enum { NAME_MAX_BYTES = 256 };

static const struct {
    const char *directory;
    const char *endings[4];
} shown[] = {
    {"report", {".md", ".png", ".json"}},
    {"logs/memory_profile", {".png", ".json"}},
    {"logs", {".csv", ".old"}}, /* metrics.csv.old */
};

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {
        {".png", "image/png"},
        {".json", "application/json"},
        {".md", "text/plain; charset=utf-8"},
        {".csv", "text/plain; charset=utf-8"},
        {".old", "text/plain; charset=utf-8"},
    };
    const char *ending = strrchr(name, '.');
    for (size_t i = 0; ending && i < sizeof types / sizeof *types; i++)
        if (strcmp(ending, types[i][0]) == 0)
            return types[i][1];
    return NULL;
}

/* Does a name without a slash belong to what is shown of its directory? */
static int is_shown(size_t of, const char *name)
{
    const char *ending = strrchr(name, '.');
    if (!ending || name[0] == '.')
        return 0;
    for (const char *const *e = shown[of].endings; *e; e++)
        if (strcmp(ending, *e) == 0)
            return 1;
    return 0;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Profiles are named by their time: the last ones are the newest. */
static void directory_write(struct json *j, size_t of)
{
    static char names[WEB_FILES_MAX][NAME_MAX_BYTES];
    int count = 0;
    DIR *directory = opendir(shown[of].directory);
    for (struct dirent *d; directory && (d = readdir(directory));) {
        if (!is_shown(of, d->d_name) || strlen(d->d_name) >= NAME_MAX_BYTES)
            continue;
        if (count == WEB_FILES_MAX) {
            qsort(names, WEB_FILES_MAX, sizeof names[0], name_order);
            if (strcmp(d->d_name, names[0]) < 0)
                continue;
            memmove(names, names + 1, (WEB_FILES_MAX - 1) * sizeof names[0]);
            count--;
        }
        snprintf(names[count++], NAME_MAX_BYTES, "%s", d->d_name);
    }
    if (directory)
        closedir(directory);
    qsort(names, (size_t)count, sizeof names[0], name_order);
    for (int i = 0; i < count; i++) {
        char path[2 * NAME_MAX_BYTES];
        snprintf(path, sizeof path, "%s/%.255s", shown[of].directory, names[i]);
        json_str(j, NULL, path);
    }
}

void web_files_write(struct json *j)
{
    json_list(j, "files");
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        directory_write(j, i);
    json_end(j);
}

/* A regular file, for reading. */
static int regular_open(const char *path, size_t *bytes)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *bytes = (size_t)st.st_size;
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

int web_file_open(const char *name, size_t *bytes, const char **type)
{
    const char *slash = strrchr(name, '/');
    for (size_t i = 0; slash && i < sizeof shown / sizeof *shown; i++)
        if (strlen(shown[i].directory) == (size_t)(slash - name) &&
            strncmp(name, shown[i].directory, (size_t)(slash - name)) == 0 &&
            is_shown(i, slash + 1)) {
            *type = type_of(name);
            return regular_open(name, bytes);
        }
    return -1;
}

/* The last bytes_max bytes of a file, a 0 behind them. */
static char *end_read(const char *path, size_t bytes_max, size_t *bytes)
{
    size_t size;
    int fd = regular_open(path, &size);
    if (fd < 0)
        return NULL;
    size_t wanted = size < bytes_max ? size : bytes_max;
    char *text = malloc(wanted + 1);
    ssize_t got = text ? pread(fd, text, wanted, (off_t)(size - wanted)) : -1;
    *bytes = got > 0 ? (size_t)got : 0;
    if (text)
        text[*bytes] = '\0';
    close(fd);
    return text;
}

char *web_log_read(const char *stage, size_t *bytes)
{
    char path[64], *text, *line;
    if (stage_index(stage) < 0)
        return NULL;
    snprintf(path, sizeof path, "logs/%s/current", stage);
    text = end_read(path, WEB_LOG_BYTES, bytes);
    /* the first line is not whole, unless all are there */
    if (text && *bytes == WEB_LOG_BYTES && (line = strchr(text, '\n'))) {
        *bytes -= (size_t)(line + 1 - text);
        memmove(text, line + 1, *bytes + 1);
    }
    return text;
}
