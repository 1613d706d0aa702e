/* molecule.c - see molecule.h. The only file that knows Indigo.
 *
 * Each call of Indigo's costs 0.1 us and more (two locks, a time stamp, a handle), which is half of
 * the time spent here; the other half is its reading of the text. So a question is not asked whose
 * answer the text gives (no sign in a bracket: no charge; no digit: no ring; no lower-case letter:
 * nothing to dearomatise) or other answers do (see parents_find), and handles are freed all at
 * once.
 */
#include "pipelines/prepare/molecule.h"

#include <indigo.h>
#include <stdio.h>
#include <string.h>

#include "proto/err.h"

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
    snprintf(why, sizeof why, "%s", text ? text : "");
    for (char *c = why; *c; c++)
        if ((unsigned char)*c < 0x20)
            *c = ' ';
    return refusal;
}

/* Once a process. */
static void indigo_begin(void)
{
    static int begun;
    if (begun)
        return;
    begun = 1;
    ensure(indigoSetOption("aromaticity-model", "generic") >= 0);
}

/* The text without its marks of stereochemistry, and what it tells of the molecule. */
struct traits {
    char text[MOLECULE_SMILES_MAX + 1];
    int charges, isotopes, rings, aromatic, hydrogens, parts;
    int branches; /* opened and not closed */
};

/* Its atoms come in the order of the text, and each bond leads to the next of them; where hydrogens
 * were folded, which are the first or have no other bond, the rest still does. */
static int traits_of_tree(const struct traits *t)
{
    return !t->rings && !t->parts;
}

/* Bytes of the chirality at `at`, which is an '@': that, "@@", or a tag as "@TH1", "@OH12". */
static size_t chirality_bytes(const char *at)
{
    static const char *const tags[] = {"TH", "AL", "SP", "TB", "OH"};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (strncmp(at + 1, tags[i], 2) == 0)
            return 3 + strspn(at + 3, "0123456789");
    return at[1] == '@' ? 2 : 1;
}

static void traits_read(struct traits *t, const char *smiles, size_t bytes)
{
    char *to = t->text;
    int inside = 0;
    t->charges = t->isotopes = t->rings = t->aromatic = t->hydrogens = t->parts = t->branches = 0;
    for (const char *c = smiles; c < smiles + bytes; c++) {
        if (*c == '/' || *c == '\\')
            continue;
        if (*c == '@') {
            c += chirality_bytes(c) - 1;
            continue;
        }
        *to++ = *c;
        if (*c == '[' || *c == ']') {
            inside = *c == '[';
            t->hydrogens |= inside && c[1] == 'H'; /* an atom of its own */
            t->isotopes |= inside && c[1] >= '0' && c[1] <= '9';
            t->aromatic |= inside; /* as [nH], [se]: not worth telling apart */
        } else if (inside) {
            t->charges |= *c == '+' || *c == '-';
        } else {
            t->rings |= (*c >= '0' && *c <= '9') || *c == '%';
            t->aromatic |= strchr("bcnops", *c) != NULL;
            t->parts |= *c == '.';
            t->branches += (*c == '(') - (*c == ')');
        }
    }
    *to = 0;
}

/* Of one atom by itself, as Indigo has it, so that no table of ours can differ. 0: it has none. */
static double mass_ask(const char *symbol, int isotope)
{
    char text[16];
    snprintf(text, sizeof text, "[%.0d%.3s]", isotope, symbol);
    int alone = indigoLoadMoleculeFromString(text);
    return alone < 0 ? 0 : indigoMonoisotopicMass(alone);
}

/* What an element weighs is asked once a process, an isotope each time. */
static double mass_of(const struct molecule_atom *a, int handle)
{
    static double known[UINT8_MAX + 1], hydrogen;
    if (!a->isotope && known[a->element] <= 0)
        known[a->element] = mass_ask(indigoSymbol(handle), 0);
    double mass = a->isotope ? mass_ask(indigoSymbol(handle), a->isotope) : known[a->element];
    if (hydrogen <= 0)
        hydrogen = mass_ask("H", 0);
    return mass > 0 ? mass + a->hydrogens * hydrogen : 0;
}

