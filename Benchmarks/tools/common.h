// What the load generators share: time, sockets, messages with a terminator, and the two protocols' first words.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Nanoseconds on the monotonic clock.
uint64_t now(void);

// A connected UNIX stream socket, or -1 with errno.
int try_connect(const char *path);
int connect_to(const char *path);

void send_all(int descriptor, const void *bytes, size_t count);
// The same, with a descriptor passed along.
void send_with_descriptor(int descriptor, const char *text, int passed);

// A stream of messages that each end with a terminator: a NUL in Varlink, a line feed in QMP.
typedef struct {
  int descriptor;
  char terminator;
  char *buffer;
  size_t capacity, start, scanned, end;
} Stream;

Stream stream_on(int descriptor, char terminator);
void stream_free(Stream *stream);
// The next message, without its terminator and NUL-terminated; valid until the next call. NULL at the end of the stream.
char *next_message(Stream *stream);
// The next message that is in the buffer already, or NULL.
char *buffered_message(Stream *stream);
// Reads once. False at the end of the stream.
bool fill(Stream *stream);

// Ends the program if a reply is an error.
void require_success(const char *message);
bool is_event(const char *message);
// The next message that is no event. Ends the program at the end of the stream or at an error reply.
char *next_reply(Stream *stream);

// Sends a Varlink call, and reads the reply. `call` is JSON.
void varlink_send(int descriptor, const char *call);
char *varlink_call(Stream *stream, const char *call);

// Reads QEMU's greeting and negotiates.
void qmp_negotiate(Stream *stream);
// Connects to a QMP socket and negotiates.
Stream qmp_connect(const char *path);
// Connects to a control socket and turns the connection into a QMP session; before the greeting.
Stream acquire(const char *path);
// Says that nothing more will be sent, and waits for the end of file, which comes when the session's monitor is gone.
void finish(Stream *stream);
// Hands a new monitor a socketpair: in one write, or command by command. The result is our end, before the greeting.
Stream hotplug(Stream *control, const char *id, bool pipelined);
void unplug(Stream *control, const char *id, bool pipelined);

#define ACQUIRE "{\"method\":\"io.systemd.QemuMachineInstance.AcquireQMP\",\"upgrade\":true}"
#define CAPABILITIES "{\"execute\":\"qmp_capabilities\"}"
#define QUERY_STATUS "{\"execute\":\"query-status\"}"
#define DESCRIBE "{\"method\":\"io.systemd.MachineInstance.Describe\"}"

// For a driver that wants to look at the server during the load only: says "ready", and waits for a line. False when the end comes instead.
bool wait_for_go(void);
// Says "done", and waits for the end of standard input.
void wait_for_end(void);
// The value of "--name=VALUE" if `argument` is that, else NULL.
const char *option_value(const char *argument, const char *name);
