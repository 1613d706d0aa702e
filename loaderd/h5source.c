/* h5source.c - see h5source.h: opening the file and its group, the layout, the fingerprint.
 *
 *   h5source_dense.c h5source_ragged.c   which data sets a layout has, and the pointers
 *   h5source_open.c                      what a data set must be
 *   h5source_read.c                      its bytes
 *   h5source_driver.c                    libhdf5's way to them
 */
#include "loaderd/h5source_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIGEST_BLOCK_ROWS = 1 << 16 }; /* read at once where they are not chunked */

static herr_t reason_take(unsigned n, const H5E_error2_t *error, void *self)
{
    char *text = self;
    if (n == 0 && error->desc)
        snprintf(text, 200, "%s", error->desc);
    return 0;
}

const char *source_reason(void)
{
    static char text[200];
    snprintf(text, sizeof text, "no reason given");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, reason_take, text);
    return text;
}

/* HDF5's signature stands at 0, 512, 1024, 2048 ... (after a user block). */
static int signature_check(int fd, uint64_t bytes, struct err *e)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char found[8];
    for (uint64_t at = 0; at + sizeof found <= bytes; at = at ? 2 * at : 512)
        if (pread(fd, found, sizeof found, (off_t)at) == (ssize_t)sizeof found &&
            memcmp(found, signature, sizeof found) == 0)
            return 0;
    if (bytes == 0)
        return err_set(e, EXIT_CODE_PERMANENT, "the file is empty; expected an HDF5 file");
    return err_set(e, EXIT_CODE_PERMANENT,
                   "this is not an HDF5 file (%llu bytes, no HDF5 signature in it)",
                   (unsigned long long)bytes);
}

static int file_open(struct source *s, struct err *e)
{
    struct stat st;
    if (fstat(s->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at the file");
    s->file_bytes = (uint64_t)st.st_size;
    if (signature_check(s->fd, s->file_bytes, e) != 0)
        return -1;
    hid_t fapl = source_driver_open(s->fd, s->file_bytes);
    if (fapl < 0)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot set up libhdf5: %s", source_reason());
    /* absolute: libhdf5 would ask for the present directory otherwise, which the sandbox forbids */
    s->file = H5Fopen("/data", H5F_ACC_RDONLY, fapl);
    char reason[200];
    snprintf(reason, sizeof reason, "%s", source_reason());
    H5Pclose(fapl);
    if (s->file >= 0)
        return 0;
    if (strstr(reason, "truncated"))
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "the file is truncated: %llu bytes are there and it was written with more (%s)",
            (unsigned long long)s->file_bytes, reason);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "the file cannot be opened as HDF5, it is damaged or cut: %s", reason);
}

struct names {
    char text[200];
    size_t used;
    int count;
};

static herr_t name_add(hid_t group, const char *name, const H5L_info_t *info, void *self)
{
    struct names *n = self;
    (void)group, (void)info;
    int room = (int)(sizeof n->text - n->used);
    if (n->count++ == 8 || room < 80) {
        snprintf(n->text + n->used, (size_t)room, ", ...");
        return 1;
    }
    n->used +=
        (size_t)snprintf(n->text + n->used, (size_t)room, "%s%.60s", n->used ? ", " : "", name);
    return 0;
}

const char *source_names_in(hid_t group)
{
    static struct names n;
    n = (struct names){0};
    H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, name_add, &n);
    return n.count ? n.text : "nothing";
}

int source_has(const struct source *s, const char *name)
{
    return H5Lexists(s->group, name, H5P_DEFAULT) > 0;
}

