/* molecule_babel.cc - see molecule_babel.h. The only file that knows Open Babel, and C++ as that
 * is.
 *
 * Its object for a molecule is kept from one text to the next. What it says of a text it says to
 * its log, whose counts of warnings and errors are looked at; nothing is printed. What it throws
 * goes no further than here.
 */
#include "pipelines/prepare/molecule_babel.h"

#include <openbabel/atom.h>
#include <openbabel/bond.h>
#include <openbabel/elements.h>
#include <openbabel/mol.h>
#include <openbabel/obconversion.h>
#include <openbabel/oberror.h>
#include <openbabel/obiter.h>

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

using namespace OpenBabel;

namespace
{

/* What it says is kept and counted, not printed. */
struct quiet {
    quiet()
    {
        obErrorLog.SetOutputStream(nullptr);
        obErrorLog.SetOutputLevel(obMessageLevel(-1));
        obErrorLog.SetMaxLogEntries(1);
    }
};

struct reader {
    quiet before; /* all else */
    OBConversion conversion;
    OBMol molecule;
    bool there;

    reader() : there(conversion.SetInFormat("smi"))
    {
        conversion.AddOption("a", OBConversion::INOPTIONS); /* no aromaticity of its own */
    }
};

/* Is there room for all of its plugins? They are not found where there is too little, either. */
bool plugins_fit()
{
    const size_t bytes = 32 << 20; /* twice what they take */
    void *room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return room != MAP_FAILED && munmap(room, bytes) == 0;
}

/* At the first text: it opens a hundred plugins, which takes 30 ms. */
struct reader &the_reader()
{
#ifdef BABEL_PLUGINS /* where they are in an unpacked installation */
    setenv("BABEL_LIBDIR", BABEL_PLUGINS, 0);
#endif
    static reader r;
    return r;
}

/* The last message without its frame of two lines, as one. */
void message_tell(char *why, uint32_t bytes, obMessageLevel level)
{
    std::vector<std::string> said = obErrorLog.GetMessagesOfLevel(level);
    std::string text = said.empty() ? "it is no SMILES" : said.back();
    size_t at = text.find("\n  ");
    text.erase(0, at == std::string::npos ? 0 : at + 3);
    text.erase(text.find_last_not_of(" \n") + 1);
    for (char &c : text)
        if ((unsigned char)c < 0x20)
            c = ' ';
    std::snprintf(why, bytes, "%s", text.c_str());
    obErrorLog.ClearLog();
}

void atoms_copy(struct babel_molecule *b, OBMol &molecule)
{
    b->atoms = 0;
    FOR_ATOMS_OF_MOL(atom, molecule)
    {
        struct babel_atom *a = &b->atom[b->atoms++];
        a->element = uint8_t(atom->GetAtomicNum());
        a->hydrogens = atom->GetImplicitHCount();
        a->charge = atom->GetFormalCharge();
        a->isotope = atom->GetIsotope();
        a->aromatic = atom->IsAromatic();
    }
}

void bonds_copy(struct babel_molecule *b, OBMol &molecule)
{
    b->bonds = 0;
    FOR_BONDS_OF_MOL(bond, molecule)
    {
        struct babel_bond *to = &b->bond[b->bonds++];
        unsigned begin = bond->GetBeginAtomIdx() - 1, end = bond->GetEndAtomIdx() - 1;
        to->from = uint16_t(begin < end ? begin : end);
        to->to = uint16_t(begin < end ? end : begin);
        to->order = uint8_t(bond->GetBondOrder());
        to->ring = bond->IsInRing();
    }
}

enum babel_result smiles_read(struct babel_molecule *b, const char *smiles, char *why,
                              uint32_t bytes)
{
    struct reader &r = the_reader();
    unsigned warnings = obErrorLog.GetWarningMessageCount();
    if (!r.conversion.ReadString(&r.molecule, smiles)) {
        message_tell(why, bytes, obError);
        return BABEL_SYNTAX;
    }
    if (obErrorLog.GetWarningMessageCount() != warnings) {
        message_tell(why, bytes, obWarning);
        return BABEL_KEKULE;
    }
    if (r.molecule.NumAtoms() > BABEL_SMILES_MAX || r.molecule.NumBonds() > BABEL_SMILES_MAX) {
        std::snprintf(why, bytes, "it has more atoms than bytes");
        return BABEL_SYNTAX;
    }
    atoms_copy(b, r.molecule);
    bonds_copy(b, r.molecule);
    return BABEL_READ;
}

} // namespace

enum babel_result babel_open(void)
{
    try {
        if (the_reader().there)
            return BABEL_READ;
        return plugins_fit() ? BABEL_SYNTAX : BABEL_MEMORY;
    } catch (const std::bad_alloc &) {
        return BABEL_MEMORY;
    } catch (...) {
        return BABEL_SYNTAX;
    }
}

enum babel_result babel_read(struct babel_molecule *b, const char *smiles, char *why,
                             uint32_t bytes)
{
    try {
        return smiles_read(b, smiles, why, bytes);
    } catch (const std::bad_alloc &) {
        return BABEL_MEMORY;
    } catch (const std::exception &fault) {
        std::snprintf(why, bytes, "Open Babel fails at it: %s", fault.what());
    } catch (...) {
        std::snprintf(why, bytes, "Open Babel fails at it");
    }
    return BABEL_SYNTAX;
}

/* Both look into tables that are constants, and throw nothing. */
double babel_mass(uint8_t element, uint16_t isotope)
{
    return OBElements::GetExactMass(element, isotope);
}

const char *babel_symbol(uint8_t element)
{
    return OBElements::GetSymbol(element);
}
