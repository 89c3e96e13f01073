#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

noreturn void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: ", program_invocation_short_name);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

int try_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the path is too long for a socket: %s", path);
  strcpy(address.sun_path, path);
  int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  if (connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0) return descriptor;
  int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

int connect_to(const char *path) {
  int descriptor = try_connect(path);
  if (descriptor < 0) fail("cannot connect to %s: %m", path);
  return descriptor;
}

void send_all(int descriptor, const void *bytes, size_t count) {
  for (const char *next = bytes; count > 0;) {
    ssize_t sent = send(descriptor, next, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) fail("cannot send: %m");
    next += sent;
    count -= (size_t)sent;
  }
}

void send_with_descriptor(int descriptor, const char *text, int passed) {
  union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } control = {0};
  control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&control.header), &passed, sizeof passed);
  struct iovec vector = {.iov_base = (void *)text, .iov_len = strlen(text)};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t sent = sendmsg(descriptor, &message, MSG_NOSIGNAL);
  if (sent != (ssize_t)vector.iov_len) fail("cannot pass a descriptor: %m");
}

Stream stream_on(int descriptor, char terminator) {
  Stream stream = {.descriptor = descriptor, .terminator = terminator, .capacity = 16384};
  stream.buffer = malloc(stream.capacity);
  if (stream.buffer == NULL) fail("out of memory");
  return stream;
}

void stream_free(Stream *stream) {
  if (stream->descriptor >= 0) close(stream->descriptor);
  free(stream->buffer);
  *stream = (Stream){.descriptor = -1};
}

char *buffered_message(Stream *stream) {
  char *end = memchr(stream->buffer + stream->scanned, stream->terminator, stream->end - stream->scanned);
  if (end == NULL) {
    stream->scanned = stream->end;
    return NULL;
  }
  char *message = stream->buffer + stream->start;
  *end = 0;
  if (end > message && end[-1] == '\r') end[-1] = 0;
  stream->start = stream->scanned = (size_t)(end + 1 - stream->buffer);
  return message;
}

bool fill(Stream *stream) {
  if (stream->start == stream->end) {
    stream->start = stream->scanned = stream->end = 0;
  } else if (stream->end == stream->capacity && stream->start > 0) {
    memmove(stream->buffer, stream->buffer + stream->start, stream->end - stream->start);
    stream->scanned -= stream->start;
    stream->end -= stream->start;
    stream->start = 0;
  } else if (stream->end == stream->capacity) {
    stream->capacity *= 2;
    stream->buffer = realloc(stream->buffer, stream->capacity);
    if (stream->buffer == NULL) fail("out of memory");
  }
  while (true) {
    ssize_t count = recv(stream->descriptor, stream->buffer + stream->end, stream->capacity - stream->end, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != ECONNRESET) fail("cannot receive: %m");
    if (count <= 0) return false;
    stream->end += (size_t)count;
    return true;
  }
}

char *next_message(Stream *stream) {
  while (true) {
    char *message = buffered_message(stream);
    if (message != NULL) return message;
    if (!fill(stream)) return NULL;
  }
}

void require_success(const char *message) {
  // Errors are short, and where the reply is one its name stands near the front.
  char front[161];
  snprintf(front, sizeof front, "%s", message);
  if (strstr(front, "\"error\":") != NULL) fail("an error reply: %s", message);
}

bool is_event(const char *message) { return strncmp(message, "{\"timestamp\"", 12) == 0; }

char *next_reply(Stream *stream) {
  char *message;
  do {
    message = next_message(stream);
    if (message == NULL) fail("the server hung up");
  } while (is_event(message));
  require_success(message);
  return message;
}

void varlink_send(int descriptor, const char *call) { send_all(descriptor, call, strlen(call) + 1); }

char *varlink_call(Stream *stream, const char *call) {
  varlink_send(stream->descriptor, call);
  return next_reply(stream);
}

void qmp_negotiate(Stream *stream) {
  if (next_message(stream) == NULL) fail("no greeting");
  send_all(stream->descriptor, CAPABILITIES, strlen(CAPABILITIES));
  next_reply(stream);
}

Stream qmp_connect(const char *path) {
  Stream stream = stream_on(connect_to(path), '\n');
  qmp_negotiate(&stream);
  return stream;
}

Stream acquire(const char *path) {
  Stream stream = stream_on(connect_to(path), 0);
  varlink_call(&stream, ACQUIRE);
  stream.terminator = '\n';
  return stream;
}

void finish(Stream *stream) {
  shutdown(stream->descriptor, SHUT_WR);
  while (next_message(stream) != NULL) continue;
}

Stream hotplug(Stream *control, const char *id, bool pipelined) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) fail("socketpair: %m");
  char getfd[128], chardev[256], object[256], all[640];
  snprintf(getfd, sizeof getfd, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"%s\"}}", id);
  snprintf(
    chardev, sizeof chardev,
    "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"%s\",\"backend\":{\"type\":\"socket\",\"data\":{\"addr\":"
    "{\"type\":\"fd\",\"data\":{\"str\":\"%s\"}},\"server\":false}}}}",
    id, id);
  snprintf(
    object, sizeof object, "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"monitor-qmp\",\"id\":\"%s\",\"chardev\":\"%s\"}}", id,
    id);
  if (pipelined) {
    snprintf(all, sizeof all, "%s%s%s", getfd, chardev, object);
    send_with_descriptor(control->descriptor, all, pair[1]);
    for (int replies = 0; replies < 3; replies++) next_reply(control);
  } else {
    send_with_descriptor(control->descriptor, getfd, pair[1]);
    next_reply(control);
    send_all(control->descriptor, chardev, strlen(chardev));
    next_reply(control);
    send_all(control->descriptor, object, strlen(object));
    next_reply(control);
  }
  close(pair[1]);
  return stream_on(pair[0], '\n');
}

void unplug(Stream *control, const char *id, bool pipelined) {
  char object[128], chardev[128], both[256];
  snprintf(object, sizeof object, "{\"execute\":\"object-del\",\"arguments\":{\"id\":\"%s\"}}", id);
  snprintf(chardev, sizeof chardev, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"%s\"}}", id);
  if (pipelined) {
    snprintf(both, sizeof both, "%s%s", object, chardev);
    send_all(control->descriptor, both, strlen(both));
    next_reply(control);
    next_reply(control);
  } else {
    send_all(control->descriptor, object, strlen(object));
    next_reply(control);
    send_all(control->descriptor, chardev, strlen(chardev));
    next_reply(control);
  }
}

bool wait_for_go(void) {
  puts("ready");
  fflush(stdout);
  char line[16];
  // Without a word, nothing is to be done but to disconnect in order.
  return fgets(line, sizeof line, stdin) != NULL;
}

const char *option_value(const char *argument, const char *name) {
  size_t length = strlen(name);
  return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

void wait_for_end(void) {
  puts("done");
  fflush(stdout);
  while (getchar() != EOF) continue;
}
