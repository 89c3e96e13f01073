#pragma once

// libsystemd >= 262 as one Clang module, and of glibc what its own module leaves out. No code: every variadic
// function of libsystemd has a plain twin.
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <systemd/sd-id128.h>
#include <systemd/sd-journal.h>
#include <systemd/sd-json.h>
#include <systemd/sd-varlink-idl.h>
#include <systemd/sd-varlink.h>
#include <malloc.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/vfs.h>

// <sys/mman.h> has it for _GNU_SOURCE alone, which glibc's module is built without.
int memfd_create(const char *name, unsigned int flags);
// So <sys/socket.h> has this.
struct sockaddr;
int accept4(int socket, struct sockaddr *address, unsigned int *length, int flags);
