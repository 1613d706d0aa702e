/* fragments.c - see fragments.h. A walk over the graph makes a tree of each component; a bond that
 * is in no ring is a branch of it, and what hangs on the branch is one of its two fragments.
 */
#include "pipelines/prepare/fragments.h"

#include <math.h>
#include <string.h>

static const double proton_da = 1.007276467, hydrogen_da = 1.00782503;

enum { NO_ATOM = UINT16_MAX };

struct walk {
    uint16_t first[MOLECULE_ATOMS_MAX + 1]; /* an atom's entries in neighbour[] */
    uint16_t neighbour[2 * MOLECULE_BONDS_MAX];
    uint16_t order[MOLECULE_ATOMS_MAX]; /* atoms, a parent before its children */
    uint16_t parent[MOLECULE_ATOMS_MAX], root[MOLECULE_ATOMS_MAX];
    double mass[MOLECULE_ATOMS_MAX]; /* of the atom and all below it */
};

static void neighbours_list(struct walk *w, const struct molecule *m)
{
    memset(w->first, 0, sizeof w->first);
    for (uint32_t i = 0; i < m->bonds; i++) {
        w->first[m->bond[i].from]++;
        w->first[m->bond[i].to]++;
    }
    for (uint32_t i = 1; i <= m->atoms; i++)
        w->first[i] += w->first[i - 1];
    for (uint32_t i = 0; i < m->bonds; i++) { /* from the end of each atom's entries to the front */
        w->neighbour[--w->first[m->bond[i].from]] = m->bond[i].to;
        w->neighbour[--w->first[m->bond[i].to]] = m->bond[i].from;
    }
}

/* Breadth first, so that order[] is the queue, too. */
static void tree_grow(struct walk *w, uint16_t root, uint32_t *count)
{
    uint32_t at = *count;
    w->order[(*count)++] = root;
    w->root[root] = root;
    w->parent[root] = root;
    while (at < *count) {
        uint16_t atom = w->order[at++];
        for (uint32_t k = w->first[atom]; k < w->first[atom + 1]; k++) {
            uint16_t next = w->neighbour[k];
            if (w->root[next] != NO_ATOM)
                continue;
            w->root[next] = root;
            w->parent[next] = atom;
            w->order[(*count)++] = next;
        }
    }
}

static void masses_sum(struct walk *w, const struct molecule *m)
{
    for (uint32_t i = 0; i < m->atoms; i++)
        w->mass[i] = m->atom[i].mass;
    for (uint32_t i = m->atoms; i-- > 0;) {
        uint16_t atom = w->order[i];
        if (w->parent[atom] != atom)
            w->mass[w->parent[atom]] += w->mass[atom];
    }
}

uint32_t fragments_make(const struct molecule *m, struct peak *peak)
{
    struct walk w;
    uint32_t reached = 0, peaks = 0;
    neighbours_list(&w, m);
    memset(w.root, 0xff, sizeof w.root); /* NO_ATOM */
    for (uint32_t i = 0; i < m->atoms; i++)
        if (w.root[i] == NO_ATOM)
            tree_grow(&w, (uint16_t)i, &reached);
    masses_sum(&w, m);
    for (uint32_t i = 0; i < m->bonds; i++) {
        const struct molecule_bond *b = &m->bond[i];
        if (b->ring)
            continue;
        double below = w.mass[w.parent[b->to] == b->from ? b->to : b->from];
        double rest = w.mass[w.root[b->from]] - below;
        float intensity = 1.0f / b->order;
        peak[peaks++] = (struct peak){(float)(below + proton_da), intensity};
        peak[peaks++] = (struct peak){(float)(rest + proton_da), intensity};
    }
    return peaks;
}

/* The fragments are made behind the places of their ions, which never overtake them. */
uint32_t ions_make(const struct molecule *m, double energy_ev, struct peak *peak)
{
    struct peak *fragment = peak + IONS_MAX - FRAGMENTS_MAX;
    uint32_t fragments = fragments_make(m, fragment), peaks = 0;
    double whole = 0;
    for (uint32_t i = 0; i < m->atoms; i++)
        whole += m->atom[i].mass;
    peak[peaks++] = (struct peak){(float)(whole + proton_da), (float)(64 * exp2(-energy_ev / 15))};
    for (uint32_t i = 0; i < fragments; i++) {
        double mz = fragment[i].mz;
        float cation = fragment[i].intensity * (float)((mz - proton_da) / whole);
        peak[peaks++] = (struct peak){(float)(mz - hydrogen_da), cation};
        peak[peaks++] = (struct peak){(float)(mz + hydrogen_da), cation / 5};
    }
    return peaks;
}
