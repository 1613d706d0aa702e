/* molecule_source.c - see molecule_source.h: what data.source is. */
#include "pipelines/prepare/molecule_source.h"

#include <sys/stat.h>

/* 1: records; 0: a table; -1. */
static int holds_records(const struct options *o, struct err *e)
{
    struct stat st;
    if (stat(o->data_source, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot find data.source %s", o->data_source);
    return S_ISDIR(st.st_mode) ? 1 : massbank_begins(o->data_source, e);
}

int molecule_source_open(struct molecule_source **s_p, const struct options *o, struct err *e)
{
    struct text_files files;
    *s_p = NULL;
    int records = holds_records(o, e);
    if (records < 0)
        return -1;
    int result = text_files_open(&files, o->data_source, e);
    if (result == 0)
        result = records ? molecule_source_massbank(s_p, e) : molecule_source_table(s_p, o, e);
    if (result < 0) {
        text_files_close(&files);
        return -1;
    }
    (*s_p)->options = o;
    (*s_p)->files = files;
    return 0;
}
