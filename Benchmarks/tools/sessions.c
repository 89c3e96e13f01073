// A QMP session's life, one after the other: to the greeting, to the first reply, and from half-close to the end of file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common.h"

static const char usage[] =
  "usage: sessions [--count=N] [--wait] acquire|connect|bare|pipelined SOCKET\n"
  "\n"
  "  acquire     AcquireQMP on a connection that is there already\n"
  "  connect     the same, connecting included\n"
  "  bare        a monitor added by hand on a QMP socket, command by command; removed likewise\n"
  "  pipelined   the same, the commands in one write\n"
  "\n"
  "--wait: has one session, prints 'ready', goes on after a line on standard input; when all is printed, prints 'done' and waits\n"
  "for the end of its input.\n"
  "\n"
  "Prints for each session the nanoseconds to its greeting, to its first reply, and from its half-close to its end.\n";

int main(int argc, char **argv) {
  unsigned long count = 20;
  bool waits = false, goes = true;
  int i = 1;
  for (const char *value; i < argc && argv[i][0] == '-'; i++) {
    if (strcmp(argv[i], "--wait") == 0) waits = true;
    else if ((value = option_value(argv[i], "--count"))) count = strtoul(value, NULL, 10);
    else return fputs(usage, stderr), 64;
  }
  if (argc - i != 2) return fputs(usage, stderr), 64;
  const char *mode = argv[i], *path = argv[i + 1];
  bool connects = strcmp(mode, "connect") == 0, acquires = connects || strcmp(mode, "acquire") == 0;
  bool pipelined = strcmp(mode, "pipelined") == 0;
  Stream control = {.descriptor = -1};
  if (!acquires) control = qmp_connect(path);

  for (unsigned long n = 0; goes && n <= count; n++) {
    char id[32];
    snprintf(id, sizeof id, "b-%lx", n);
    Stream session;
    uint64_t start = now();
    if (acquires) {
      session = stream_on(connect_to(path), 0);
      if (!connects) {
        varlink_call(&session, "{\"method\":\"org.varlink.service.GetInfo\"}");
        start = now();
      }
      varlink_call(&session, ACQUIRE);
      session.terminator = '\n';
    } else {
      session = hotplug(&control, id, pipelined);
    }
    if (next_message(&session) == NULL) fail("no greeting");
    uint64_t greeting = now();
    send_all(session.descriptor, CAPABILITIES QUERY_STATUS, strlen(CAPABILITIES QUERY_STATUS));
    next_reply(&session);
    uint64_t reply = now();
    next_reply(&session);

    uint64_t close = now();
    if (acquires) shutdown(session.descriptor, SHUT_WR);
    else unplug(&control, id, pipelined);
    while (next_message(&session) != NULL) continue;
    uint64_t gone = now();
    stream_free(&session);
    // The first warms up.
    if (n == 0) {
      goes = !waits || wait_for_go();
      continue;
    }
    printf(
      "%llu %llu %llu\n", (unsigned long long)(greeting - start), (unsigned long long)(reply - start), (unsigned long long)(gone - close));
  }
  if (waits && goes) wait_for_end();
  return 0;
}
