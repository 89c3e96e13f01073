// Starts a machine, and says when it was up; then keeps it or ends it.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static const char usage[] =
  "usage: start [OPTION...] -- COMMAND [ARGUMENT...]\n"
  "\n"
  "  --control=SOCKET   the command serves Varlink there: prints 'socket NS' when one can connect, 'reply NS' when Describe\n"
  "                     was answered\n"
  "  --notify=SOCKET    has it say READY=1 there: prints 'ready NS'\n"
  "  --qmp              the command is a QEMU that speaks QMP on descriptor 3: prints 'greeting NS', and 'reply NS' when\n"
  "                     query-status was answered\n"
  "  --cgroup=FILE      shows it FILE as its /proc/self/cgroup (needs root)\n"
  "  --keep             prints 'pid PID' and keeps it until the end of standard input; then ends it\n"
  "  --limit=SECONDS    how long it may take to be up, and to end (60)\n"
  "\n"
  "Times count from the exec of the command. It is ended by Terminate or quit.\n";

static pid_t child;
static int childEnd = -1;
static uint64_t deadline;

static noreturn void give_up(const char *why) {
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  fail("%s", why);
}

// Waits for any of them, and ends the program if the command does or if it takes too long.
static void wait_for(struct pollfd *descriptors, nfds_t count) {
  descriptors[count] = (struct pollfd){.fd = childEnd, .events = POLLIN};
  uint64_t time = now();
  int result = time < deadline ? poll(descriptors, count + 1, (int)((deadline - time) / 1000000) + 1) : 0;
  if (result == 0) give_up("it takes too long");
  if (descriptors[count].revents != 0) give_up("the command has ended");
}

static void report(const char *what, uint64_t start) { printf("%s %llu\n", what, (unsigned long long)(now() - start)); }

// Watches the deepest folder of `path` that there is.
static void watch(int notifier, const char *path) {
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%s", path);
  struct stat status;
  do {
    char *slash = strrchr(folder, '/');
    if (slash == NULL || slash == folder) fail("no folder to watch for %s", path);
    *slash = 0;
  } while (stat(folder, &status) < 0);
  if (inotify_add_watch(notifier, folder, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0) fail("inotify: %m");
}

static int notification_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the path is too long for a socket: %s", path);
  strcpy(address.sun_path, path);
  unlink(path);
  int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0) fail("cannot bind %s: %m", path);
  return descriptor;
}

static bool said_ready(int descriptor) {
  char text[4096];
  for (ssize_t length; (length = recv(descriptor, text, sizeof text - 1, 0)) >= 0;) {
    text[length] = 0;
    if (strncmp(text, "READY=1", 7) == 0) return true;
  }
  return false;
}

// Until the daemon has said that it is ready, if it is asked to, and has answered its first call.
static Stream first_describe(const char *path, int readiness, uint64_t start) {
  int notifier = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  Stream stream = {.descriptor = -1};
  bool answered = false, ready = readiness < 0;
  while (!answered || !ready) {
    if (stream.descriptor < 0) {
      // Watched before the try, so that nothing is missed between the two.
      watch(notifier, path);
      int descriptor = try_connect(path);
      if (descriptor >= 0) {
        report("socket", start);
        stream = stream_on(descriptor, 0);
        varlink_send(descriptor, DESCRIBE);
      } else if (errno == ECONNREFUSED) {
        // Bound, and listening in a moment.
        sched_yield();
        continue;
      }
    }
    struct pollfd descriptors[4] = {
      {.fd = stream.descriptor >= 0 ? -1 : notifier, .events = POLLIN},
      {.fd = answered ? -1 : stream.descriptor, .events = POLLIN},
      {.fd = ready ? -1 : readiness, .events = POLLIN},
    };
    wait_for(descriptors, 3);
    char drop[4096];
    if (descriptors[0].revents != 0 && read(notifier, drop, sizeof drop) < 0 && errno != EAGAIN) fail("inotify: %m");
    if (descriptors[1].revents != 0) {
      next_reply(&stream);
      report("reply", start);
      answered = true;
    }
    if (descriptors[2].revents != 0 && said_ready(readiness)) {
      report("ready", start);
      ready = true;
    }
  }
  close(notifier);
  return stream;
}

