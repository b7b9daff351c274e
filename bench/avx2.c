/* Shows a process AVX2 and nothing wider, for bench/avx2.py, which preloads it.
 *
 * The kernel is told to trap the CPUID instruction (ARCH_SET_CPUID of arch_prctl(2)). The handler lets
 * the real one answer and clears what is wider than AVX2: AVX-512, AMX, AVX-VNNI and its kin, by
 * the bits of leaf 7 in Intel's manual, volume 2A. Threads and forked children inherit the trap;
 * what a child executes sets it anew, since the preload is inherited too. */

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { TRAPPED = 0, ALLOWED = 1, CPUID_LENGTH = 2 };

static const unsigned AVX512_EBX = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 |
                                   1u << 30 | 1u << 31;
static const unsigned AVX512_ECX = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned AVX512_AND_AMX_EDX =
    1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;

static void answer(int signal_number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
  unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX], a, b, c, d;
  (void)info;
  if (instruction[0] != 0x0f || instruction[1] != 0xa2) { /* a segmentation fault after all */
    signal(signal_number, SIG_DFL);
    return;
  }
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, ALLOWED);
  __cpuid_count(leaf, subleaf, a, b, c, d);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, TRAPPED);
  if (leaf == 7 && subleaf == 0) {
    b &= ~AVX512_EBX;
    c &= ~AVX512_ECX;
    d &= ~AVX512_AND_AMX_EDX;
  } else if (leaf == 7) {
    a = b = c = d = 0; /* subleaf 1 has AVX-VNNI, the others nothing that is asked for here */
  }
  registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
  registers[REG_RIP] += CPUID_LENGTH;
}

__attribute__((constructor)) static void trap(void) {
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, TRAPPED) != 0)
    _exit(78); /* EX_CONFIG: this kernel or CPU cannot; figures would be of the whole CPU */
}
