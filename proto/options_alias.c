/* options_alias.c - sections that are not ours and that a pipeline file may have all the same:
 * `finetuning` and `gpu_optimization`, whose keys are other names (aliases) of our options, and
 * `pretraining`, which is a run of its own here.
 *
 * An alias is found by its last word, which no two options share. Options of the other sections
 * have none: there are words among theirs that are something else where steps or GPUs are spoken of
 * (gamma, half, mode), and a key that is taken for another is worse than one that is unknown.
 */
#include <string.h>

#include "proto/options_parts.h"

static const char *const sections_of_aliases[] = {"finetuning", "gpu_optimization"};
static const char *const sections_with_aliases[] = {"data.",     "loader.", "model.",
                                                    "training.", "memory.", "monitor."};
static const char epochs_section[] = "finetuning", epochs_word[] = "epochs";

enum {
    ALIAS_SECTIONS = sizeof sections_of_aliases / sizeof *sections_of_aliases,
    SECTIONS_WITH = sizeof sections_with_aliases / sizeof *sections_with_aliases,
};

/* Words that are something else in most sections one level deeper: a model's or an optimizer's
 * name, an augmentation's scale, the rows of an evaluation's batch, the rate of a head. Those of
 * one part are all taken for such. */
static int word_is_general(const char *word)
{
    return !strchr(word, '_') || strcmp(word, "batch_size") == 0 ||
           strcmp(word, "learning_rate") == 0;
}

static int row_is(const char *key)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    return row_find(rows, count, key) != NULL;
}

/* The last word of a key below `section` or, one level deeper, below a section there; else NULL. */
static const char *word_below(const char *key, const char *section)
{
    size_t length = strlen(section);
    if (strncmp(key, section, length) != 0 || key[length] != '.' || strlen(key) >= OPTION_KEY_MAX)
        return NULL; /* a key that long may have been cut */
    const char *word = key + length + 1, *dot = strchr(word, '.');
    if (!dot)
        return word;
    if (strchr(dot + 1, '.') || (word_is_general(dot + 1) && !row_is(word)))
        return NULL;
    return dot + 1;
}

int alias_section(const char *section)
{
    for (int i = 0; i < ALIAS_SECTIONS; i++)
        if (strcmp(sections_of_aliases[i], section) == 0)
            return 1;
    return 0;
}

int alias_below(const char *key)
{
    for (int i = 0; i < ALIAS_SECTIONS; i++) {
        size_t length = strlen(sections_of_aliases[i]);
        if (strncmp(key, sections_of_aliases[i], length) == 0 && key[length] == '.')
            return 1;
    }
    return 0;
}

/* Options whose words are others' in such sections: a file of weights, a share of the rows. */
static const char *const rows_without[] = {"data.weights", "data.validation", "data.scale"};

/* Has the option aliases? Those of the top of the file have. */
static int row_has_aliases(const struct option_row *row)
{
    int has = !strchr(row->key, '.');
    for (size_t i = 0; i < sizeof rows_without / sizeof *rows_without; i++)
        if (strcmp(row->key, rows_without[i]) == 0)
            return 0;
    for (int i = 0; i < SECTIONS_WITH; i++)
        has |= strncmp(row->key, sections_with_aliases[i], strlen(sections_with_aliases[i])) == 0;
    return has;
}

const struct option_row *alias_row(const char *key)
{
    size_t count;
    const struct option_row *rows = option_rows(&count);
    for (int i = 0; i < ALIAS_SECTIONS; i++) {
        const char *word = word_below(key, sections_of_aliases[i]);
        for (size_t k = 0; word && k < count; k++)
            if (strcmp(key_word(rows[k].key), word) == 0 && row_has_aliases(&rows[k]))
                return &rows[k];
    }
    return NULL;
}

int alias_of_epochs(const char *key)
{
    const char *word = word_below(key, epochs_section);
    return word && strcmp(word, epochs_word) == 0;
}

/* ---- pretraining --------------------------------------------------------------------------------
 */

static const char pretraining[] = "pretraining";
static const char *const pretraining_switches[] = {"enabled", "use_pretraining"};

static int is_switch(const char *word)
{
    return strcmp(word, pretraining_switches[0]) == 0 || strcmp(word, pretraining_switches[1]) == 0;
}

int pretraining_key(const char *key)
{
    size_t length = sizeof pretraining - 1;
    return strncmp(key, pretraining, length) == 0 && (key[length] == '\0' || key[length] == '.');
}

int pretraining_off_node(const struct node *n)
{
    if (n->kind == NODE_SCALAR)
        return !n->text[0] || strcasecmp(n->text, "false") == 0;
    int off = n->kind == NODE_MAP && n->entries == 0;
    for (const struct node *c = n->first; n->kind == NODE_MAP && c; c = c->next)
        off |= is_switch(c->key) && c->kind == NODE_SCALAR && strcasecmp(c->text, "false") == 0;
    return off;
}

int pretraining_off_text(const char *key, const char *text)
{
    size_t length = sizeof pretraining - 1;
    return (key[length] == '\0' || is_switch(key + length + 1)) && strcmp(text, "false") == 0;
}

int pretraining_error(struct origin at, struct err *e)
{
    return origin_error(at, e,
                        "pretraining is a run of its own: write what is below it into another "
                        "pipeline file, its options below training and its epochs in tasks, run "
                        "that, and give here model.pretrained: runs/NAME/checkpoints/task-TASK.h5 "
                        "(with model.pretrained_head: fresh where the last layer is another); a "
                        "section with enabled: false or use_pretraining: false is passed over");
}

/* ---- for people ---------------------------------------------------------------------------------
 */

void aliases_print(FILE *out)
{
    fputs("\n## `finetuning`, `gpu_optimization`, `pretraining`\n\n"
          "Files that were written for other programs often have these sections. Below "
          "`finetuning:` and\n`gpu_optimization:`, or in a section one level deeper, a key that "
          "names an option of the top of the\nfile or of the sections ",
          out);
    for (int i = 0; i < SECTIONS_WITH; i++)
        fprintf(out, "%s`%.*s`",
                i == 0                  ? ""
                : i + 1 < SECTIONS_WITH ? ", "
                                        : " and ",
                (int)strlen(sections_with_aliases[i]) - 1, sections_with_aliases[i]);
    fputs(
        " is that\noption: `finetuning: {learning_rate: 1e-4}` is `training: {learning_rate: "
        "1e-4}`. `--set` takes such keys,\ntoo. The options of other sections are given in "
        "their own alone, since words such as `gamma` or `half`\nmean something else in these; so "
        "do, one "
        "level deeper, words of one part (`scale`), `batch_size` and\n`learning_rate`, but below a "
        "section of ours (`finetuning: {training: {batch_size: 8}}`).\n"
        "What one file says in two sections is refused; a later source overrides\nan earlier "
        "one, whichever section either has it in. The effective file has our own sections.\n\n"
        "`finetuning.epochs` is the `epochs` of all tasks that say none themselves. Where there "
        "is no `tasks:`, it\nmakes one task, called `finetuning`.\n\n"
        "`pretraining:` is a run of its own: it has a pipeline file of its own, and the run that "
        "goes on with its\nweights names them as `model.pretrained`. The section is refused "
        "unless it is empty or says\n`enabled: false` or `use_pretraining: false`; then nothing "
        "in it counts.\n",
        out);
}
