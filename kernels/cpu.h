// Reads what this CPU and its operating system can run.
#pragma once

#ifdef __x86_64__
#include <cpuid.h>

typedef struct {
    unsigned one, seven_b, seven_c;  // words of the leaves 1 and 7
    unsigned saved;                  // register sets that the operating system saves
} Cpu;

static inline Cpu read_cpu(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    Cpu cpu = {0};
    if (__get_cpuid(1, &a, &b, &c, &d)) cpu.one = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) cpu.seven_b = b, cpu.seven_c = c;
    if (cpu.one & bit_OSXSAVE) __asm__("xgetbv" : "=a"(cpu.saved), "=d"(d) : "c"(0));
    return cpu;
}

static inline int all(unsigned word, unsigned wanted) { return (word & wanted) == wanted; }

static inline int has_avx2(const Cpu *cpu) {
    return all(cpu->saved, 0x6) && all(cpu->one, bit_FMA | bit_F16C) && all(cpu->seven_b, bit_AVX2);
}

static inline int has_avx512(const Cpu *cpu) {
    return has_avx2(cpu) && all(cpu->saved, 0xe6) && all(cpu->seven_c, bit_AVX512VNNI) &&
           all(cpu->seven_b, bit_AVX512F | bit_AVX512BW | bit_AVX512VL);
}
#endif
