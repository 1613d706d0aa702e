/* graph.c - see graph.h. */
#include "pipelines/prepare/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const uint8_t elements[] = {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53};
enum {
    ELEMENTS = sizeof elements,
    DEGREE = ELEMENTS + 1,
    DEGREE_MAX = 5,
    CHARGE = DEGREE + DEGREE_MAX + 1,
    CHARGE_MAX = 2,
    HYDROGENS = CHARGE + 2 * CHARGE_MAX + 1,
    HYDROGENS_MAX = 4,
    AROMATIC = HYDROGENS + HYDROGENS_MAX + 1,
    RING,
    ISOTOPE,
};
_Static_assert(ISOTOPE + 1 == GRAPH_NODE_FEATURES, "the columns of a node");
_Static_assert(MOLECULE_ORDER_AROMATIC + 1 == GRAPH_EDGE_FEATURES, "the columns of an edge");

const char graph_node_names[] =
    "element_H\nelement_B\nelement_C\nelement_N\nelement_O\nelement_F\nelement_Si\nelement_P\n"
    "element_S\nelement_Cl\nelement_Se\nelement_Br\nelement_I\nelement_other\n"
    "degree_0\ndegree_1\ndegree_2\ndegree_3\ndegree_4\ndegree_5\n"
    "charge_-2\ncharge_-1\ncharge_0\ncharge_1\ncharge_2\n"
    "hydrogens_0\nhydrogens_1\nhydrogens_2\nhydrogens_3\nhydrogens_4\naromatic\nring\nisotope";
const char graph_edge_names[] = "single\ndouble\ntriple\naromatic\nring";

static int limited(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

void graph_node(const struct molecule_atom *a, uint8_t features[GRAPH_NODE_FEATURES])
{
    const uint8_t *element = memchr(elements, a->element, ELEMENTS);
    memset(features, 0, GRAPH_NODE_FEATURES);
    features[element ? element - elements : ELEMENTS] = 1;
    features[DEGREE + limited(a->degree, 0, DEGREE_MAX)] = 1;
    features[CHARGE + CHARGE_MAX + limited(a->charge, -CHARGE_MAX, CHARGE_MAX)] = 1;
    features[HYDROGENS + limited(a->hydrogens, 0, HYDROGENS_MAX)] = 1;
    features[AROMATIC] = a->aromatic;
    features[RING] = a->ring;
    features[ISOTOPE] = a->isotope != 0;
}

void graph_edge(const struct molecule_bond *b, uint8_t features[GRAPH_EDGE_FEATURES])
{
    memset(features, 0, GRAPH_EDGE_FEATURES);
    features[b->order - 1] = 1;
    features[GRAPH_EDGE_FEATURES - 1] = b->ring;
}

static const char *const descriptors[GRAPH_DESCRIPTORS] = {"log_mass", "rings", "heteroatoms",
                                                           "aromatic", "hydrogens"};

int graph_descriptors_choose(const char *list, int chosen[GRAPH_DESCRIPTORS], uint32_t *count,
                             struct err *e)
{
    *count = 0;
    for (const char *at = list + strspn(list, ", "); *at;) {
        size_t length = strcspn(at, ", ");
        int found = 0;
        while (found < GRAPH_DESCRIPTORS && (strlen(descriptors[found]) != length ||
                                             strncmp(descriptors[found], at, length) != 0))
            found++;
        for (uint32_t i = 0; i < *count; i++)
            if (chosen[i] == found)
                return err_set(e, EXIT_CODE_PERMANENT, "prepare.descriptors names %s twice",
                               descriptors[found]);
        if (found == GRAPH_DESCRIPTORS)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "prepare.descriptors: there is no \"%.*s\"; accepted are log_mass, "
                           "rings, heteroatoms, aromatic and hydrogens, with commas between them",
                           (int)(length < 40 ? length : 40), at);
        chosen[(*count)++] = found;
        at += length;
        at += strspn(at, ", ");
    }
    return *count ? 0 : err_set(e, EXIT_CODE_PERMANENT, "prepare.descriptors names no descriptor");
}

const char *graph_descriptor_name(int descriptor)
{
    return descriptors[descriptor];
}

float graph_descriptor(const struct molecule *m, int descriptor)
{
    uint32_t heteroatoms = 0, aromatic = 0, hydrogens = 0;
    for (uint32_t i = 0; i < m->atoms; i++) {
        const struct molecule_atom *a = &m->atom[i];
        heteroatoms += a->element != 1 && a->element != 6;
        aromatic += a->aromatic;
        hydrogens += a->hydrogens;
    }
    const double value[GRAPH_DESCRIPTORS] = {
        log10(m->mass),
        (double)m->bonds + m->components - m->atoms,
        (double)heteroatoms / m->atoms,
        (double)aromatic / m->atoms,
        (double)hydrogens / m->atoms,
    };
    return (float)value[descriptor];
}
