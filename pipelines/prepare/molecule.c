/* molecule.c - see molecule.h. Open Babel reads the text (molecule_babel.h); here valences are
 * judged, hydrogens folded, the bonds put where the text has them, and what an atom has of its
 * bonds is summed up.
 */
#include "pipelines/prepare/molecule.h"

#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/molecule_aromatic.h"
#include "pipelines/prepare/molecule_babel.h"
#include "pipelines/prepare/molecule_text.h"

enum { HYDROGEN = 1, NITROGEN = 7, SULPHUR = 16, NO_ATOM = UINT16_MAX };
_Static_assert((int)MOLECULE_SMILES_MAX == (int)BABEL_SMILES_MAX &&
                   (int)MOLECULE_SMILES_MAX == (int)TEXT_BYTES_MAX,
               "what is read");

static char why[256];

const char *molecule_why(void)
{
    return why;
}

const char *molecule_refusal_name(enum molecule_refusal refusal)
{
    static const char *const names[MOLECULE_REFUSALS] = {
        [MOLECULE_ACCEPTED] = "accepted",     [MOLECULE_UNREADABLE] = "unreadable",
        [MOLECULE_UNSPECIFIC] = "unspecific", [MOLECULE_VALENCE] = "valence",
        [MOLECULE_LARGE] = "large",
    };
    ensure(refusal < MOLECULE_REFUSALS);
    return names[refusal];
}

static enum molecule_refusal refuse(enum molecule_refusal refusal, const char *text)
{
    snprintf(why, sizeof why, "%s", text);
    return refusal;
}

const char *molecule_symbol(const struct molecule_atom *a)
{
    return babel_symbol(a->element);
}

int molecule_begin(struct err *e)
{
    enum babel_result result = babel_open();
    if (result == BABEL_MEMORY)
        return err_set(e, EXIT_CODE_TEMPORARY,
                       "cannot read molecules: no memory to open Open Babel with");
    return result == BABEL_READ
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT,
                         "cannot read molecules: Open Babel finds no reader of SMILES among its "
                         "plugins (smilesformat.so, which comes with Open Babel's library, or is "
                         "where BABEL_LIBDIR says)");
}

/* ---- atoms ---------------------------------------------------------------------------------- */

struct reading {
    struct molecule_text text;
    struct babel_molecule raw;
    uint16_t degree[BABEL_SMILES_MAX];
    uint16_t valence[BABEL_SMILES_MAX]; /* the orders of its bonds, and its hydrogens */
    uint16_t host[BABEL_SMILES_MAX];    /* of a hydrogen that is folded; NO_ATOM: it stays */
    uint16_t place[BABEL_SMILES_MAX];   /* of an atom in the graph */
    const struct text_ring *ring[BABEL_SMILES_MAX]; /* that a bond closes, or NULL */
    uint16_t order[BABEL_SMILES_MAX];               /* of the bonds */
};

static void bonds_sum(struct reading *r)
{
    const struct babel_molecule *w = &r->raw;
    memset(r->degree, 0, w->atoms * sizeof r->degree[0]);
    for (uint32_t i = 0; i < w->atoms; i++)
        r->valence[i] = (uint16_t)w->atom[i].hydrogens;
    for (uint32_t i = 0; i < w->bonds; i++) {
        r->degree[w->bond[i].from]++;
        r->degree[w->bond[i].to]++;
        r->valence[w->bond[i].from] += w->bond[i].order;
        r->valence[w->bond[i].to] += w->bond[i].order;
    }
}

/* An atom outside brackets has as many hydrogens as fill up one of its element's valences, of which
 * each second number up to the largest is one. Where the bonds exceed that there are none to tell,
 * nor are there for nitrogen beyond three: five bonds are a nitro group as it is often written. */
static int is_possible(const struct babel_atom *a, uint16_t valence)
{
    static const uint8_t most[] = {[5] = 3,  [6] = 4,       [NITROGEN] = 5, [8] = 2,  [9] = 1,
                                   [15] = 5, [SULPHUR] = 6, [17] = 7,       [35] = 7, [53] = 7};
    if (a->element >= sizeof most || !most[a->element])
        return 1;
    return valence <= most[a->element] && valence % 2 == most[a->element] % 2 &&
           !(a->element == NITROGEN && a->hydrogens && valence > 3);
}

static enum molecule_refusal valences_judge(const struct reading *r)
{
    const struct babel_molecule *w = &r->raw;
    for (uint32_t i = 0; i < w->atoms; i++) {
        if (w->atom[i].aromatic && w->atom[i].element == SULPHUR && r->valence[i] > 4)
            return refuse(MOLECULE_VALENCE, "an aromatic sulphur has six bonds");
        if (!r->text.bracket[i] && !is_possible(&w->atom[i], r->valence[i]))
            return refuse(MOLECULE_VALENCE, "an atom has more bonds than its element can have");
    }
    return MOLECULE_ACCEPTED;
}

