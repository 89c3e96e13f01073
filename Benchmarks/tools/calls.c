// A closed loop of calls, each sent when the one before has its reply. Prints how long all took, then each call's time.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common.h"

static const char usage[] =
  "usage: calls [OPTION...] varlink|qmp|session SOCKET REQUEST\n"
  "\n"
  "  --calls=N         how many calls (100)\n"
  "  --seconds=S       instead: for how long\n"
  "  --warm=N          calls before the clock runs, on each connection (10)\n"
  "  --connections=N   so many at once (1)\n"
  "  --depth=N         so many calls in flight on each connection (1)\n"
  "  --fresh           a new connection for each call, its making included\n"
  "  --settled=PID     sends a call only when that process sleeps, so that what it does for one call does not depend on when\n"
  "                    the next one comes; one connection, one call in flight\n"
  "  --wait            connects and warms up, prints 'ready', and goes on after a line on standard input; when all is printed,\n"
  "                    prints 'done', and disconnects at the end of standard input\n"
  "\n"
  "Prints 'elapsed NANOSECONDS', then each call's nanoseconds, one a line.\n";

typedef struct {
  Stream stream;
  // When the calls in flight were sent, oldest first.
  uint64_t *sent;
  unsigned first, inFlight;
} Connection;

static const char *protocol, *path, *request;
static size_t requestLength;
static unsigned depth = 1;
static uint64_t *samples;
static size_t count, capacity;

static int open_status(const char *process) {
  char name[64];
  snprintf(name, sizeof name, "/proc/%s/stat", process);
  int status = open(name, O_RDONLY | O_CLOEXEC);
  if (status < 0) fail("no process %s: %m", process);
  return status;
}

static void record(uint64_t sample) {
  if (count == capacity) {
    capacity = capacity * 2 + 1024;
    samples = realloc(samples, capacity * sizeof *samples);
    if (samples == NULL) fail("out of memory");
  }
  samples[count++] = sample;
}

static Stream open_connection(void) {
  if (strcmp(protocol, "varlink") == 0) return stream_on(connect_to(path), 0);
  if (strcmp(protocol, "qmp") == 0) return qmp_connect(path);
  Stream stream = acquire(path);
  qmp_negotiate(&stream);
  return stream;
}

static void send_request(Connection *connection) {
  connection->sent[(connection->first + connection->inFlight++) % depth] = now();
  send_all(connection->stream.descriptor, request, requestLength);
}

static void took_reply(Connection *connection, uint64_t at) {
  record(at - connection->sent[connection->first]);
  connection->first = (connection->first + 1) % depth;
  connection->inFlight--;
}

// Waits until a process sleeps: the letter behind its name, which is in parentheses.
static void wait_until_settled(int status) {
  for (char text[256];;) {
    ssize_t length = pread(status, text, sizeof text - 1, 0);
    if (length <= 0) fail("the process to wait for has ended");
    text[length] = 0;
    const char *end = strrchr(text, ')');
    if (end != NULL && end[1] == ' ' && end[2] == 'S') return;
    sched_yield();
  }
}

static void one_at_a_time(Connection *connection, uint64_t calls, uint64_t deadline, int settled) {
  while (count < calls && now() < deadline) {
    if (settled >= 0) wait_until_settled(settled);
    send_request(connection);
    next_reply(&connection->stream);
    took_reply(connection, now());
  }
}

static void fresh_connections(uint64_t calls, uint64_t deadline) {
  while (count < calls && now() < deadline) {
    uint64_t start = now();
    Stream stream = open_connection();
    send_all(stream.descriptor, request, requestLength);
    next_reply(&stream);
    record(now() - start);
    stream_free(&stream);
  }
}

static void many_at_once(Connection *connections, unsigned number, uint64_t calls, uint64_t deadline) {
  int poller = epoll_create1(EPOLL_CLOEXEC);
  uint64_t issued = 0;
  for (unsigned i = 0; i < number; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connections[i].stream.descriptor, &event) < 0) fail("epoll_ctl: %m");
    for (unsigned j = 0; j < depth && issued < calls; j++, issued++) send_request(&connections[i]);
  }
  while (count < issued) {
    struct epoll_event ready[64];
    int readyCount = epoll_wait(poller, ready, 64, -1);
    if (readyCount < 0 && errno != EINTR) fail("epoll_wait: %m");
    for (int i = 0; i < readyCount; i++) {
      Connection *connection = ready[i].data.ptr;
      if (!fill(&connection->stream)) fail("the server hung up");
      for (char *message; (message = buffered_message(&connection->stream)) != NULL;) {
        if (is_event(message)) continue;
        require_success(message);
        uint64_t at = now();
        took_reply(connection, at);
        if (issued < calls && at < deadline) {
          send_request(connection);
          issued++;
        }
      }
    }
  }
}

int main(int argc, char **argv) {
  uint64_t calls = 0, warm = 10;
  double seconds = 0;
  unsigned number = 1;
  bool fresh = false, waits = false;
  int settled = -1;
  int i = 1;
  for (const char *value; i < argc && argv[i][0] == '-'; i++) {
    if ((value = option_value(argv[i], "--calls"))) calls = strtoull(value, NULL, 10);
    else if ((value = option_value(argv[i], "--seconds"))) seconds = strtod(value, NULL);
    else if ((value = option_value(argv[i], "--warm"))) warm = strtoull(value, NULL, 10);
    else if ((value = option_value(argv[i], "--connections"))) number = (unsigned)strtoul(value, NULL, 10);
    else if ((value = option_value(argv[i], "--depth"))) depth = (unsigned)strtoul(value, NULL, 10);
    else if ((value = option_value(argv[i], "--settled"))) settled = open_status(value);
    else if (strcmp(argv[i], "--fresh") == 0) fresh = true;
    else if (strcmp(argv[i], "--wait") == 0) waits = true;
    else return fputs(usage, stderr), 64;
  }
  if (argc - i != 3 || number == 0 || depth == 0) return fputs(usage, stderr), 64;
  protocol = argv[i], path = argv[i + 1], request = argv[i + 2];
  // Varlink's terminator is the string's own.
  requestLength = strlen(request) + (strcmp(protocol, "varlink") == 0);
  if (calls == 0 && seconds == 0) calls = 100;

  Connection *connections = calloc(number, sizeof *connections);
  if (connections == NULL) fail("out of memory");
  for (unsigned c = 0; c < number; c++) {
    connections[c] = (Connection){.stream = open_connection(), .sent = calloc(depth, sizeof(uint64_t))};
    for (uint64_t w = 0; w < warm; w++) {
      send_all(connections[c].stream.descriptor, request, requestLength);
      next_reply(&connections[c].stream);
    }
  }
  bool goes = !waits || wait_for_go();
  uint64_t start = now();
  uint64_t deadline = seconds > 0 ? start + (uint64_t)(seconds * 1e9) : UINT64_MAX;
  if (calls == 0) calls = UINT64_MAX;
  if (!goes) calls = 0;
  if (fresh) fresh_connections(calls, deadline);
  else if (number == 1 && depth == 1) one_at_a_time(&connections[0], calls, deadline, settled);
  else many_at_once(connections, number, calls, deadline);
  printf("elapsed %llu\n", (unsigned long long)(now() - start));
  for (size_t s = 0; s < count; s++) printf("%llu\n", (unsigned long long)samples[s]);
  if (waits && goes) wait_for_end();
  // A session's monitor is gone when its end of file has come.
  if (strcmp(protocol, "session") == 0) {
    for (unsigned c = 0; c < number; c++) finish(&connections[c].stream);
  }
  return 0;
}