static enum molecule_refusal atom_read(struct molecule_atom *a, int handle, const struct traits *t,
                                       unsigned flags)
{
    int charge = 0, isotope = 0, element = indigoAtomicNumber(handle);
    if (element < 1)
        return refuse(MOLECULE_UNSPECIFIC, "an atom is no element");
    int hydrogens = indigoCountImplicitHydrogens(handle);
    if (hydrogens < 0)
        return refuse(MOLECULE_VALENCE, indigoGetLastError());
    if (t->charges)
        indigoGetCharge(handle, &charge);
    if (t->isotopes)
        isotope = indigoIsotope(handle);
    if (hydrogens > UINT8_MAX || charge < INT8_MIN || charge > INT8_MAX || isotope > UINT16_MAX)
        return refuse(MOLECULE_VALENCE, "an atom has an impossible charge, mass or valence");
    *a = (struct molecule_atom){.element = (uint8_t)element,
                                .hydrogens = (uint8_t)hydrogens,
                                .charge = (int8_t)charge,
                                .isotope = (uint16_t)(isotope < 0 ? 0 : isotope)};
    if (flags & MOLECULE_KEKULE)
        snprintf(a->symbol, sizeof a->symbol, "%.3s", indigoSymbol(handle));
    if (traits_of_tree(t)) {
        int degree = indigoDegree(handle);
        a->degree = (uint8_t)(degree < UINT8_MAX ? degree : UINT8_MAX);
    }
    if (flags & MOLECULE_ATOM_MASSES && (a->mass = mass_of(a, handle)) <= 0)
        return refuse(MOLECULE_UNSPECIFIC, "an atom has no mass");
    return MOLECULE_ACCEPTED;
}

static enum molecule_refusal atoms_read(struct molecule *m, int molecule, const struct traits *t,
                                        unsigned flags)
{
    enum molecule_refusal refusal;
    int iterator = indigoIterateAtoms(molecule), handle;
    while ((handle = indigoNext(iterator)) > 0) {
        if (m->atoms == MOLECULE_ATOMS_MAX)
            return refuse(MOLECULE_LARGE, "it has too many atoms");
        refusal = atom_read(&m->atom[m->atoms++], handle, t, flags);
        if (refusal != MOLECULE_ACCEPTED)
            return refusal;
    }
    if (m->atoms == 0)
        return refuse(MOLECULE_UNREADABLE, "it has no atom");
    return MOLECULE_ACCEPTED;
}

/* Where each atom of a tree hangs: the atoms come depth first, so it is the last one before it that
 * has a place left. Counts the degrees down, to 0 for all. 0: this is no tree. */
static int parents_find(struct molecule *m, uint16_t parent[MOLECULE_ATOMS_MAX])
{
    uint32_t last = 0; /* whose bond is looked for, and then up from there */
    for (uint32_t i = 1; i < m->atoms; last = i++) {
        while (m->atom[last].degree == 0 && last > 0)
            last = parent[last];
        if (m->atom[last].degree == 0 || m->atom[i].degree == 0)
            return 0;
        m->atom[last].degree--;
        m->atom[i].degree--;
        parent[i] = (uint16_t)last;
    }
    for (uint32_t i = 0; i < m->atoms; i++)
        if (m->atom[i].degree > 0)
            return 0;
    return 1;
}

/* Indigo's numbers of the atoms, which have gaps where hydrogens were folded, become 0, 1, ... */
static enum molecule_refusal gaps_close(struct molecule *m, int molecule)
{
    static uint16_t place[UINT16_MAX + 1];
    uint32_t count = 0;
    int iterator = indigoIterateAtoms(molecule), handle;
    while ((handle = indigoNext(iterator)) > 0) {
        int index = indigoIndex(handle);
        if (index < 0 || index > UINT16_MAX)
            return refuse(MOLECULE_LARGE, "it has too many atoms");
        place[index] = (uint16_t)count++;
    }
    for (uint32_t i = 0; i < m->bonds; i++) {
        m->bond[i].from = place[m->bond[i].from];
        m->bond[i].to = place[m->bond[i].to];
    }
    return MOLECULE_ACCEPTED;
}

/* In Indigo's numbers; see gaps_close. */
static void bond_ends(struct molecule_bond *b, int handle)
{
    b->from = (uint16_t)indigoIndex(indigoSource(handle));
    b->to = (uint16_t)indigoIndex(indigoDestination(handle));
}

