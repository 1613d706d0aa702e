/* massbank.c - see massbank.h. */
#include "pipelines/prepare/massbank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/csv.h"

#define FIRST_TAG "ACCESSION:"

/* What stands behind "TAG:" or "TAG: SUBTAG", or NULL when the line is another one. */
static const char *value_after(const char *line, const char *tag, size_t length)
{
    if (line[0] != tag[0] || strncmp(line, tag, length) != 0 ||
        (line[length] && line[length] != ' '))
        return NULL;
    return line + length + strspn(line + length, " ");
}

#define value_of(line, tag) value_after(line, tag, sizeof tag - 1)

/* Texts that are kept. */
struct kept {
    const char *tag;
    size_t length, offset, bytes;
};

#define KEPT(tag, member)                                                                          \
    {                                                                                              \
        tag, sizeof tag - 1, offsetof(struct massbank_record, member),                             \
            sizeof((struct massbank_record *)0)->member                                            \
    }

static const struct kept texts[] = {
    KEPT("CH$SMILES:", smiles),
    KEPT("CH$IUPAC:", inchi),
    KEPT("CH$LINK: INCHIKEY", inchikey),
    KEPT("MS$FOCUSED_ION: PRECURSOR_TYPE", precursor_type),
    KEPT("MS$FOCUSED_ION: ION_TYPE", ion_type),
    KEPT("AC$MASS_SPECTROMETRY: MS_TYPE", ms_type),
    KEPT("AC$MASS_SPECTROMETRY: COLLISION_ENERGY", energy),
};

static void text_keep(struct massbank_record *r, const char *line)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = value_after(line, texts[i].tag, texts[i].length);
        if (!value)
            continue;
        if (strlen(value) >= texts[i].bytes)
            r->fault = "a value is too long";
        else
            strcpy((char *)r + texts[i].offset, value);
        return;
    }
}

const char *massbank_adduct(const struct massbank_record *r)
{
    return r->precursor_type[0] ? r->precursor_type : r->ion_type;
}

/* "  53.03899 65729 18": m/z, intensity, relative intensity. */
static void peak_read(struct massbank_record *r, char *line)
{
    double value[2];
    char *rest = line, *word;
    for (int i = 0; i < 2; i++) {
        word = strtok_r(rest, " \t", &rest);
        if (!word || csv_number(word, &value[i]) != CSV_NUMBER || value[i] < 0) {
            r->fault = "a peak is not two positive numbers";
            return;
        }
    }
    if (r->peaks == MASSBANK_PEAKS_MAX) {
        r->fault = "it has too many peaks";
        return;
    }
    r->peak[r->peaks++] = (struct peak){.mz = (float)value[0], .intensity = (float)value[1]};
}

static void record_begin(struct massbank_record *r, const struct lines *l, const char *accession)
{
    struct peak *peak = r->peak;
    *r = (struct massbank_record){.line = l->line, .peak = peak};
    snprintf(r->accession, sizeof r->accession, "%s", accession);
}

static int record_find(struct lines *l, struct massbank_record *r, struct err *e)
{
    char *line;
    int more;
    while ((more = lines_next(l, &line, e)) > 0) {
        const char *accession = value_of(line, FIRST_TAG);
        if (accession) {
            record_begin(r, l, accession);
            break;
        }
        if (line[strspn(line, " \t")])
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s: line %llu stands between records; expected " FIRST_TAG
                           ", with which a record begins",
                           l->path, (unsigned long long)l->line);
    }
    return more;
}

/* PK$NUM_PEAK and what came must agree. */
static void peaks_check(struct massbank_record *r, const char *announced)
{
    if (r->fault)
        return;
    if (r->peaks == 0)
        r->fault = "it has no peaks";
    else if (announced[0] && strtoul(announced, NULL, 10) != r->peaks)
        r->fault = "PK$NUM_PEAK is not the number of its peaks";
}

int massbank_next(struct lines *l, struct massbank_record *r, struct err *e)
{
    char *line, announced[16] = "";
    int peaks = 0, more = record_find(l, r, e);
    if (more <= 0)
        return more;
    while ((more = lines_next(l, &line, e)) > 0 && strcmp(line, "//") != 0) {
        if (line[0] == ' ') { /* most lines: looked at for nothing else */
            if (peaks)
                peak_read(r, line);
            continue;
        }
        const char *count = value_of(line, "PK$NUM_PEAK:");
        if (value_of(line, FIRST_TAG))
            break;
        peaks = value_of(line, "PK$PEAK:") != NULL;
        r->deprecated |= value_of(line, "DEPRECATED:") != NULL;
        if (count)
            snprintf(announced, sizeof announced, "%.15s", count);
        else
            text_keep(r, line);
    }
    if (more < 0)
        return -1;
    if (more == 0 || strcmp(line, "//") != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: record %s, which begins in line %llu, does not end with a line //%s",
                       l->path, r->accession, (unsigned long long)r->line,
                       more ? "" : " before the file does");
    peaks_check(r, announced);
    return 1;
}

int massbank_begins(const char *path, struct err *e)
{
    struct lines l;
    char *line;
    int begins = 0, more = lines_open(&l, path, NULL, e);
    if (more == 0)
        while ((more = lines_next(&l, &line, e)) > 0 && !line[strspn(line, " \t")])
            continue;
    if (more > 0)
        begins = value_of(line, FIRST_TAG) != NULL;
    lines_close(&l);
    return more < 0 ? -1 : begins;
}