static int may_fold(const struct reading *r, uint16_t atom)
{
    const struct babel_atom *a = &r->raw.atom[atom];
    return a->element == HYDROGEN && !a->isotope && !a->charge && !a->hydrogens &&
           r->degree[atom] == 1 && r->valence[atom] == 1;
}

/* A hydrogen whose one neighbour is another element becomes one of that atom's count. */
static void hydrogens_fold(struct reading *r)
{
    struct babel_molecule *w = &r->raw;
    memset(r->host, 0xff, w->atoms * sizeof r->host[0]); /* NO_ATOM */
    for (uint32_t i = 0; i < w->bonds; i++) {
        const uint16_t end[2] = {w->bond[i].from, w->bond[i].to};
        for (int k = 0; k < 2; k++) {
            if (!may_fold(r, end[k]) || w->atom[end[1 - k]].element == HYDROGEN)
                continue;
            r->host[end[k]] = end[1 - k];
            w->atom[end[1 - k]].hydrogens++;
        }
    }
}

static enum molecule_refusal atoms_take(struct molecule *m, struct reading *r)
{
    for (uint32_t i = 0; i < r->raw.atoms; i++) {
        const struct babel_atom *a = &r->raw.atom[i];
        if (r->host[i] != NO_ATOM)
            continue;
        if (!a->element)
            return refuse(MOLECULE_UNSPECIFIC, "an atom is no element");
        if (m->atoms == MOLECULE_ATOMS_MAX)
            return refuse(MOLECULE_LARGE, "it has too many atoms");
        if (a->hydrogens > UINT8_MAX || a->charge < INT8_MIN || a->charge > INT8_MAX ||
            a->isotope > UINT16_MAX)
            return refuse(MOLECULE_VALENCE, "an atom has an impossible charge, mass or valence");
        r->place[i] = (uint16_t)m->atoms;
        m->atom[m->atoms++] = (struct molecule_atom){.element = a->element,
                                                     .hydrogens = (uint8_t)a->hydrogens,
                                                     .charge = (int8_t)a->charge,
                                                     .aromatic = a->aromatic, /* as written */
                                                     .isotope = (uint16_t)a->isotope};
    }
    return m->atoms ? MOLECULE_ACCEPTED : refuse(MOLECULE_UNREADABLE, "it has no atom");
}

/* ---- bonds ---------------------------------------------------------------------------------- */

/* Which bonds close a ring, in the order of the text's numbers: all but the one that leads on to
 * an atom, its first, for no earlier atom is bonded twice to it. */
static enum molecule_refusal rings_tell(struct reading *r)
{
    uint8_t reached[BABEL_SMILES_MAX] = {0};
    uint32_t rings = 0;
    int odd = 0;
    if (r->raw.bonds != r->text.chains + r->text.rings)
        return refuse(MOLECULE_UNREADABLE, "two of its atoms are bonded twice");
    for (uint32_t i = 0; i < r->raw.bonds; i++) {
        const struct babel_bond *b = &r->raw.bond[i];
        int leads = !reached[b->to] && r->text.lead[b->to] != TEXT_NONE;
        if (!leads && rings == r->text.rings)
            return refuse(MOLECULE_UNREADABLE, "its bonds are not those of its text");
        r->ring[i] = leads ? NULL : &r->text.ring[rings++];
        char sign = leads ? r->text.lead[b->to] : r->ring[i]->sign;
        if (sign == ':' && !(r->raw.atom[b->from].aromatic && r->raw.atom[b->to].aromatic))
            return refuse(MOLECULE_UNREADABLE, "an aromatic bond is of an atom that is not");
        odd |= !leads && !reached[b->to];
        reached[b->to] = 1;
    }
    if (odd) { /* as in C1.C1: all lead on */
        memset(r->ring, 0, r->raw.bonds * sizeof r->ring[0]);
        r->text.turned = 0;
    }
    return MOLECULE_ACCEPTED;
}

/* Where in the text a bond is written: at an atom, or after one at a number. */
static uint32_t bond_place(const struct reading *r, uint32_t bond)
{
    const struct babel_bond *b = &r->raw.bond[bond];
    const struct text_ring *ring = r->ring[bond];
    return ring ? (uint32_t)ring->atom << 16 | (ring->place + 1u) : (uint32_t)b->to << 16;
}

/* Bonds are in the order in which rings are closed, but for a few in that of the places. */
static void bonds_order(struct reading *r)
{
    for (uint32_t i = 0; i < r->raw.bonds; i++) {
        uint32_t at = i;
        r->order[i] = (uint16_t)i;
        for (; at > 0 && bond_place(r, r->order[at - 1]) > bond_place(r, i) && r->text.turned; at--)
            r->order[at] = r->order[at - 1];
        r->order[at] = (uint16_t)i;
    }
}

