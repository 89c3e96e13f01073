// Two things whose time depends on nothing but the machine: a loop of arithmetic, and a byte that goes to another process
// and comes back. Prints the nanoseconds of the loop, and of the median round trip.
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum { steps = 20000000, trips = 501 };

static uint64_t arithmetic(void) {
  uint64_t start = now();
  volatile uint64_t state = 88172645463325252;
  for (int i = 0; i < steps; i++) {
    uint64_t x = state;
    x ^= x << 13;
    x ^= x >> 7;
    state = x ^ x << 17;
  }
  return now() - start;
}

static int ascending(const void *left, const void *right) {
  uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
  return (l > r) - (l < r);
}

static uint64_t round_trip(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) fail("socketpair: %m");
  pid_t child = fork();
  if (child < 0) fail("fork: %m");
  char byte = 0;
  if (child == 0) {
    close(pair[0]);
    while (read(pair[1], &byte, 1) == 1 && write(pair[1], &byte, 1) == 1) continue;
    _exit(0);
  }
  close(pair[1]);
  static uint64_t times[trips];
  for (int i = 0; i < trips; i++) {
    uint64_t start = now();
    if (write(pair[0], &byte, 1) != 1 || read(pair[0], &byte, 1) != 1) fail("the echo ended");
    times[i] = now() - start;
  }
  close(pair[0]);
  waitpid(child, NULL, 0);
  qsort(times, trips, sizeof *times, ascending);
  return times[trips / 2];
}

int main(void) {
  printf("%llu %llu\n", (unsigned long long)arithmetic(), (unsigned long long)round_trip());
  return 0;
}
