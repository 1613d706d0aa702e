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
void engine_cpu_arithmetic(char *text, size_t bytes)
{
#if defined(__x86_64__)
    int fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    snprintf(text, bytes, "x86-64%s", fused ? " fma" : "");
#else
    engine_cpu_name(text, bytes);
#endif
}
