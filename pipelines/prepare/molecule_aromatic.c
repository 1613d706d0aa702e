/* molecule_aromatic.c - see molecule_aromatic.h. Only the atoms that may be in an aromatic ring and
 * have two neighbours of their kind are walked over; a walk from each of them finds the cycles in
 * which it is the first atom, each once, and short ones before long ones, which are looked for only
 * where bonds are left. That a ring turns aromatic can free another one's double bonds, so all is
 * done again until nothing changes.
 */
#include "pipelines/prepare/molecule_aromatic.h"

#include <string.h>

enum {
    CYCLE_ATOMS_MAX = 22,
    STEPS_MAX = 1 << 21, /* some 40 ms; fullerene takes a third, most molecules a few hundred */
    NO_ELECTRONS = -1,   /* in no aromatic ring */
};

enum { BORON = 5, CARBON = 6, NITROGEN = 7, OXYGEN = 8, SULPHUR = 16 };

struct neighbour {
    uint16_t atom, bond;
};

struct bonding {
    int sum;             /* of orders, and hydrogens */
    int inside, outside; /* double bonds in rings, in none */
    int bars;            /* a triple bond, or a double bond outside that no ring can bear */
    int ring;
};

struct search {
    struct molecule *m;
    int8_t electrons[MOLECULE_ATOMS_MAX];
    uint16_t candidates[MOLECULE_ATOMS_MAX]; /* neighbours that may be aromatic too */
    uint16_t bound[MOLECULE_ATOMS_MAX];      /* its double bonds that a ring through it must hold */
    uint8_t bound_at[MOLECULE_BONDS_MAX];    /* 1: at its first end, 2: at its second */
    struct bonding of[MOLECULE_ATOMS_MAX];
    uint16_t first[MOLECULE_ATOMS_MAX + 1]; /* an atom's entries in next[] */
    struct neighbour next[2 * MOLECULE_BONDS_MAX];
    uint8_t on_path[MOLECULE_ATOMS_MAX];
    struct neighbour path[CYCLE_ATOMS_MAX]; /* atoms, and the bond that led to each */
    uint32_t length_max, steps;
    uint32_t left; /* bonds that may be aromatic and are not */
    int changed;
    void (*meet)(struct search *s, uint32_t length); /* a cycle is on the path */
    uint32_t swaps_before, swap_length;              /* see swap_find */
    uint16_t swap[CYCLE_ATOMS_MAX];
};

/* ---- atoms ---------------------------------------------------------------------------------- */

/* Outer electrons; 0: not of the groups 13 to 17. */
static int outer_electrons(uint8_t element)
{
    static const uint8_t first[] = {BORON, 13, 31, 49, 81}, last[] = {9, 17, 35, 53, 83};
    for (size_t i = 0; i < sizeof first; i++)
        if (element >= first[i] && element <= last[i])
            return element - first[i] + 3;
    return 0;
}

static int is_five_valent(const struct molecule_atom *a, int sum)
{
    return a->element == NITROGEN && a->charge == 0 && sum == 5;
}

/* May this double bond of an aromatic atom lead out of the ring? */
static int may_leave(uint8_t from, uint8_t to)
{
    return (from == CARBON && (to == NITROGEN || to == OXYGEN || to == SULPHUR)) ||
           (from == SULPHUR && to == OXYGEN);
}

static void bondings_sum(const struct molecule *m, struct bonding *of)
{
    for (uint32_t i = 0; i < m->atoms; i++)
        of[i] = (struct bonding){.sum = m->atom[i].hydrogens};
    for (uint32_t i = 0; i < m->bonds; i++) {
        const struct molecule_bond *b = &m->bond[i];
        of[b->from].sum += b->order;
        of[b->to].sum += b->order;
        of[b->from].ring |= b->ring;
        of[b->to].ring |= b->ring;
    }
}

static void doubles_count(struct search *s)
{
    for (uint32_t i = 0; i < s->m->bonds; i++) {
        const struct molecule_bond *b = &s->m->bond[i];
        const uint16_t end[2] = {b->from, b->to};
        for (int k = 0; k < 2 && b->order > 1; k++) {
            const struct molecule_atom *a = &s->m->atom[end[k]];
            struct bonding *at = &s->of[end[k]];
            at->inside += b->order == 2 && b->ring;
            at->outside += b->order == 2 && !b->ring;
            at->bars |= b->order == 3 ||
                        (!b->ring && !may_leave(a->element, s->m->atom[end[1 - k]].element) &&
                         !is_five_valent(a, at->sum));
        }
    }
}