/* One step down the path of groups, by a hard link. */
static int group_enter(struct source *s, const char *name, struct err *e)
{
    H5L_info_t link;
    if (!source_has(s, name))
        return err_set(e, EXIT_CODE_PERMANENT, "there is no group %s (looked for %s; there is: %s)",
                       name, s->split, source_names_in(s->group));
    if (H5Lget_info(s->group, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is a link to elsewhere; only groups of the file itself are read", name);
    hid_t next = H5Oopen(s->group, name, H5P_DEFAULT);
    if (next < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "group %s cannot be opened: %s", name,
                       source_reason());
    H5Oclose(s->group);
    s->group = next;
    if (H5Iget_type(next) != H5I_GROUP)
        return err_set(e, EXIT_CODE_PERMANENT, "%s is not a group; expected one with the data sets",
                       name);
    return 0;
}

static int group_open(struct source *s, struct err *e)
{
    char path[sizeof s->split], *rest = path;
    snprintf(path, sizeof path, "%s", s->split);
    s->group = H5Oopen(s->file, "/", H5P_DEFAULT);
    if (s->group < 0)
        return err_set(e, EXIT_CODE_PERMANENT, "the root group cannot be opened: %s",
                       source_reason());
    for (char *name; (name = strsep(&rest, "/"));)
        if (name[0] && group_enter(s, name, e) != 0)
            return -1;
    return 0;
}

/* What is there decides the layout. */
static int sets_open(struct source *s, const struct source_wish *wish, struct err *e)
{
    if (source_has(s, wish->features))
        return source_dense_open(s, wish, e);
    if (source_has(s, "node_features") || source_has(s, "node_ptr"))
        return source_graph_open(s, wish, e);
    if (source_has(s, "tokens"))
        return source_tokens_open(s, wish, e);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has no data set %s (there is: %s); nor node_features of graphs, nor tokens",
                   s->split[0] ? s->split : "the root group", wish->features,
                   source_names_in(s->group));
}

void source_library_open(void)
{
    H5dont_atexit();
    H5open(); /* what fails here fails again, with a sentence, when the file is opened */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
}

int source_open(struct source **s_p, int fd, const struct source_wish *wish, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);
    *s_p = NULL;
    if (!s)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot open the file: out of memory");
    s->fd = fd;
    s->file = s->group = -1;
    for (int i = 0; i < SOURCE_FIELDS_MAX; i++)
        s->set[i].dataset = -1;
    s->window = wish->window;
    snprintf(s->split, sizeof s->split, "%s", wish->split);
    if (file_open(s, e) != 0 || group_open(s, e) != 0 || sets_open(s, wish, e) != 0) {
        source_close(&s);
        return -1;
    }
    *s_p = s;
    return 0;
}

void source_close(struct source **s_p)
{
    struct source *s = *s_p;
    if (!s)
        return;
    for (int i = 0; i < SOURCE_FIELDS_MAX; i++)
        if (s->set[i].dataset >= 0)
            H5Dclose(s->set[i].dataset);
    if (s->group >= 0)
        H5Oclose(s->group);
    if (s->file >= 0)
        H5Fclose(s->file);
    free(s->nodes.at);
    free(s->edges.at);
    free(s->documents.at);
    free(s);
    *s_p = NULL;
}

enum source_layout source_layout(const struct source *s)
{
    return s->layout;
}

uint64_t source_rows(const struct source *s)
{
    return s->rows;
}

const struct source_pointer *source_nodes(const struct source *s)
{
    return &s->nodes;
}

const struct source_pointer *source_edges(const struct source *s)
{
    return &s->edges;
}

const struct source_pointer *source_documents(const struct source *s)
{
    return &s->documents;
}

uint32_t source_field_count(const struct source *s)
{
    return s->field_count;
}

const struct source_field *source_field(const struct source *s, uint32_t field)
{
    ensure(field < s->field_count);
    return &s->set[field].field;
}

uint64_t source_chunks(const struct source *s, uint32_t field)
{
    ensure(field < s->field_count);
    return source_set_chunks(&s->set[field]);
}

/* Bytes of the file that say where one of its chunks lies, and no fewer: of a tree of HDF5 before
 * 1.10, h5py's choice, of nodes of 64 records with a place of rank + 1 numbers (24 + 64 x 8 +
 * 65 x (16 + 8 rank) bytes); of those since then 24 at least where they grow in two dimensions, and
 * others take less memory. */
static uint64_t index_stored(const struct source_set *t)
{
    H5D_chunk_index_t kind;
    int is_tree = H5Dget_chunk_index_type(t->dataset, &kind) >= 0 && kind == H5D_CHUNK_IDX_BTREE;
    return is_tree ? 24 + 8 * (uint64_t)t->rank : 24;
}

/* The most that libhdf5 keeps of all of them: what has the fewest bytes in the file takes most of
 * its room. */
