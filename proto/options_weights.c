/* options_weights.c - model.target_weights that names a file becomes the numbers in it.
 *
 * A thousand outputs have weights that nobody writes into a pipeline file. What the option says is
 * a list where it consists of characters that numbers have; anything else is a file's name. The
 * run's effective file has the numbers: its stages, whenever they start, read no file beside the
 * data. What makes a run or goes on with one (prepare) reads the pipeline file and so this one, and
 * a file that has changed is options that have changed.
 */
#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/durable.h"
#include "proto/options_parts.h"

enum { FILE_BYTES_MAX = 1 << 20, NUMBER_BYTES = 24 };

static const char blanks[] = " \t\r\n";

static int is_list(const char *text)
{
    return text[strspn(text, "0123456789+-.eE, ")] == '\0';
}

static int line_of(const char *text, const char *at)
{
    int line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

/* The number that a text begins with, and its end; -1: it is none, or none that weighs: negative,
 * not finite as the float32 as which it is used, or not decimal. */
static double number_take(const char *text, char **end)
{
    double number = strtod(text, end);
    int is_number = *end > text && strspn(text, "0123456789+-.eE") == (size_t)(*end - text) &&
                    strchr(" \t\r\n,", **end);
    return is_number && number >= 0 && number <= FLT_MAX ? number : -1;
}

/* A short text of the float32 that the number is used as: six to nine digits, 2000 rather than
 * 2e+03, with the bits that the number itself would give in a list. */
static void number_text(double number, char text[NUMBER_BYTES])
{
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, NUMBER_BYTES, "%.*g", digits, (double)(float)number);
        if ((float)strtod(text, NULL) == (float)number)
            return;
    }
}

/* "0.5, 1\n2\n" as "0.5,1,2". */
static int numbers_join(const char *data, size_t bytes, const char *path, char *list,
                        struct origin at, struct err *e)
{
    size_t used = 0;
    for (const char *rest = data + strspn(data, blanks); rest < data + bytes;) {
        char *end, text[NUMBER_BYTES];
        double number = number_take(rest, &end);
        if (number < 0)
            return origin_error(at, e,
                                "model.target_weights: line %d of %.200s holds what is no finite "
                                "number from 0 on; accepted are such numbers, with commas, blanks "
                                "or ends of lines between them",
                                line_of(data, rest), path);
        number_text(number, text);
        used += (size_t)snprintf(list + used, OPTION_TEXT_MAX + 1 - used, "%s%s", used ? "," : "",
                                 text);
        if (used > OPTION_TEXT_MAX)
            return origin_error(at, e,
                                "model.target_weights: the numbers of %.200s take more than %d "
                                "bytes of text",
                                path, OPTION_TEXT_MAX);
        rest = end + strspn(end, blanks);
        rest += *rest == ',';
        rest += strspn(rest, blanks);
    }
    if (used)
        return 0;
    return origin_error(at, e, "model.target_weights: %.200s is empty", path);
}

/* The file's numbers as a list, in new memory; NULL and *e. */
static char *list_read(const char *path, struct origin at, struct err *e)
{
    struct err why;
    char *data = NULL, *list = malloc(OPTION_TEXT_MAX + 1), shown[SHOWN_BYTES];
    size_t bytes = 0;
    int result = -1;
    struct stat st;
    if (!list)
        err_errno(e, EXIT_CODE_TEMPORARY, "cannot read options");
    else if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* a pipe would be waited for */
        origin_error(at, e,
                     "model.target_weights is \"%s\", which is no regular file; accepted are "
                     "numbers with commas between them, or the name of a text file with them",
                     text_show(path, shown));
    else if (durable_read(path, FILE_BYTES_MAX, &data, &bytes, &why) < 0)
        origin_error(at, e,
                     "model.target_weights is \"%s\", neither numbers with commas between them "
                     "nor a file: %s",
                     text_show(path, shown), why.text);
    else
        result = numbers_join(data, bytes, path, list, at, e);
    free(data);
    if (result == 0)
        return list;
    free(list);
    return NULL;
}

int weights_complete(struct options *o, const struct origins *at, struct err *e)
{
    if (is_list(o->target_weights))
        return 0;
    char *list = list_read(o->target_weights, at->file, e);
    if (!list)
        return -1;
    free(o->target_weights);
    o->target_weights = list;
    return 0;
}
