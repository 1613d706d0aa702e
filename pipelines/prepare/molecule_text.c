/* molecule_text.c - see molecule_text.h. */
#include "pipelines/prepare/molecule_text.h"

#include <string.h>

enum { NUMBERS = 100, CLOSED = UINT16_MAX };

struct scan {
    struct molecule_text *t;
    struct {
        struct text_ring at; /* its first number; place is CLOSED: there is none */
        int sign;            /* it has a sign of a bond */
    } open[NUMBERS];
    uint16_t places;
    int branches; /* opened and not closed */
    int lacking;  /* a sign of a bond leads to nothing, or a branch has no atom */
};

/* Bytes of the chirality at `at`, which is an '@': that, "@@", or a tag as "@TH1", "@OH12". */
static size_t chirality_bytes(const char *at)
{
    static const char *const tags[] = {"TH", "AL", "SP", "TB", "OH"};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (strncmp(at + 1, tags[i], 2) == 0)
            return 3 + strspn(at + 3, "0123456789");
    return at[1] == '@' ? 2 : 1;
}

static size_t marks_drop(char *to, const char *smiles, size_t bytes)
{
    char *at = to;
    for (const char *c = smiles; c < smiles + bytes; c++) {
        if (*c == '@')
            c += chirality_bytes(c) - 1;
        else if (*c != '/' && *c != '\\')
            *at++ = *c;
    }
    *at = 0;
    return (size_t)(at - to);
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The ring of that number opens, or closes. */
static void number_meet(struct scan *s, int number, int sign)
{
    struct molecule_text *t = s->t;
    struct text_ring here = {.atom = (uint16_t)(t->atoms - (t->atoms > 0)), .place = s->places++};
    if (s->open[number].at.place == CLOSED) {
        s->open[number].at = here;
        s->open[number].sign = sign;
        return;
    }
    int first = s->open[number].sign;
    if (first && !sign)
        here = s->open[number].at;
    here.from_first = (uint8_t)first;
    t->turned += (uint32_t)first;
    t->ring[t->rings++] = here; /* of two numbers, so there is room */
    s->open[number].at.place = CLOSED;
}

static int is_atom(char c)
{
    return (c >= 'A' && c <= 'Z') || (c && strchr("[bcnops*", c)); /* not the l and r of Cl, Br */
}

static int is_bond(char c)
{
    return c && strchr("-=#:$", c);
}

/* Is a bond or a branch at `c` without an atom that it leads to, or a branch without one it is of?
 */
static int is_lacking(const struct scan *s, const char *c)
{
    char before = c > s->t->text ? c[-1] : '(', after = c[1];
    if (is_bond(*c))
        return !is_atom(after) && !is_digit(after) && after != '%';
    return *c == '(' && (before == '(' || before == '.' || after == ')');
}

/* Past what stands at `c`: an atom, a number or something else. */
static const char *sign_pass(struct scan *s, const char *c)
{
    int bond = c > s->t->text && is_bond(c[-1]);
    if (*c == '[') {
        s->t->bracket[s->t->atoms++] = 1;
        const char *end = strchr(c, ']');
        return end ? end + 1 : c + strlen(c);
    }
    if (*c == '%' && is_digit(c[1]) && is_digit(c[2])) {
        number_meet(s, (c[1] - '0') * 10 + c[2] - '0', bond);
        return c + 3;
    }
    if (is_digit(*c))
        number_meet(s, *c - '0', bond);
    else if (is_atom(*c))
        s->t->bracket[s->t->atoms++] = 0;
    s->lacking |= is_lacking(s, c);
    s->branches += (*c == '(') - (*c == ')');
    return c + 1;
}

const char *molecule_text_read(struct molecule_text *t, const char *smiles, size_t bytes)
{
    struct scan s = {.t = t};
    for (int i = 0; i < NUMBERS; i++)
        s.open[i].at.place = CLOSED;
    t->atoms = t->rings = t->turned = 0;
    marks_drop(t->text, smiles, bytes);
    for (const char *c = t->text; *c;)
        c = sign_pass(&s, c);
    if (s.branches)
        return "its parentheses do not match";
    if (s.lacking)
        return "a bond or a branch leads to no atom";
    if (strpbrk(t->text, ">&")) /* a reaction, a bond to what is not there */
        return "it is more than a molecule";
    return NULL;
}
