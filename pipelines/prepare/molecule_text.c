/* molecule_text.c - see molecule_text.h. */
#include "pipelines/prepare/molecule_text.h"

#include <stdlib.h>
#include <string.h>

enum { NUMBER_DIGITS_MAX = 5 }; /* Open Babel's */

struct open_ring {
    long number;
    struct text_ring at; /* its first number */
};

struct scan {
    struct molecule_text *t;
    struct open_ring *open; /* rings whose second number is still to come */
    uint32_t opened;
    uint16_t places;
    int apart;         /* a dot stands before the next atom */
    int branches;      /* opened and not closed */
    const char *fault; /* the first */
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

/* Chirality is written in brackets, the direction of a bond outside them: elsewhere they stay, and
 * are refused. */
static void marks_drop(char *to, const char *smiles, size_t bytes)
{
    int bracket = 0;
    for (const char *c = smiles; c < smiles + bytes; c++) {
        bracket = *c == '[' || (bracket && *c != ']');
        if (bracket && *c == '@')
            c += chirality_bytes(c) - 1;
        else if (bracket || (*c != '/' && *c != '\\') || c + 1 == smiles + bytes || c[1] == ')')
            *to++ = *c;
    }
    *to = 0;
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void fault_note(struct scan *s, const char *fault)
{
    if (!s->fault)
        s->fault = fault;
}

/* The ring of that number opens, or closes. */
static void number_meet(struct scan *s, long number, char sign)
{
    struct molecule_text *t = s->t;
    struct text_ring here = {
        .atom = (uint16_t)(t->atoms - (t->atoms > 0)), .place = s->places++, .sign = sign};
    struct open_ring *open = s->open, *end = s->open + s->opened;
    while (open < end && open->number != number)
        open++;
    if (open == end) {
        *open = (struct open_ring){number, here};
        s->opened++;
        return;
    }
    char first = open->at.sign;
    if (first && sign && first != sign)
        fault_note(s, "a ring is opened by one bond and closed by another");
    if (first && !sign)
        here = open->at;
    here.from_first = first != 0;
    t->turned += first != 0;
    t->ring[t->rings++] = here; /* of two numbers, so there is room */
    *open = end[-1];
    s->opened--;
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
    if (is_bond(*c) || *c == '/' || *c == '\\')
        return !is_atom(after) && !is_digit(after) && after != '%';
    return *c == '(' && (before == '(' || before == '.' || after == ')');
}

static void atom_meet(struct scan *s, int bracket, char sign)
{
    struct molecule_text *t = s->t;
    int leads = t->atoms > 0 && !s->apart;
    t->lead[t->atoms] = !leads ? TEXT_NONE : sign ? sign : TEXT_PLAIN;
    t->bracket[t->atoms++] = (uint8_t)bracket;
    t->chains += (uint32_t)leads;
    s->apart = 0;
}

/* Past the atom in brackets at `c`. Open Babel takes more than an element, a mass, hydrogens, a
 * charge and a class: a dot is a radical to it. */
static const char *bracket_pass(struct scan *s, const char *c, char sign)
{
    const char *end = strchr(c, ']');
    atom_meet(s, 1, sign);
    if (!end)
        return c + strlen(c);
    for (c++; c < end; c++)
        if (strchr("./\\", *c))
            fault_note(s, "there is a sign in brackets that is of no atom");
    return end + 1;
}

/* Past the number of a ring at `c`: 1, %12 or %(123). NULL: there is none. */
static const char *number_pass(struct scan *s, const char *c, char sign)
{
    if (is_digit(*c)) {
        number_meet(s, *c - '0', sign);
        return c + 1;
    }
    if (*c == '%' && is_digit(c[1]) && is_digit(c[2])) {
        number_meet(s, (c[1] - '0') * 10 + c[2] - '0', sign);
        return c + 3;
    }
    size_t digits = strncmp(c, "%(", 2) == 0 ? strspn(c + 2, "0123456789") : 0;
    if (!digits || digits > NUMBER_DIGITS_MAX || c[2 + digits] != ')')
        return NULL;
    number_meet(s, strtol(c + 2, NULL, 10), sign);
    return c + digits + 3;
}

/* Past what stands at `c`: an atom, a number or something else. */
static const char *sign_pass(struct scan *s, const char *c)
{
    char sign = (char)(c > s->t->text && is_bond(c[-1]) ? c[-1] : 0);
    if (*c == '[')
        return bracket_pass(s, c, sign);
    const char *after = number_pass(s, c, sign);
    if (after)
        return after;
    if (is_atom(*c))
        atom_meet(s, 0, sign);
    if (is_lacking(s, c))
        fault_note(s, "a bond or a branch leads to no atom");
    s->apart = *c == '.' || (s->apart && *c != ')');
    s->branches += (*c == '(') - (*c == ')');
    return c + 1;
}

const char *molecule_text_read(struct molecule_text *t, const char *smiles, size_t bytes)
{
    struct open_ring open[TEXT_BYTES_MAX];
    struct scan s = {.t = t, .open = open};
    t->atoms = t->chains = t->rings = t->turned = 0;
    marks_drop(t->text, smiles, bytes);
    for (const char *c = t->text; *c;)
        c = sign_pass(&s, c);
    if (s.branches)
        return "its parentheses do not match";
    if (strpbrk(t->text, ">&")) /* a reaction, a bond to what is not there */
        return "it is more than a molecule";
    return s.fault;
}