static int electrons_of(const struct molecule_atom *a, const struct bonding *at)
{
    int outer = outer_electrons(a->element);
    if (!at->ring || !outer || at->bars)
        return NO_ELECTRONS;
    if (at->inside)
        return 1;
    if (at->outside)
        return at->outside > 1 ? NO_ELECTRONS : a->element == SULPHUR ? 2 : 0;
    int left = outer - a->charge - at->sum;
    if (left < 0)
        return NO_ELECTRONS;
    if (left % 2)
        return 1;
    if (at->sum + left / 2 < 4)
        return 0;
    return left && at->sum + left / 2 == 4 ? 2 : NO_ELECTRONS;
}

/* ---- the graph of atoms that may be aromatic --------------------------------------------------
 */

static int is_candidate(const struct search *s, const struct molecule_bond *b)
{
    return b->ring && s->electrons[b->from] >= 0 && s->electrons[b->to] >= 0;
}

static void neighbours_list(struct search *s)
{
    const struct molecule *m = s->m;
    memset(s->first, 0, sizeof s->first);
    for (uint32_t i = 0; i < m->bonds; i++)
        if (is_candidate(s, &m->bond[i])) {
            s->first[m->bond[i].from]++;
            s->first[m->bond[i].to]++;
        }
    for (uint32_t i = 0; i < m->atoms; i++)
        s->candidates[i] = s->first[i];
    for (uint32_t i = 1; i <= m->atoms; i++)
        s->first[i] += s->first[i - 1];
    for (uint32_t i = 0; i < m->bonds; i++)
        if (is_candidate(s, &m->bond[i])) {
            uint16_t from = m->bond[i].from, to = m->bond[i].to;
            s->next[--s->first[from]] = (struct neighbour){to, (uint16_t)i};
            s->next[--s->first[to]] = (struct neighbour){from, (uint16_t)i};
        }
}

/* An atom with fewer than two neighbours closes no cycle, nor do then those it was one of. */
static void ends_drop(struct search *s)
{
    for (uint32_t i = 0; i < s->m->atoms; i++) {
        uint32_t atom = i;
        while (s->electrons[atom] >= 0 && s->candidates[atom] < 2) {
            s->electrons[atom] = NO_ELECTRONS;
            for (uint32_t k = s->first[atom]; k < s->first[atom + 1]; k++)
                if (s->electrons[s->next[k].atom] >= 0) { /* one at most */
                    atom = s->next[k].atom;
                    s->candidates[atom]--;
                    break;
                }
        }
    }
}

/* Which double bonds a ring must hold that is to be aromatic. */
static void bounds_find(struct search *s)
{
    const struct molecule *m = s->m;
    memset(s->bound, 0, m->atoms * sizeof s->bound[0]);
    memset(s->bound_at, 0, m->bonds);
    for (uint32_t i = 0; i < m->bonds; i++) {
        const struct molecule_bond *b = &m->bond[i];
        const uint16_t end[2] = {b->from, b->to};
        for (int k = 0; k < 2 && b->order == 2; k++) {
            const struct molecule_atom *a = &m->atom[end[k]];
            if (may_leave(a->element, m->atom[end[1 - k]].element) ||
                is_five_valent(a, s->of[end[k]].sum))
                continue;
            s->bound[end[k]]++;
            s->bound_at[i] |= (uint8_t)(1 << k);
        }
    }
}

/* 0: no atom may be aromatic. */
static int search_begin(struct search *s)
{
    int any = 0;
    bondings_sum(s->m, s->of);
    doubles_count(s);
    for (uint32_t i = 0; i < s->m->atoms; i++) {
        s->electrons[i] = (int8_t)electrons_of(&s->m->atom[i], &s->of[i]);
        any |= s->electrons[i] >= 0;
    }
    if (!any)
        return 0;
    neighbours_list(s);
    ends_drop(s);
    bounds_find(s);
    for (uint32_t i = 0; i < s->m->bonds; i++)
        s->left += (uint32_t)is_candidate(s, &s->m->bond[i]);
    memset(s->on_path, 0, s->m->atoms);
    return 1;
}

/* ---- cycles --------------------------------------------------------------------------------- */

static int is_aromatic(const struct search *s, uint32_t length)
{
    int electrons = 0, known = 1;
    for (uint32_t i = 0; i < length; i++) {
        electrons += s->electrons[s->path[i].atom];
        known &= s->m->bond[s->path[i].bond].order == MOLECULE_ORDER_AROMATIC;
    }
    if (electrons % 4 != 2 || known)
        return 0;
    for (uint32_t i = 0; i < length; i++) {
        uint16_t atom = s->path[i].atom;
        const uint16_t bond[2] = {s->path[i].bond, s->path[(i + 1) % length].bond};
        int doubles = 0, held = 0;
        for (int k = 0; k < 2; k++) {
            const struct molecule_bond *b = &s->m->bond[bond[k]];
            doubles += b->order == 2;
            held += b->order == 2 && s->bound_at[bond[k]] & (b->from == atom ? 1 : 2);
        }
        if (doubles > 1 || held < s->bound[atom])
            return 0;
    }
    return 1;
}

