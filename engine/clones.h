/* clones.h - a loop worth compiling for wide vectors; the loader's resolver picks the one for this
 * machine. The resolvers run before a sanitizer's own start, so sanitized builds do without. */
#ifndef ENGINE_CLONES_H
#define ENGINE_CLONES_H

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CPU_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define CPU_CLONES __attribute__((noinline))
#endif

#endif
