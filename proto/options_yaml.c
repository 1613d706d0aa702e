/* options_yaml.c - a YAML file as a tree of nodes, read by libyaml's events.
 *
 * A pipeline file is a small tree of words, so everything else YAML can do is refused here: anchors
 * and aliases (a few lines can mean gigabytes), tags, several documents, keys that are not words,
 * keys given twice (most readers silently take the last). The limits below hold before anything is
 * stored.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "proto/durable.h"
#include "proto/options_parts.h"

enum {
    FILE_BYTES_MAX = 1 << 20,
    DEPTH_MAX = 16,
    NODES_MAX = 16384,
    ENTRIES_MAX = 1024, /* of one list or map: keys are compared pairwise */
};

struct reading {
    const char *path;
    struct node *root;
    struct node *open[DEPTH_MAX]; /* lists and maps around the present place */
    int depth;
    char *key; /* read, its value is still to come */
    int key_line;
    int nodes;
    struct err *e;
};

void node_free(struct node *n)
{
    /* Depth is limited by DEPTH_MAX, so recursion is too. */
    while (n) {
        struct node *next = n->next;
        node_free(n->first);
        free(n->key);
        free(n->text);
        free(n);
        n = next;
    }
}

static int refuse(const struct reading *r, int line, const char *why)
{
    return origin_error((struct origin){r->path, line}, r->e, "%s", why);
}

static int key_check_new(struct reading *r, const char *key, int line)
{
    char shown[SHOWN_BYTES];
    for (const struct node *n = r->open[r->depth - 1]->first; n; n = n->next)
        if (strcmp(n->key, key) == 0)
            return origin_error((struct origin){r->path, line}, r->e,
                                "%s is set twice; the first one is in line %d",
                                text_show(key, shown), n->line);
    return 0;
}

/* Append a node to the list or map that is open. It is owned by the tree from here on. */
static struct node *node_add(struct reading *r, enum node_kind kind, int line)
{
    struct node *parent = r->depth ? r->open[r->depth - 1] : NULL;
    if (++r->nodes > NODES_MAX || (parent && ++parent->entries > ENTRIES_MAX)) {
        refuse(
            r, line,
            "a pipeline file has at most 16384 entries, and at most 1024 in one list or section");
        return NULL;
    }
    struct node *n = calloc(1, sizeof *n);
    if (!n) {
        err_errno(r->e, EXIT_CODE_TEMPORARY, "cannot read %s", r->path);
        return NULL;
    }
    n->kind = kind;
    n->line = r->key ? r->key_line : line;
    n->key = r->key;
    r->key = NULL;
    if (!parent)
        r->root = n;
    else if (parent->last)
        parent->last->next = n;
    else
        parent->first = n;
    if (parent)
        parent->last = n;
    return n;
}

static int collection_open(struct reading *r, enum node_kind kind, int line)
{
    if (r->depth && r->open[r->depth - 1]->kind == NODE_MAP && !r->key)
        return refuse(r, line, "a key is a word, not a list or map");
    if (r->depth == 0 && kind != NODE_MAP)
        return refuse(r, line, "a pipeline file is made of sections (key: value)");
    if (r->depth == DEPTH_MAX)
        return refuse(r, line, "lists and sections are nested more than 16 deep");
    struct node *n = node_add(r, kind, line);
    if (!n)
        return -1;
    r->open[r->depth++] = n;
    return 0;
}

/* YAML's truths and nothing may be written True and TRUE, Null and NULL: as other programs do. */
static void word_lower(char *text)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0 &&
            (strcmp(text + 1, words[i] + 1) == 0 || !strpbrk(text, "aeflnrstu")))
            strcpy(text, words[i]);
}

static int scalar_take(struct reading *r, const yaml_event_t *event, int line)
{
    const char *text = (const char *)event->data.scalar.value;
    int quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (strlen(text) != event->data.scalar.length)
        return refuse(r, line, "a text holds a NUL character");
    if (r->depth == 0 && text[0] == '\0' && !quoted)
        return 0; /* a document of comments only */
    if (r->depth == 0)
        return refuse(r, line, "a pipeline file is made of sections (key: value)");
    char *copy = strdup(text);
    if (!copy)
        return err_errno(r->e, EXIT_CODE_TEMPORARY, "cannot read %s", r->path);
    if (r->open[r->depth - 1]->kind == NODE_MAP && !r->key) {
        r->key = copy;
        r->key_line = line;
        return key_check_new(r, copy, line);
    }
    struct node *n = node_add(r, NODE_SCALAR, line);
    if (!n) {
        free(copy);
        return -1;
    }
    n->text = copy;
    n->quoted = quoted;
    if (!quoted)
        word_lower(copy);
    return !quoted && (strcmp(copy, "~") == 0 || strcmp(copy, "null") == 0)
               ? refuse(r, line, "null is no value; leave the line out to have the default")
               : 0;
}

static int event_take(struct reading *r, const yaml_event_t *event)
{
    int line = (int)event->start_mark.line + 1;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return r->root ? refuse(r, line, "a second document begins; one is accepted") : 0;
    case YAML_ALIAS_EVENT:
        return refuse(r, line, "aliases (*name) are not accepted; write the value again");
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor, tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor, tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor, tag = event->data.mapping_start.tag;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return 0;
    default:
        return 0;
    }
    if (anchor)
        return refuse(r, line, "anchors (&name) are not accepted");
    if (tag)
        return refuse(r, line, "tags (!name) are not accepted");
    if (event->type == YAML_SCALAR_EVENT)
        return scalar_take(r, event, line);
    return collection_open(r, event->type == YAML_MAPPING_START_EVENT ? NODE_MAP : NODE_LIST, line);
}

static int events_take(struct reading *r, yaml_parser_t *parser)
{
    for (int done = 0; !done;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            const char *problem = parser->problem ? parser->problem : "out of memory";
            /* Errors of the character encoding carry an offset and no mark. */
            int line = parser->error == YAML_READER_ERROR ? 0 : (int)parser->problem_mark.line + 1;
            return origin_error((struct origin){r->path, line}, r->e, "this is not YAML: %s",
                                problem);
        }
        done = event.type == YAML_STREAM_END_EVENT;
        int result = event_take(r, &event);
        yaml_event_delete(&event);
        if (result < 0)
            return -1;
    }
    return 0;
}

int node_read(const char *path, struct node **root, struct err *e)
{
    struct reading r = {.path = path, .e = e};
    yaml_parser_t parser;
    char *data = NULL;
    size_t bytes = 0;
    int result = -1;
    *root = NULL;
    if (durable_read(path, FILE_BYTES_MAX, &data, &bytes, e) < 0)
        return -1;
    if (!yaml_parser_initialize(&parser)) {
        err_set(e, EXIT_CODE_TEMPORARY, "cannot read %s: no memory", path);
        goto out_data;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, bytes);
    if (events_take(&r, &parser) < 0)
        goto out;
    if (!r.root && !node_add(&r, NODE_MAP, 1))
        goto out;
    *root = r.root;
    r.root = NULL;
    result = 0;
out:
    yaml_parser_delete(&parser);
    free(r.key);
    node_free(r.root);
out_data:
    free(data);
    return result;
}