static void bond_mark(struct search *s, uint16_t bond)
{
    struct molecule_bond *b = &s->m->bond[bond];
    s->left -= b->order != MOLECULE_ORDER_AROMATIC;
    if (b->order == 2) {
        s->bound[b->from] -= s->bound_at[bond] & 1;
        s->bound[b->to] -= s->bound_at[bond] >> 1;
    }
    b->order = MOLECULE_ORDER_AROMATIC;
}

/* Its bonds, and those that lead across it from one of its atoms to another. */
static void cycle_judge(struct search *s, uint32_t length)
{
    if (!is_aromatic(s, length))
        return;
    for (uint32_t i = 0; i < length; i++) {
        uint16_t atom = s->path[i].atom;
        for (uint32_t k = s->first[atom]; k < s->first[atom + 1]; k++)
            if (s->on_path[s->next[k].atom])
                bond_mark(s, s->next[k].bond);
    }
    s->changed = 1;
}

/* All ways on from the last of `length` atoms, over atoms after the first one. A cycle is met in
 * both directions and looked at in one. */
static void path_extend(struct search *s, uint32_t length)
{
    uint16_t start = s->path[0].atom, last = s->path[length - 1].atom;
    for (uint32_t k = s->first[last]; s->left && k < s->first[last + 1]; k++) {
        struct neighbour to = s->next[k];
        if (to.atom == start && length > 2 && s->path[1].atom < last) {
            s->path[0].bond = to.bond;
            s->meet(s, length);
        }
        if (to.atom <= start || s->on_path[to.atom] || s->electrons[to.atom] < 0 ||
            length == s->length_max || ++s->steps > STEPS_MAX)
            continue;
        s->on_path[to.atom] = 1;
        s->path[length] = to;
        path_extend(s, length + 1);
        s->on_path[to.atom] = 0;
    }
}

/* Calls `meet` for each cycle of at most length_max atoms. */
static void cycles_meet(struct search *s, uint32_t length_max,
                        void (*meet)(struct search *s, uint32_t length))
{
    s->length_max = length_max;
    s->meet = meet;
    for (uint32_t i = 0; i < s->m->atoms; i++) {
        if (s->electrons[i] < 0)
            continue;
        s->path[0].atom = (uint16_t)i;
        s->on_path[i] = 1;
        path_extend(s, 1);
        s->on_path[i] = 0;
    }
}

static void bonds_judge(struct search *s)
{
    static const uint8_t lengths[] = {6, 10, CYCLE_ATOMS_MAX};
    for (size_t i = 0; i < sizeof lengths; i++)
        do {
            s->changed = 0;
            cycles_meet(s, lengths[i], cycle_judge);
        } while (s->changed && s->steps <= STEPS_MAX);
}

/* ---- other Kekule forms ---------------------------------------------------------------------- */

/* Keep the cycle, after swaps_before others, in which all atoms are written as aromatic and single
 * and double bonds take turns, so that they might be swapped. */
static void swap_find(struct search *s, uint32_t length)
{
    if (s->swap_length || length % 2)
        return;
    for (uint32_t i = 0; i < length; i++) {
        int order = s->m->bond[s->path[i].bond].order;
        int next = s->m->bond[s->path[(i + 1) % length].bond].order;
        if (!s->m->atom[s->path[i].atom].aromatic || order + next != 3)
            return;
    }
    if (s->swaps_before-- > 0)
        return;
    for (uint32_t i = 0; i < length; i++)
        s->swap[i] = s->path[i].bond;
    s->swap_length = length;
}

static void swap_do(struct search *s)
{
    for (uint32_t i = 0; i < s->swap_length; i++)
        s->m->bond[s->swap[i]].order = (uint8_t)(3 - s->m->bond[s->swap[i]].order);
    bounds_find(s);
}

/* The Kekule form of a text with aromatic atoms is one of several, and not each shows that a ring
 * is aromatic: not the one of biphenylene with double bonds between its two benzenes. */
static void forms_try(struct search *s)
{
    for (uint32_t tried = 0; s->left && s->steps <= STEPS_MAX; tried++) {
        uint32_t left = s->left;
        s->swap_length = 0;
        s->swaps_before = tried;
        cycles_meet(s, CYCLE_ATOMS_MAX, swap_find);
        if (!s->swap_length)
            return;
        swap_do(s);
        bonds_judge(s);
        if (s->left < left)
            tried = UINT32_MAX; /* from the first one again */
        else
            swap_do(s);
    }
}

int molecule_aromatic_find(struct molecule *m)
{
    static struct search s;
    s.m = m;
    s.left = s.steps = 0;
    if (!search_begin(&s))
        return 1;
    bonds_judge(&s);
    forms_try(&s);
    return !s.left || s.steps <= STEPS_MAX;
}
