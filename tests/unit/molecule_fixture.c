/* molecule_fixture.c - see molecule_fixture.h. */
#include "tests/unit/molecule_fixture.h"

#include "tests/test.h"

const char *class_of(const uint8_t *row, const char *names, const char *kind)
{
    static char found[4][16];
    static int turn;
    char *name = found[turn++ % 4];
    int count = 0, column = 0;
    for (const char *at = names; *at; at += *at == '\n', column++) {
        size_t length = strcspn(at, "\n"), prefix = strlen(kind);
        if (strncmp(at, kind, prefix) == 0 && row[column]) {
            snprintf(name, 16, "%.*s", (int)(length - prefix), at + prefix);
            count++;
        }
        at += length;
    }
    CHECK_EQ(count, 1);
    return name;
}

#define RECORD_HEAD                                                                                \
    "ACCESSION: %s\nCH$SMILES: CCO\nCH$IUPAC: InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3\n"                 \
    "AC$MASS_SPECTROMETRY: MS_TYPE MS2\nAC$MASS_SPECTROMETRY: COLLISION_ENERGY 20 eV\n"            \
    "MS$FOCUSED_ION: ION_TYPE [M+H]+\n"

const char *record_text(const char *name, const char *rest)
{
    static char text[4][2048];
    static int turn;
    char *to = text[turn++ % 4];
    int used = snprintf(to, 2048, RECORD_HEAD, name);
    snprintf(to + used, 2048 - (size_t)used, "%s", rest);
    return to;
}
