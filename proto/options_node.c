/* options_node.c - one node of a pipeline file's tree as the value of an option. */
#include <string.h>

#include "proto/options_parts.h"

static int wrong_kind(const struct option_row *row, const struct node *n, const char *name,
                      struct origin at, struct err *e)
{
    static const char *const kinds[] = {"one word", "a list", "a section"};
    char accepted[256];
    value_accepted(row, accepted, sizeof accepted);
    return origin_error(at, e, "%s is %s; accepted is %s%s", name, kinds[n->kind], accepted,
                        row->type == OPTION_TYPE_IS_LIST ? ", written as [A, B]" : "");
}

/* One more name of "A,B". 0, or -1 if it is no word or there is no room. */
static int name_add(const struct node *n, char *text, size_t bytes)
{
    size_t used = strlen(text);
    if (n->kind != NODE_SCALAR || strchr(n->text, ',') || !n->text[0])
        return -1;
    int added = snprintf(text + used, bytes - used, "%s%s", used ? "," : "", n->text);
    return added < 0 || (size_t)added >= bytes - used ? -1 : 0;
}

/* A YAML list of names, or one name, as the text "A,B" that value_set takes; 0, or -1. */
static int list_text(const struct node *list, char *text, size_t bytes)
{
    int result = 0;
    text[0] = '\0';
    if (list->kind != NODE_LIST)
        return name_add(list, text, bytes);
    for (const struct node *n = list->first; n && result == 0; n = n->next)
        result = name_add(n, text, bytes);
    return result;
}

int node_set(const struct option_row *row, void *base, const struct node *n, const char *name,
             struct origin at, struct err *e)
{
    char names[OPTION_TEXT_MAX + 1];
    if (row->type != OPTION_TYPE_IS_LIST && n->kind == NODE_SCALAR)
        return value_set(row, base, n->text, name, at, e);
    if (row->type == OPTION_TYPE_IS_LIST && list_text(n, names, sizeof names) == 0)
        return value_set(row, base, names, name, at, e);
    return wrong_kind(row, n, name, at, e);
}
