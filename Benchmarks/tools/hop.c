// The least that can stand between a client and QEMU: copies what the one says to the other, one client after the other, until its
// standard input ends. What a daemon takes longer than this is its own; the rest is two more wake-ups.
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("%s is too long for a socket", path);
  strcpy(address.sun_path, path);
  unlink(path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) fail("%s: %m", path);
  return listener;
}

// False when that side has ended.
static bool copy(int from, int to) {
  static char buffer[1 << 16];
  ssize_t count = read(from, buffer, sizeof buffer);
  if (count <= 0) return false;
  send_all(to, buffer, (size_t)count);
  return true;
}

int main(int argc, char **argv) {
  if (argc != 3) return fputs("usage: hop LISTEN QMP\n", stderr), 64;
  int listener = listen_at(argv[1]);
  puts("ready");
  fflush(stdout);
  for (;;) {
    struct pollfd begins[] = {{.fd = listener, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    if (poll(begins, 2, -1) < 0) fail("poll: %m");
    if (begins[1].revents) return unlink(argv[1]), 0;
    int client = accept(listener, NULL, NULL);
    if (client < 0) fail("accept: %m");
    int qemu = connect_to(argv[2]);
    struct pollfd ends[] = {{.fd = client, .events = POLLIN}, {.fd = qemu, .events = POLLIN}};
    for (bool open = true; open;) {
      if (poll(ends, 2, -1) < 0) fail("poll: %m");
      for (int i = 0; i < 2 && open; i++) {
        if (ends[i].revents) open = copy(ends[i].fd, ends[1 - i].fd);
      }
    }
    close(client);
    close(qemu);
  }
}
