/* cpu.c - the CPU backend's table, made from ops.def; the CPU's name, and that of its bits. */
#include "engine/cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "engine/step.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

const struct backend backend_cpu = {
    .name = "cpu",
#define OP(name, args, names, what) .name = cpu_##name,
#include "engine/ops.def"
#undef OP
};

/* One more with every change to the operations after which the bits of a run are others. */
enum { ARITHMETIC_VERSION = 1 };

static int plain; /* asked for */

void cpu_plain(int on)
{
    plain = on;
}

int cpu_has_avx2(void)
{
#if defined(__x86_64__)
    return !plain && __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}

#if defined(__x86_64__)
void engine_cpu_name(char *text, size_t bytes)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    char vendor[13] = "";
    __get_cpuid(0, &a, &b, &c, &d);
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    __get_cpuid(1, &a, &b, &c, &d);
    unsigned family = a >> 8 & 15, model = a >> 4 & 15;
    if (family == 6 || family == 15)
        model |= a >> 12 & 0xf0;
    if (family == 15)
        family += a >> 20 & 0xff;
    const char *vectors = __builtin_cpu_supports("avx512f") ? "avx512"
                          : __builtin_cpu_supports("avx2")  ? "avx2"
                                                            : "sse2";
    snprintf(text, bytes, "%s %u/%u %s", vendor, family, model, vectors);
}
#else
void engine_cpu_name(char *text, size_t bytes)
{
    snprintf(text, bytes, "%s", "generic");
}
#endif

/* Products are fused multiply-adds where there are such, as are the C library's exp and log; loops
 * have the same order for all vectors. */
static const char *arithmetic(void)
{
#if defined(__x86_64__)
    int fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return fused ? "x86-64 fma" : "x86-64 plain";
#else
    return "plain";
#endif
}

void engine_cpu_arithmetic(char *text, size_t bytes)
{
    char name[64];
    engine_cpu_name(name, sizeof name);
    snprintf(text, bytes, "%s %d (%s)", arithmetic(), ARITHMETIC_VERSION, name);
}

int engine_cpu_same(const char *one, const char *other)
{
    size_t length = strcspn(one, "(");
    return length == strcspn(other, "(") && strncmp(one, other, length) == 0;
}
