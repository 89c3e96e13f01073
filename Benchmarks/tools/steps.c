// Counts the instructions that a process executes outside the kernel, by single steps, until standard input ends.
//
// Needs no counters of the processor's, which virtual machines often lack. The time the process takes means nothing then;
// what it executes does, as far as that does not depend on time.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static const char usage[] =
  "usage: steps PID [FILE]\n"
  "\n"
  "Prints 'ready' when it counts, and at the end of standard input 'instructions N'. FILE gets the address of each\n"
  "instruction, as 8 bytes each. The process has one thread.\n";

static pid_t process;
static volatile sig_atomic_t stopping;

// Standard input has ended. The process may sleep in a system call; it stops at once.
static void stop(int signal) {
  (void)signal;
  stopping = 1;
  ptrace(PTRACE_INTERRUPT, process, 0, 0);
}

// The next stop of the process: a step, a signal of its own, or one that was asked for.
static int next_stop(void) {
  int status;
  while (waitpid(process, &status, __WALL) < 0) {
    if (errno != EINTR) fail("waitpid: %m");
  }
  if (!WIFSTOPPED(status)) fail("the process has ended");
  return status;
}

// A step that ended a system call may have a trap under way, which would end the process once nobody traces it.
static bool has_trap_pending(void) {
  siginfo_t pending[8];
  struct __ptrace_peeksiginfo_args range = {.nr = 8};
  long count = ptrace(PTRACE_PEEKSIGINFO, process, &range, pending);
  for (long i = 0; i < count; i++) {
    if (pending[i].si_signo == SIGTRAP) return true;
  }
  return false;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3 || argv[1][0] == '-') return fputs(usage, stderr), 64;
  process = atoi(argv[1]);
  FILE *addresses = argc == 3 ? fopen(argv[2], "we") : NULL;
  if (argc == 3 && addresses == NULL) fail("cannot write %s: %m", argv[2]);

  // On one processor, a step is a plain switch of tasks, and ten times as quick.
  cpu_set_t before, one;
  if (sched_getaffinity(process, sizeof before, &before) < 0) fail("no process %d: %m", process);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  sched_setaffinity(process, sizeof one, &one);
  sched_setaffinity(0, sizeof one, &one);

  if (ptrace(PTRACE_SEIZE, process, 0, 0) < 0) fail("cannot trace %d: %m", process);
  sigaction(SIGIO, &(struct sigaction){.sa_handler = stop}, NULL);
  if (fcntl(STDIN_FILENO, F_SETOWN, getpid()) < 0 || fcntl(STDIN_FILENO, F_SETFL, O_ASYNC) < 0) fail("fcntl: %m");
  ptrace(PTRACE_INTERRUPT, process, 0, 0);
  puts("ready");
  fflush(stdout);

  unsigned long long instructions = 0;
  while (true) {
    int status = next_stop();
    if (stopping) break;
    bool isStep = WSTOPSIG(status) == SIGTRAP && status >> 16 == 0;
    if (isStep) {
      instructions++;
      if (addresses != NULL) {
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, process, 0, &registers) < 0) fail("ptrace: %m");
        fwrite(&registers.rip, sizeof registers.rip, 1, addresses);
      }
    }
    // Signals of its own are passed on; the tracer's stops are not.
    long passed = isStep || status >> 16 != 0 ? 0 : WSTOPSIG(status);
    if (ptrace(PTRACE_SINGLESTEP, process, 0, passed) < 0) fail("ptrace: %m");
  }
  if (has_trap_pending()) {
    ptrace(PTRACE_CONT, process, 0, 0);
    next_stop();
  }
  if (ptrace(PTRACE_DETACH, process, 0, 0) < 0) fail("cannot let go of %d: %m", process);
  sched_setaffinity(process, sizeof before, &before);
  if (addresses != NULL && fclose(addresses) != 0) fail("cannot write %s: %m", argv[2]);
  printf("instructions %llu\n", instructions);
  return 0;
}