static Stream first_query(int descriptor, uint64_t start) {
  send_all(descriptor, CAPABILITIES QUERY_STATUS, strlen(CAPABILITIES QUERY_STATUS));
  Stream stream = stream_on(descriptor, '\n');
  for (int message = 0; message < 3; message++) {
    struct pollfd descriptors[2] = {{.fd = descriptor, .events = POLLIN}};
    if (memchr(stream.buffer + stream.start, '\n', stream.end - stream.start) == NULL) wait_for(descriptors, 1);
    if (message == 0) {
      if (next_message(&stream) == NULL) give_up("no greeting");
      report("greeting", start);
    } else {
      next_reply(&stream);
    }
  }
  report("reply", start);
  return stream;
}

int main(int argc, char **argv) {
  const char *control = NULL, *notify = NULL, *cgroup = NULL;
  bool qmp = false, keep = false;
  double limit = 60;
  int i = 1;
  for (const char *value; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if ((value = option_value(argv[i], "--control"))) control = value;
    else if ((value = option_value(argv[i], "--notify"))) notify = value;
    else if ((value = option_value(argv[i], "--cgroup"))) cgroup = value;
    else if ((value = option_value(argv[i], "--limit"))) limit = strtod(value, NULL);
    else if (strcmp(argv[i], "--qmp") == 0) qmp = true;
    else if (strcmp(argv[i], "--keep") == 0) keep = true;
    else return fputs(usage, stderr), 64;
  }
  char **command = argv + i + 1;
  if (i + 1 >= argc || (control != NULL) == qmp) return fputs(usage, stderr), 64;

  int readiness = -1, pair[2] = {-1, -1}, clock[2];
  if (notify != NULL) {
    readiness = notification_socket(notify);
    setenv("NOTIFY_SOCKET", notify, 1);
  }
  if (pipe2(clock, O_CLOEXEC) < 0 || (qmp && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)) fail("pipe: %m");
  fflush(stdout);
  pid_t parent = getpid();
  child = fork();
  if (child < 0) fail("fork: %m");
  if (child == 0) {
    // A driver that is killed leaves no machine behind.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    // What the command prints is not ours.
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) fail("dup2: %m");
    if (qmp && dup2(pair[1], 3) < 0) fail("dup2: %m");
    if (cgroup != NULL) {
      if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("no mount namespace: %m");
      if (mount(cgroup, "/proc/self/cgroup", NULL, MS_BIND, NULL) < 0) fail("cannot show it %s: %m", cgroup);
    }
    uint64_t time = now();
    if (write(clock[1], &time, sizeof time) != sizeof time) _exit(1);
    execvp(command[0], command);
    fail("cannot start %s: %m", command[0]);
  }
  close(clock[1]);
  if (qmp) close(pair[1]);
  childEnd = (int)syscall(SYS_pidfd_open, child, 0);
  uint64_t start;
  if (read(clock[0], &start, sizeof start) != sizeof start) give_up("it was not started");
  deadline = start + (uint64_t)(limit * 1e9);

  Stream stream = qmp ? first_query(pair[0], start) : first_describe(control, readiness, start);
  if (keep) {
    printf("pid %d\n", child);
    fflush(stdout);
    struct pollfd descriptors[2] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    deadline = UINT64_MAX;
    descriptors[1] = (struct pollfd){.fd = childEnd, .events = POLLIN};
    while (poll(descriptors, 2, -1) < 0 && errno == EINTR) continue;
    if (descriptors[1].revents != 0) give_up("the command has ended");
  }
  // The reply may be lost in the end.
  const char *last = qmp ? "{\"execute\":\"quit\"}" : "{\"method\":\"io.systemd.MachineInstance.Terminate\"}";
  send_all(stream.descriptor, last, strlen(last) + !qmp);
  struct pollfd end = {.fd = childEnd, .events = POLLIN};
  while (next_message(&stream) != NULL) continue;
  if (poll(&end, 1, (int)(limit * 1000)) <= 0) give_up("it does not end");
  waitpid(child, NULL, 0);
  return 0;
}