static enum molecule_refusal bonds_take(struct molecule *m, struct reading *r)
{
    enum molecule_refusal refusal = rings_tell(r);
    if (refusal != MOLECULE_ACCEPTED)
        return refusal;
    bonds_order(r);
    for (uint32_t i = 0; i < r->raw.bonds; i++) {
        const struct babel_bond *b = &r->raw.bond[r->order[i]];
        const struct text_ring *ring = r->ring[r->order[i]];
        if (r->host[b->from] != NO_ATOM || r->host[b->to] != NO_ATOM)
            continue;
        if (m->bonds == MOLECULE_BONDS_MAX)
            return refuse(MOLECULE_LARGE, "it has too many bonds");
        if (b->order < 1 || b->order > 3)
            return refuse(MOLECULE_UNSPECIFIC, "a bond has no order");
        int back = ring && !ring->from_first;
        m->bond[m->bonds++] = (struct molecule_bond){.from = r->place[back ? b->to : b->from],
                                                     .to = r->place[back ? b->from : b->to],
                                                     .order = b->order,
                                                     .ring = b->ring};
    }
    return MOLECULE_ACCEPTED;
}

/* What an atom has of its bonds. */
static void bonds_spread(struct molecule *m)
{
    for (uint32_t i = 0; i < m->atoms; i++)
        m->atom[i].aromatic = 0;
    for (uint32_t i = 0; i < m->bonds; i++) {
        const struct molecule_bond *b = &m->bond[i];
        struct molecule_atom *end[2] = {&m->atom[b->from], &m->atom[b->to]};
        for (int k = 0; k < 2; k++) {
            end[k]->degree += end[k]->degree < UINT8_MAX;
            end[k]->ring |= b->ring;
            end[k]->aromatic |= b->order == MOLECULE_ORDER_AROMATIC;
        }
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Each bond joins two components or lies in one. */
static uint32_t components_count(const struct molecule *m)
{
    uint16_t root[MOLECULE_ATOMS_MAX];
    uint32_t count = m->atoms;
    for (uint32_t i = 0; i < m->atoms; i++)
        root[i] = (uint16_t)i;
    for (uint32_t i = 0; i < m->bonds; i++) {
        uint16_t a = m->bond[i].from, b = m->bond[i].to;
        while (root[a] != a)
            a = root[a] = root[root[a]];
        while (root[b] != b)
            b = root[b] = root[root[b]];
        count -= a != b;
        root[a] = b;
    }
    return count;
}

/* What an element weighs is asked once a process, an isotope each time. */
static double mass_of(uint8_t element, uint16_t isotope)
{
    static double known[UINT8_MAX + 1];
    if (isotope)
        return babel_mass(element, isotope);
    if (known[element] <= 0)
        known[element] = babel_mass(element, 0);
    return known[element];
}

static enum molecule_refusal masses_sum(struct molecule *m)
{
    for (uint32_t i = 0; i < m->atoms; i++) {
        struct molecule_atom *a = &m->atom[i];
        double mass = mass_of(a->element, a->isotope);
        if (mass <= 0)
            return refuse(MOLECULE_UNSPECIFIC, "an atom has no mass");
        a->mass = mass + a->hydrogens * mass_of(HYDROGEN, 0);
        m->mass += a->mass;
    }
    return MOLECULE_ACCEPTED;
}

static enum molecule_refusal convert(struct molecule *m, struct reading *r, unsigned flags)
{
    bonds_sum(r);
    enum molecule_refusal refusal = valences_judge(r);
    if (refusal != MOLECULE_ACCEPTED)
        return refusal;
    hydrogens_fold(r);
    if ((refusal = atoms_take(m, r)) != MOLECULE_ACCEPTED ||
        (refusal = bonds_take(m, r)) != MOLECULE_ACCEPTED)
        return refusal;
    if (!(flags & MOLECULE_KEKULE) && !molecule_aromatic_find(m))
        return refuse(MOLECULE_LARGE, "its rings make too many cycles");
    bonds_spread(m);
    m->components = components_count(m);
    return flags & MOLECULE_MASSES ? masses_sum(m) : MOLECULE_ACCEPTED;
}

enum molecule_refusal molecule_read(struct molecule *m, const char *smiles, unsigned flags)
{
    static const enum molecule_refusal refusals[] = {[BABEL_READ] = MOLECULE_ACCEPTED,
                                                     [BABEL_SYNTAX] = MOLECULE_UNREADABLE,
                                                     [BABEL_KEKULE] = MOLECULE_VALENCE,
                                                     [BABEL_MEMORY] = MOLECULE_MEMORY};
    static struct reading r;
    size_t bytes = strcspn(smiles, " \t\r\n");
    m->atoms = m->bonds = m->components = 0;
    m->mass = 0;
    if (bytes > MOLECULE_SMILES_MAX)
        return refuse(MOLECULE_LARGE, "its SMILES is too long");
    const char *fault = molecule_text_read(&r.text, smiles, bytes);
    if (fault)
        return refuse(MOLECULE_UNREADABLE, fault);
    enum molecule_refusal refusal = refusals[babel_read(&r.raw, r.text.text, why, sizeof why)];
    if (refusal != MOLECULE_ACCEPTED)
        return refusal;
    if (r.raw.atoms != r.text.atoms)
        return refuse(MOLECULE_UNREADABLE, "its atoms are not those of its text");
    return convert(m, &r, flags);
}