uint64_t source_index_bytes(const struct source *s)
{
    uint64_t kept = 0, room = SOURCE_INDEX_BYTES;
    int done[SOURCE_FIELDS_MAX] = {0};
    for (uint32_t i = 0; i < s->field_count; i++) {
        uint32_t next = s->field_count;
        for (uint32_t k = 0; k < s->field_count; k++)
            if (!done[k] &&
                (next == s->field_count || index_stored(&s->set[k]) < index_stored(&s->set[next])))
                next = k;
        uint64_t chunks = source_set_chunks(&s->set[next]), stored = index_stored(&s->set[next]);
        chunks = chunks < room / stored ? chunks : room / stored;
        kept += chunks * INDEX_BYTES_A_CHUNK;
        room -= chunks * stored;
        done[next] = 1;
    }
    return kept;
}

/* The root's attribute `fingerprint`, if it is a text of 1 to 64 hexadecimal digits. */
static int fingerprint_stored(struct source *s, char hex[65])
{
    char text[257] = "", *vlen = NULL;
    if (H5Aexists(s->file, "fingerprint") <= 0)
        return 0;
    hid_t attribute = H5Aopen(s->file, "fingerprint", H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    if (H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1) {
        if (H5Tis_variable_str(type) > 0) {
            if (H5Aread(attribute, type, &vlen) >= 0 && vlen)
                snprintf(text, sizeof text, "%s", vlen);
            H5free_memory(vlen);
        } else if (H5Tget_size(type) < sizeof text) {
            H5Aread(attribute, type, text);
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    size_t length = strnlen(text, sizeof text - 1);
    while (length && text[length - 1] == ' ') /* space-padded */
        length--;
    text[length] = 0;
    if (length < 1 || length > 64 || strspn(text, "0123456789abcdefABCDEF") != length)
        return 0;
    memcpy(hex, text, length + 1);
    return 1;
}

/* Enters a data set's items, as they are stored, into a fingerprint. */
static int field_digest(struct source *s, uint32_t field, struct digest *d, struct err *e)
{
    const struct source_field *f = &s->set[field].field;
    uint64_t most = f->chunk_rows ? f->chunk_rows : DIGEST_BLOCK_ROWS;
    int result = 0;
    if (most > f->items)
        most = f->items;
    void *block = malloc(most * f->row_bytes);
    if (!block)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", f->path);
    for (uint64_t item = 0, items; result == 0 && item < f->items; item += items) {
        items = f->items - item < most ? f->items - item : most;
        result = source_items_read(s, field, 0, item, items, block, e);
        if (result == 0)
            digest_bytes(d, block, items * f->row_bytes);
    }
    free(block);
    return result;
}

/* Data sets that users add to a file after it was made, as docs/DATA.md and docs/TRAINING.md have
 * it: what prepare or another writer stored as its fingerprint says nothing of them. */
int source_field_is_digested(const struct source_field *f)
{
    return strcmp(f->name, "begins") == 0 || strcmp(f->name, "weights") == 0;
}

/* Digests `hex` and what was added later, if anything is delivered of it. */
static int added_digest(struct source *s, char hex[65], struct err *e)
{
    struct digest *d = NULL;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < s->field_count; i++) {
        if (!source_field_is_digested(&s->set[i].field))
            continue;
        if (!d && digest_open(&d, e) != 0)
            return -1;
        digest_bytes(d, hex, strlen(hex));
        result = field_digest(s, i, d, e);
    }
    if (d)
        digest_close(&d, hex);
    return result;
}

/* Of size, time and headers. */
static int fingerprint_make(struct source *s, char hex[65], struct err *e)
{
    struct stat st;
    struct digest *d = NULL;
    char text[512];
    if (fstat(s->fd, &st) != 0)
        return err_errno(e, EXIT_CODE_PERMANENT, "cannot look at the file");
    if (digest_open(&d, e) != 0)
        return -1;
    int used = snprintf(text, sizeof text, "%llu %lld.%09ld\n", (unsigned long long)st.st_size,
                        (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    digest_bytes(d, text, (uint64_t)used);
    for (uint32_t i = 0; i < s->field_count; i++) {
        const struct source_field *f = &s->set[i].field;
        used = snprintf(text, sizeof text, "%s %s rows=%llu values=%llu chunk=%llu\n", f->path,
                        h5type_name(f->type), (unsigned long long)f->items,
                        (unsigned long long)f->values, (unsigned long long)f->chunk_rows);
        digest_bytes(d, text, (uint64_t)used);
    }
    digest_close(&d, hex);
    return 0;
}

int source_fingerprint(struct source *s, char hex[65], struct err *e)
{
    if (!fingerprint_stored(s, hex))
        return fingerprint_make(s, hex, e);
    return added_digest(s, hex, e);
}