static enum molecule_refusal bonds_read(struct molecule *m, int molecule, const struct traits *t)
{
    static uint16_t parent[MOLECULE_ATOMS_MAX];
    int tree = traits_of_tree(t) && parents_find(m, parent);
    int iterator = indigoIterateBonds(molecule), handle;
    while ((handle = indigoNext(iterator)) > 0) {
        if (m->bonds == MOLECULE_BONDS_MAX)
            return refuse(MOLECULE_LARGE, "it has too many bonds");
        int order = indigoBondOrder(handle);
        if (order < 1 || order > MOLECULE_ORDER_AROMATIC)
            return refuse(MOLECULE_UNSPECIFIC, "a bond has no order");
        struct molecule_bond *b = &m->bond[m->bonds++];
        int ring = t->rings && (order == MOLECULE_ORDER_AROMATIC || /* saves a call */
                                indigoTopology(handle) == INDIGO_RING);
        *b = (struct molecule_bond){.order = (uint8_t)order, .ring = (uint8_t)ring};
        if (tree && m->bonds < m->atoms)
            b->from = parent[m->bonds], b->to = (uint16_t)m->bonds;
        else
            bond_ends(b, handle);
    }
    return t->hydrogens && !tree ? gaps_close(m, molecule) : MOLECULE_ACCEPTED;
}

/* What an atom has of its bonds. */
static void bonds_spread(struct molecule *m)
{
    for (uint32_t i = 0; i < m->atoms; i++)
        m->atom[i].degree = 0;
    for (uint32_t i = 0; i < m->bonds; i++) {
        const struct molecule_bond *b = &m->bond[i];
        ensure(b->from < m->atoms && b->to < m->atoms);
        struct molecule_atom *end[2] = {&m->atom[b->from], &m->atom[b->to]};
        for (int k = 0; k < 2; k++) {
            end[k]->degree += end[k]->degree < UINT8_MAX;
            end[k]->ring |= b->ring;
            end[k]->aromatic |= b->order == MOLECULE_ORDER_AROMATIC;
        }
    }
}

static enum molecule_refusal convert(struct molecule *m, const struct traits *t, unsigned flags)
{
    int molecule = indigoLoadMoleculeFromString(t->text);
    if (molecule < 0)
        return refuse(MOLECULE_UNREADABLE, indigoGetLastError());
    if (t->aromatic && indigoDearomatize(molecule) < 0)
        return refuse(MOLECULE_VALENCE, indigoGetLastError());
    if (t->hydrogens && indigoFoldHydrogens(molecule) < 0)
        return refuse(MOLECULE_VALENCE, indigoGetLastError());
    if (t->rings && !(flags & MOLECULE_KEKULE) && indigoAromatize(molecule) < 0)
        return refuse(MOLECULE_VALENCE, indigoGetLastError());
    enum molecule_refusal refusal = atoms_read(m, molecule, t, flags);
    if (refusal == MOLECULE_ACCEPTED)
        refusal = bonds_read(m, molecule, t);
    if (refusal != MOLECULE_ACCEPTED)
        return refusal;
    m->components = t->parts ? (uint32_t)indigoCountComponents(molecule) : 1;
    if (flags & MOLECULE_MASS && (m->mass = indigoMonoisotopicMass(molecule)) <= 0)
        return refuse(MOLECULE_UNSPECIFIC, indigoGetLastError());
    bonds_spread(m);
    return MOLECULE_ACCEPTED;
}

enum molecule_refusal molecule_read(struct molecule *m, const char *smiles, unsigned flags)
{
    static struct traits t;
    size_t bytes = strcspn(smiles, " \t\r\n");
    indigo_begin();
    m->atoms = m->bonds = m->components = 0;
    m->mass = 0;
    if (bytes > MOLECULE_SMILES_MAX)
        return refuse(MOLECULE_LARGE, "its SMILES is too long");
    traits_read(&t, smiles, bytes);
    if (t.branches) /* Indigo closes them by itself: a text that was cut would be a molecule */
        return refuse(MOLECULE_UNREADABLE, "its parentheses do not match");
    enum molecule_refusal refusal = convert(m, &t, flags);
    indigoFreeAllObjects();
    return refusal;
}
