// Chooses the kernels that this CPU and its operating system can run.
#include <string.h>

#include "cpu.h"
#include "kernels.h"

#ifdef __x86_64__
const Kernels *kernels_for_this_cpu(const char *name) {
    const Cpu cpu = read_cpu();
    if ((!name || !strcmp(name, "avx512")) && has_avx512(&cpu)) return &avx512_kernels;
    if ((!name || !strcmp(name, "avx2")) && has_avx2(&cpu)) return &avx2_kernels;
    return !name || !strcmp(name, "portable") ? &portable_kernels : NULL;
}
#else
const Kernels *kernels_for_this_cpu(const char *name) {
    return !name || !strcmp(name, "portable") ? &portable_kernels : NULL;
}
#endif
