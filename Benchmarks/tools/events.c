// One event of QEMU's to many receivers: how long after its cause the first and the last of them has it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common.h"

static const char usage[] =
  "usage: events [--receivers=N] [--events=N] [--wait] subscribers|sessions|monitors SOCKET\n"
  "\n"
  "  subscribers   SubscribeEvents on connections to a control socket; caused by PowerOff on one more\n"
  "  sessions      QMP sessions of a control socket; caused the same way\n"
  "  monitors      monitors added by hand on a QMP socket; caused by system_powerdown on that\n"
  "\n"
  "The guest must be stopped, so that it does not see its power button. --wait: sets up, prints 'ready', goes on after a line\n"
  "on standard input, and after 'done' disconnects at its end. Prints for each event the nanoseconds to the first and to the\n"
  "last receiver.\n";

#define SUBSCRIBE "{\"method\":\"io.systemd.MachineInstance.SubscribeEvents\",\"more\":true}"
#define POWER_OFF "{\"method\":\"io.systemd.MachineInstance.PowerOff\"}"
#define POWERDOWN "{\"execute\":\"system_powerdown\"}"

int main(int argc, char **argv) {
  unsigned receivers = 1, events = 10;
  bool waits = false;
  int i = 1;
  for (const char *value; i < argc && argv[i][0] == '-'; i++) {
    if ((value = option_value(argv[i], "--receivers"))) receivers = (unsigned)strtoul(value, NULL, 10);
    else if ((value = option_value(argv[i], "--events"))) events = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(argv[i], "--wait") == 0) waits = true;
    else return fputs(usage, stderr), 64;
  }
  if (argc - i != 2) return fputs(usage, stderr), 64;
  const char *mode = argv[i], *path = argv[i + 1];
  bool subscribes = strcmp(mode, "subscribers") == 0, adds = strcmp(mode, "monitors") == 0;

  Stream cause = adds ? qmp_connect(path) : stream_on(connect_to(path), 0);
  Stream *streams = calloc(receivers, sizeof *streams);
  int poller = epoll_create1(EPOLL_CLOEXEC);
  if (streams == NULL || poller < 0) fail("out of memory");
  for (unsigned r = 0; r < receivers; r++) {
    if (subscribes) {
      streams[r] = stream_on(connect_to(path), 0);
      if (strstr(varlink_call(&streams[r], SUBSCRIBE), "READY") == NULL) fail("the first event is not READY");
    } else {
      char id[32];
      snprintf(id, sizeof id, "b-e%x", r);
      streams[r] = adds ? hotplug(&cause, id, true) : acquire(path);
      qmp_negotiate(&streams[r]);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &streams[r]};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, streams[r].descriptor, &event) < 0) fail("epoll_ctl: %m");
  }

  bool goes = !waits || wait_for_go();
  for (unsigned n = 0; goes && n <= events; n++) {
    uint64_t start = now(), first = 0;
    if (adds) send_all(cause.descriptor, POWERDOWN, strlen(POWERDOWN));
    else varlink_send(cause.descriptor, POWER_OFF);
    for (unsigned received = 0; received < receivers;) {
      struct epoll_event ready[64];
      int count = epoll_wait(poller, ready, 64, 30000);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail("no event within 30 s");
      for (int e = 0; e < count; e++) {
        if (!fill(ready[e].data.ptr)) fail("the server hung up");
        for (char *message; (message = buffered_message(ready[e].data.ptr)) != NULL;) {
          if (strstr(message, "\"POWERDOWN\"") == NULL) fail("something other than the event: %s", message);
          if (received++ == 0) first = now();
        }
      }
    }
    uint64_t last = now();
    next_reply(&cause);
    // The first warms up.
    if (n > 0) printf("%llu %llu\n", (unsigned long long)(first - start), (unsigned long long)(last - start));
  }
  if (waits && goes) wait_for_end();

  for (unsigned r = 0; r < receivers; r++) {
    char id[32];
    snprintf(id, sizeof id, "b-e%x", r);
    if (adds) unplug(&cause, id, true);
    if (!adds && !subscribes) finish(&streams[r]);
    stream_free(&streams[r]);
  }
  return 0;
}
