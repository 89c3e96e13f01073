// libFuzzer as a library. It comes with the compiler, which has no header for it.
#include <stddef.h>
#include <stdint.h>

/// Runs `callback` with inputs of its making until the command line says that it is enough.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *data, size_t size));
